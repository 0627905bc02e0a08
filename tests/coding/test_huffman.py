"""Canonical Huffman codes: exact, of least size within 12 bits, the same by every decoder, and unharmed by any bytes."""

import heapq
from contextlib import suppress
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lilliput import _native
from lilliput.coding import Huffman, count, entropy
from lilliput.core import CorruptFileError, PreconditionError
from lilliput.core.signs import Instructions

# Where the number of streams, the size of the decoding table and the bytes of streams' sizes change, and their neighbours.
SIZES = [0, 1, 2, 3, 30, 4095, 4096, 4097, 8191, 8192, 8193, 131_068, 131_072, 131_073]


def laplacian(rng, size, spread, bits):
    """Integers of a Laplacian around the middle of so many bits."""
    half = 2 ** (bits - 1)
    return (np.clip(np.round(rng.laplace(scale=spread, size=size)), -half, half - 1) + half).astype(np.uint8)


def lengths_of(table):
    lengths, present = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    assert _native.huffman_lengths(np.frombuffer(table, np.uint8), lengths, present) == _native.OK
    return lengths, present


def decode(coded, table, size, instructions=None):
    out = np.full(size, 77, np.uint8)
    Huffman().decode(np.frombuffer(coded, np.uint8), table, out, instructions=instructions)
    return out


def round_trip(symbols):
    table = Huffman().table(count(symbols))
    coded = Huffman().encode(symbols, table)
    for instructions in (Instructions.PORTABLE, None):
        np.testing.assert_array_equal(decode(coded, table, symbols.size, instructions), symbols)
    for part in (max(symbols.size, 1), 1000, 7):
        if symbols.size // part < 5000:
            out = np.empty_like(symbols)
            small = _native.huffman_decode_small(np.frombuffer(coded, np.uint8), np.frombuffer(table, np.uint8), out, part)
            assert small == _native.OK
            np.testing.assert_array_equal(out, symbols)
    return table, coded


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("size", SIZES)
def test_round_trip_at_the_sizes_where_something_changes(size, bits):
    round_trip(laplacian(np.random.default_rng(size), size, 1.9 ** (bits / 2 - 1), bits))


@pytest.mark.parametrize("size", [1000, 100_000])
@pytest.mark.parametrize("kind", ["constant", "two", "all but one", "fibonacci", "uniform", "far apart", "halves"])
def test_hard_distributions_stay_within_a_bit_of_the_entropy(kind, size):
    rng = np.random.default_rng(1)
    symbols = {
        "constant": np.full(size, 200),
        "two": np.where(rng.random(size) < 0.001, 255, 0),
        "all but one": np.where(np.arange(size) == size // 2, 3, 4),
        "fibonacci": np.searchsorted(np.cumsum(1.618 ** -np.arange(60.0)) / 2.618, rng.random(size)),
        "uniform": rng.integers(0, 256, size),
        "far apart": rng.choice([0, 128, 255], size),
        # One stream of zeros, the others not: streams end at different steps.
        "halves": np.where(np.arange(size) < size // 4, 0, rng.integers(0, 256, size)),
    }[kind].astype(np.uint8)
    _, coded = round_trip(symbols)
    # Four streams: their sizes, and the bits that fill their bytes.
    assert 8 * len(coded) <= size * (entropy(count(symbols)) + 1) + 8 * 3 * 4 + 8 * 4
    if kind == "constant":
        assert coded == b""


@pytest.mark.parametrize(("bits", "spread", "bound"), [(4, 1.2376, 1.022), (8, 7.9, 1.015)])
def test_size_of_laplacian_weights(bits, spread, bound):
    symbols = laplacian(np.random.default_rng(2), 500_000, spread, bits)
    _, coded = round_trip(symbols)
    assert 8 * len(coded) <= bound * entropy(count(symbols)) * symbols.size


def test_worked_example():
    # 1 -> 0, 0 -> 10, 2 -> 11: 0 10 0 0 11 0 0 0.
    symbols = np.array([1, 0, 1, 1, 2, 1, 1, 1], np.uint8)
    table, coded = round_trip(symbols)
    assert coded == bytes([0b01000110, 0b00000000])
    # From the lowest bit: 1 1 0, 2 in four bits; 1 0 1 (one less); 1 0 0 (one more).
    assert int.from_bytes(table, "little") == 0b001_101_0010_011


def test_tables_are_small():
    rng = np.random.default_rng(3)
    assert len(Huffman().table(count(laplacian(rng, 100_000, 1.2376, 4)))) <= 9
    assert len(Huffman().table(count(laplacian(rng, 1_000_000, 8.3, 8)))) <= 48
    assert len(Huffman().table(np.ones(256, np.int64))) == 3  # the length 8, then 255 times the same
    assert len(Huffman().table(np.bincount([5], minlength=256))) <= 3
    assert Huffman().table(np.zeros(256, np.int64)) == b""


def least(weights, longest):
    """The least sum of weight times length, level by level: of the nodes of a level the leaves get the largest weights left."""
    weights = sorted(weights, reverse=True)
    below = np.concatenate([np.cumsum(weights[::-1])[::-1], [0]])

    @cache
    def cost(level, done, nodes):
        if done == len(weights):
            return 0
        if level > longest or nodes == 0:
            return float("inf")
        left = len(weights) - done
        # Everything from `done` on is at this level or below: a bit for each.
        return min(cost(level + 1, done + leaves, min(2 * (nodes - leaves), left - leaves)) + (below[done] if level else 0)
                   for leaves in range(min(nodes, left) + 1))

    return cost(0, 0, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 2**20), min_size=2, max_size=24), st.randoms())
