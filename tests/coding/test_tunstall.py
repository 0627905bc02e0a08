"""Tunstall codes: exact, by the dictionary of the specification, the same by every decoder, and unharmed by any bytes."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lilliput import _native
from lilliput.coding import Tunstall, count, entropy
from lilliput.core import CorruptFileError, PreconditionError, RecipeError

LEAVES, NODES = 0, 1


def laplacian(rng, size, spread, bits):
    """Integers of a Laplacian around the middle of so many bits."""
    half = 2 ** (bits - 1)
    return (np.clip(np.round(rng.laplace(scale=spread, size=size)), -half, half - 1) + half).astype(np.uint8)


def as_array(data):
    return np.frombuffer(data, np.uint8)


def serialised(costs, width, kind):
    padded = np.zeros(256, np.uint8)
    padded[: len(costs)] = costs
    status, table = _native.tunstall_table(padded, width, kind)
    assert status == _native.OK
    return table


def both(coded, table, size):
    """What the two decoders give: a status and symbols each."""
    found = []
    for decoder in (_native.tunstall_decode, _native.tunstall_decode_small):
        out = np.full(size, 77, np.uint8)
        found.append((decoder(as_array(coded), as_array(table), out), out))
    return found


def round_trip(symbols, table, width=12):
    coded = Tunstall(width=width).encode(symbols, table)
    for status, out in both(coded, table, symbols.size):
        assert status == _native.OK
        np.testing.assert_array_equal(out, symbols)
    return coded


def cheapest(costs, most, longest):
    """The `most` cheapest sequences of ranks, by (cost, breadth-first order)."""
    heap, found = [(cost, 1, (rank,)) for rank, cost in enumerate(costs)], []
    heapq.heapify(heap)
    while len(found) < most:
        cost, length, ranks = heapq.heappop(heap)
        found.append(ranks)
        if length < longest:
            for rank, more in enumerate(costs):
                heapq.heappush(heap, (cost + more, length + 1, (*ranks, rank)))
    return found


def dictionary(costs, width, kind):
    """Words by number, as the specification has them, of symbols 0, 1, ... of these costs."""
    order = sorted(range(len(costs)), key=lambda symbol: (costs[symbol], symbol))
    ranked = [costs[symbol] for symbol in order]
    if kind == LEAVES:
        inner = {(), *cheapest(ranked, (2**width - 1) // (len(costs) - 1) - 1, 63)}
        words = [(*ranks, rank) for ranks in inner for rank in range(len(costs)) if (*ranks, rank) not in inner]
    else:
        words = [(rank,) for rank in range(len(costs))]
        longer = (ranks for ranks in cheapest(ranked, 2**width + len(costs), 64) if len(ranks) > 1)
        words += [ranks for _, ranks in zip(range(2**width - len(costs)), longer, strict=False)]
    return [[order[rank] for rank in ranks] for ranks in sorted(words, key=lambda ranks: (len(ranks), ranks))]


def words_of(coded, width):
    bits = np.unpackbits(as_array(coded), bitorder="little")
    whole = len(bits) // width * width
    assert not bits[whole:].any()
    assert len(bits) - whole < 8
    return bits[:whole].reshape(-1, width) @ (1 << np.arange(width))


COSTS = [[8, 8], [1, 40], [2, 200, 201], [4, 12, 20, 28, 28], [9, 9, 9, 9], [30, 3, 30, 17, 40, 51, 60, 60, 60, 61], [64] * 256,
         [255, 255], [1, 255], [255, 1, 255], [1] + [70] * 15]


@pytest.mark.parametrize("kind", [LEAVES, NODES])
@pytest.mark.parametrize("width", [8, 9, 11])
@pytest.mark.parametrize("costs", COSTS)
def test_chunks_are_words_of_the_dictionary_that_the_specification_describes(costs, width, kind):
    words = dictionary(costs, width, kind)
    assert len(words) == (2**width if kind == NODES else 1 + (2**width - 1) // (len(costs) - 1) * (len(costs) - 1))
    rng = np.random.default_rng(0)
    shares = 2.0 ** (-np.array(costs) / 8)
    symbols = rng.choice(len(costs), 3000, p=shares / shares.sum()).astype(np.uint8)
    coded = round_trip(symbols, serialised(costs, width, kind), width)
    spelt = [symbol for word in words_of(coded, width) for symbol in words[word]]
    assert spelt[: symbols.size] == symbols.tolist()
    last = len(words[words_of(coded, width)[-1]])
    assert len(spelt) - symbols.size < last
    # The longest word that fits is taken; the last one may not.
    at = 0
    for word in words_of(coded, width)[:-1][:200]:
        fits = [len(other) for other in words if symbols[at:at + len(other)].tolist() == other]
        assert len(words[word]) == max(fits)
        at += len(words[word])


def test_worked_example():
    # Two symbols of equal cost: words are all sequences of eight, in order.
    table = serialised([8, 8], 8, LEAVES)
    assert round_trip(np.array([1, 0, 1, 1, 0, 0, 1, 0, 1], np.uint8), table, 8) == bytes([0b10110010, 0b10000000])
    # b - 8, kind, r = 0; K - 1 = 1; an absent run of 0 as the length 1, a present run of 2; costs 8 - 32 (zigzag 47) and 0, in ones and a zero.
    # A rest of r = 5 bits is shorter for the first cost but not for both: 47 >> 4 is 2 ones, 0, 1111; 0, 0000.
    fields = [(0, 4), (0, 1), (4, 3), (1, 8), (0, 1), (0b01, 2), (0, 1), (0b011, 3), (15, 4), (0, 1), (0, 4)]
    bits = "".join(format(value, f"0{size}b")[::-1] for value, size in fields)
    assert int(bits[::-1], 2) == int.from_bytes(table, "little")


@pytest.mark.parametrize("width", [8, 12, 13, 16])
@pytest.mark.parametrize("size", [0, 1, 2, 30, 4095, 4096, 4097, 70_001])
def test_round_trip_of_sizes_and_widths(size, width):
    symbols = laplacian(np.random.default_rng(size), size, 1.24, 4)
    round_trip(symbols, Tunstall(width=width).table(count(symbols)), width)


@pytest.mark.parametrize("size", [1000, 100_000])
@pytest.mark.parametrize("kind", ["constant", "two", "all but one", "fibonacci", "uniform", "far apart", "halves"])
def test_hard_distributions(kind, size):
    rng = np.random.default_rng(1)
    symbols = {
        "constant": np.full(size, 200),
        "two": np.where(rng.random(size) < 0.001, 255, 0),
        "all but one": np.where(np.arange(size) == size // 2, 3, 4),
        "fibonacci": np.searchsorted(np.cumsum(1.618 ** -np.arange(60.0)) / 2.618, rng.random(size)),
        "uniform": rng.integers(0, 256, size),
        "far apart": rng.choice([0, 128, 255], size),
        "halves": np.where(np.arange(size) < size // 4, 0, rng.integers(0, 256, size)),
    }[kind].astype(np.uint8)
    coded = round_trip(symbols, Tunstall().table(count(symbols)))
    assert 8 * len(coded) <= 12 * size + 96  # a word for each symbol is the worst there is
    if kind == "constant":
        assert coded == b""


@pytest.mark.parametrize(("width", "bound"), [(8, 1.09), (12, 1.07), (16, 1.06)])
def test_size_of_laplacian_weights(width, bound):
    symbols = laplacian(np.random.default_rng(2), 200_000, 1.24, 4)
    coded = round_trip(symbols, Tunstall(width=width).table(count(symbols)), width)
    assert 8 * len(coded) <= bound * entropy(count(symbols)) * symbols.size


def test_the_kind_of_shorter_words_is_left():
    symbols = {kind: laplacian(np.random.default_rng(3), 50_000, spread, bits) for kind, spread, bits in ((LEAVES, 0.7, 2), (NODES, 1.24, 4))}
    for kind, each in symbols.items():
        table = Tunstall().table(count(each))
        assert _native.tunstall_read(as_array(table))[2] == kind
        costs = np.zeros(256, np.uint8)
        costs[np.unique(each)] = np.rint(-8 * np.log2(count(each)[np.unique(each)] / each.size))
        other = serialised(costs, 12, 1 - kind)
        assert len(round_trip(each, table)) < len(round_trip(each, other))


def test_estimate_of_the_size():
    for size in (0, 500, 5000, 300_000):
        for bits, spread in ((1, 0.3), (4, 1.24), (8, 8.0)):
            symbols = laplacian(np.random.default_rng(4), size, spread, bits)
            table = Tunstall().table(count(symbols))
            assert Tunstall().bits(count(symbols), table) == pytest.approx(8 * len(round_trip(symbols, table)), rel=0.005, abs=120)


@pytest.mark.parametrize("scale", [1, 2**29, 2**31, 2**40, 2**59])
def test_counts_of_any_size(scale):
    counts = np.array([5, 3, 1, 1] + [0] * 252, np.int64)
    assert Tunstall().table(counts * scale) == Tunstall().table(counts)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint8, st.one_of(st.integers(0, 300), st.integers(4090, 4200)), elements=st.integers(0, 255)), st.sampled_from([8, 11, 12]))
def test_round_trip_of_anything(symbols, width):
    round_trip(symbols, Tunstall(width=width).table(count(symbols)), width)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, 256, elements=st.one_of(st.just(0), st.integers(0, 2**40))))
def test_a_table_of_any_counts_codes_what_it_was_made_for(counts):
    table = Tunstall(width=9).table(counts)
    round_trip(np.flatnonzero(counts).astype(np.uint8), table, 9)
    for unknown in np.flatnonzero(counts == 0)[:1].astype(np.uint8):
        with pytest.raises(PreconditionError, match="no code"):
            Tunstall().encode(np.full(5, unknown, np.uint8), table)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint8, st.integers(0, 256), elements=st.one_of(st.just(0), st.integers(0, 255))), st.integers(8, 12), st.sampled_from([0, 1]))
def test_tables_of_any_costs(costs, width, kind):
    table = serialised(costs, width, kind)
    status, *fields = _native.tunstall_read(as_array(table))
    assert status == _native.OK
    assert fields == ([width, kind, np.count_nonzero(costs)] if costs.any() else [8, 0, 0])
    round_trip(np.tile(np.flatnonzero(costs), 3).astype(np.uint8), table, width)


@pytest.mark.parametrize("size", [40, 4100, 20_000])
def test_truncation_and_flips_are_errors_or_symbols(size):
    symbols = laplacian(np.random.default_rng(6), size, 1.5, 4)
    table = Tunstall(width=9).table(count(symbols))
    coded = round_trip(symbols, table, 9)
    for length in range(len(coded)) if size == 40 else np.linspace(0, len(coded) - 1, 20).astype(int):
        assert [status for status, _ in both(coded[:length], table, size)] == [_native.CORRUPT] * 2
    for length in range(len(table)):
        assert [status for status, _ in both(coded, table[:length], size)] == [_native.CORRUPT] * 2
    places = range(len(coded)) if size == 40 else np.random.default_rng(7).integers(0, len(coded), 60)
    for data, other, at in [(coded, table, i) for i in places] + [(table, coded, i) for i in range(len(table))]:
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            (status, out), (small, again) = both(*((flipped, other) if data is coded else (other, flipped)), size)
            assert status == small
            if status == _native.OK:
                np.testing.assert_array_equal(out, again)
    with pytest.raises(CorruptFileError):
        Tunstall().decode(as_array(coded + b"\x00\x00"), table, np.empty(size, np.uint8))


def test_wrong_settings_and_symbols():
    with pytest.raises(RecipeError, match="8 to 16"):
        Tunstall(width=17)
    with pytest.raises(PreconditionError, match="uint8"):
        Tunstall().encode(np.array([1, 2]), Tunstall().table(np.ones(256, np.int64)))
    for known in ([7, 8], [7]):
        table = Tunstall().table(np.bincount(known, minlength=256))
        for symbols in ([7, 9], [7] * 5000 + [6]):
            with pytest.raises(PreconditionError, match="no code"):
                Tunstall().encode(np.array(symbols, np.uint8), table)
    with pytest.raises(CorruptFileError):
        Tunstall().decode(np.empty(0, np.uint8), b"", np.empty(1, np.uint8))
    assert Tunstall().table(np.zeros(256, np.int64)) == b""