def test_lengths_are_the_best_of_at_most_12_bits(weights, random):
    weights = [max(1, int(w * 0.5 ** (i if random.random() < 0.7 else 0))) for i, w in enumerate(weights)]
    counts = np.zeros(256, np.int64)
    counts[: len(weights)] = weights
    lengths, present = lengths_of(Huffman().table(counts))
    assert present[: len(weights)].all()
    assert present.sum() == len(weights)
    assert lengths.max() <= 12
    assert sum(2.0 ** -int(length) for length in lengths[: len(weights)]) == 1
    assert int(counts @ lengths.astype(np.int64)) == least(weights, 12)


def test_lengths_of_fibonacci_counts_reach_the_limit():
    counts = np.zeros(256, np.int64)
    counts[:20] = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181, 6765]
    lengths, _ = lengths_of(Huffman().table(counts))
    assert lengths.max() == 12
    assert int(counts @ lengths.astype(np.int64)) == least(counts[:20].tolist(), 12)


def test_lengths_are_huffmans_where_those_are_short():
    counts = np.random.default_rng(4).integers(100, 3000, 256)
    heap = counts.tolist()
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    assert int(counts @ lengths_of(Huffman().table(counts))[0].astype(np.int64)) == total


@pytest.mark.parametrize("scale", [1, 2**29, 2**31, 2**40, 2**55])
def test_counts_of_any_size(scale):
    counts = np.array([5, 3, 1, 1] + [0] * 252, np.int64)
    assert Huffman().table(counts * scale) == Huffman().table(counts)


def test_estimate_of_the_size():
    for size in (0, 500, 4000, 5000, 300_000):
        symbols = laplacian(np.random.default_rng(5), size, 1.5, 4)
        table, coded = round_trip(symbols)
        assert Huffman().bits(count(symbols), table) == pytest.approx(8 * len(coded), abs=16 if size > 4095 else 0)


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.uint8, st.one_of(st.integers(0, 300), st.integers(4090, 4200)), elements=st.integers(0, 255)))
def test_round_trip_of_anything(symbols):
    round_trip(symbols)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.int64, 256, elements=st.integers(0, 2**40)))
def test_a_table_of_any_counts_codes_what_it_was_made_for(counts):
    table = Huffman().table(counts)
    symbols = np.flatnonzero(counts).astype(np.uint8)
    np.testing.assert_array_equal(decode(Huffman().encode(symbols, table), table, symbols.size), symbols)
    with suppress(IndexError), pytest.raises(PreconditionError, match="no code"):
        Huffman().encode(np.flatnonzero(counts == 0)[:1].astype(np.uint8)[[0]], table)


@pytest.mark.parametrize("size", [40, 4100, 20_000])
def test_truncation_and_flips_are_errors_or_symbols(size):
    symbols = laplacian(np.random.default_rng(6), size, 1.5, 4)
    table, coded = round_trip(symbols)
    for length in range(len(coded)) if size == 40 else np.linspace(0, len(coded) - 1, 20).astype(int):
        with pytest.raises(CorruptFileError):
            decode(coded[:length], table, size)
    for length in range(len(table)):
        with pytest.raises(CorruptFileError):
            decode(coded, table[:length], size)
    places = range(len(coded)) if size == 40 else np.random.default_rng(7).integers(0, len(coded), 60)
    for data, other, at in [(coded, table, i) for i in places] + [(table, coded, i) for i in range(len(table))]:
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            chunk, names = (bytes(flipped), other) if data is coded else (other, bytes(flipped))
            out, small = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
            status = _native.huffman_decode_small(np.frombuffer(chunk, np.uint8), np.frombuffer(names, np.uint8), small, size)
            try:
                Huffman().decode(np.frombuffer(chunk, np.uint8), names, out)
            except CorruptFileError:
                assert status != _native.OK
            else:
                assert status == _native.OK
                np.testing.assert_array_equal(out, small)
    with pytest.raises(CorruptFileError):
        decode(coded + b"\x00", table, size)


@pytest.mark.parametrize("table", [
    b"\x00",  # sixteen of length 4 want two bytes
    b"\x03",  # 1 1 0, then 0: the only symbol without bits, which is symbol 0
    b"\x00\x00\x00",  # a byte too many
    b"\xff" * 3,  # nothing but symbols without codes
    bytes([0b0001_011 | 0b0 << 7, 0b0]) + b"\x00",  # two of length 1, then bits
    bytes([0b11_101_101, 0b01]),  # lengths 3, 2, ... and then too many
])
def test_what_is_no_table(table):
    symbols = np.zeros(3, np.uint8)
    if table == b"\x03":
        Huffman().decode(np.empty(0, np.uint8), table, symbols)
        return
    with pytest.raises(CorruptFileError):
        Huffman().decode(np.frombuffer(b"\x00\x00", np.uint8), table, symbols)


def test_wrong_symbols():
    with pytest.raises(PreconditionError, match="uint8"):
        Huffman().encode(np.array([1, 2]), Huffman().table(np.ones(256, np.int64)))
    table = Huffman().table(np.bincount([7] * 3 + [8], minlength=256))
    for symbols in ([7, 9], [7] * 5000 + [6]):
        with pytest.raises(PreconditionError, match="no code"):
            Huffman().encode(np.array(symbols, np.uint8), table)
    with pytest.raises(PreconditionError, match="no code"):
        Huffman().bits(np.bincount([7, 9], minlength=256), table)
    with pytest.raises(CorruptFileError):
        decode(b"", b"", 1)  # no symbols at all
    assert decode(b"", b"", 0).size == 0
