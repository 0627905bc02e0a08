"""Interleaved rANS: exact, near the entropy, the same on every instruction set, and unharmed by any bytes."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lilliput.coding import Rans, count, entropy
from lilliput.core import CorruptFileError, PreconditionError, RecipeError
from lilliput.core.signs import Instructions

# The sizes at which the number of lanes changes, and their neighbours.
SIZES = [0, 1, 2, 63, 2047, 2048, 2049, 65_535, 65_536, 65_537, 131_071, 131_073]


def laplacian(rng, size, spread, bits):
    """Integers of a Laplacian around the middle of so many bits."""
    half = 2 ** (bits - 1)
    return (np.clip(np.round(rng.laplace(scale=spread, size=size)), -half, half - 1) + half).astype(np.uint8)


def round_trip(coder, symbols, instructions=None):
    table = coder.table(count(symbols))
    coded = coder.encode(symbols, table)
    out = np.full_like(symbols, 255 - (symbols[0] if len(symbols) else 0))
    coder.decode(np.frombuffer(coded, np.uint8), table, out, instructions=instructions)
    np.testing.assert_array_equal(out, symbols)
    return table, coded


@pytest.mark.parametrize("instructions", [Instructions.PORTABLE, None])
@pytest.mark.parametrize("pairs", [False, True, None])
@pytest.mark.parametrize("size", SIZES)
def test_round_trip_at_the_sizes_where_lanes_change(size, pairs, instructions):
    symbols = laplacian(np.random.default_rng(size), size, 2.0, 4)
    round_trip(Rans(pairs=pairs), symbols, instructions)


@pytest.mark.parametrize("size", [5000, 200_000])
@pytest.mark.parametrize("kind", ["constant", "two", "all but one", "fibonacci", "uniform", "far apart"])
def test_hard_distributions(kind, size):
    rng = np.random.default_rng(1)
    symbols = {
        "constant": np.full(size, 200),
        "two": np.where(rng.random(size) < 0.001, 255, 0),
        "all but one": np.where(np.arange(size) == size // 2, 3, 4),
        "fibonacci": np.searchsorted(np.cumsum(1.618 ** -np.arange(60.0)) / 2.618, rng.random(size)),
        "uniform": rng.integers(0, 256, size),
        "far apart": rng.choice([0, 128, 255], size),
    }[kind].astype(np.uint8)
    table, coded = round_trip(Rans(), symbols)
    counts = count(symbols)
    total = 8 * (len(table) + len(coded))
    # A state of 32 bits for each lane, the table, a hundredth of a bit where probabilities are cut to 2^-14, and half a bit
    # of log2 e for each symbol where a shorter table of rounder frequencies is smaller in all.
    assert total <= size * (entropy(counts) + 0.01) + 32 * (64 if size > 65_536 else 4) + 8 * len(table) + 64 + 0.75 * np.count_nonzero(counts)


@pytest.mark.parametrize(("bits", "spread", "bound"), [(4, 1.9, 0.0015), (8, 7.9, 0.0015)])
def test_size_is_within_a_thousandth_or_so_of_the_entropy(bits, spread, bound):
    symbols = laplacian(np.random.default_rng(2), 1_000_000, spread, bits)
    table, coded = round_trip(Rans(), symbols)
    assert 8 * (len(table) + len(coded)) <= (1 + bound) * entropy(count(symbols)) * symbols.size


@pytest.mark.parametrize("pairs", [False, True])
def test_estimate_of_the_size(pairs):
    for size in (500, 5000, 300_000):
        symbols = laplacian(np.random.default_rng(3), size, 1.5, 4)
        coder = Rans(pairs=pairs)
        table, coded = round_trip(coder, symbols)
        assert coder.bits(count(symbols), table) == pytest.approx(8 * len(coded), rel=0.002, abs=40)


def test_worked_example():
    # Four slots of 256 to a ratio of 3 to 1: P = 8, frequencies 192 and 64, widths 8 and 7. The second is not told.
    symbols = np.array([0, 0, 0, 1], np.uint8)
    coder = Rans(precision=8)
    table, coded = coder.table(np.array([300, 100] + [0] * 254)), b""
    # P; first; range - 1; then width 8 after 4: +4, zigzag 8, in unary 0b0_1111_1111, then 192 - 128 = 64 in seven bits.
    assert table[:3] == bytes([8, 0, 1])
    assert int.from_bytes(table[3:], "little") == 0b1000000_0_11111111
    coded = coder.encode(symbols, table)
    # One lane, from the last symbol back: 1 -> 0, 0, 0. x = 2^16: to 1: 2^16 // 64 * 256 + 192 = 262336; to 0 (f = 192): x // 192 = 1366, rest 64:
    # 1366 * 256 + 64 = 349760; 1821 * 256 + 128 = 466304; 2428 * 256 + 128 = 621696.
    assert int.from_bytes(coded[:4], "little") == 621696
    assert coded[4:] == b"\x00"  # no words, no exceptions
    out = np.empty(4, np.uint8)
    coder.decode(np.frombuffer(coded, np.uint8), table, out)
    assert out.tolist() == [0, 0, 0, 1]


def test_symbols_without_a_frequency_are_listed():
    coder = Rans()
    table = coder.table(np.bincount([7] * 60 + [8] * 40, minlength=256))
    symbols = np.array([7, 8, 255, 7, 0, 8, 8], np.uint8)
    coded = coder.encode(symbols, table)
    out = np.empty_like(symbols)
    coder.decode(np.frombuffer(coded, np.uint8), table, out)
    np.testing.assert_array_equal(out, symbols)
    # How many, k = 1 (two among seven), then gaps 2 (quotient 1, rest 0) and 1 (quotient 0, rest 1), each with its symbol.
    assert coded[-5:] == bytes([2, 1]) + (0b01 | 0 << 2 | 255 << 3 | 0 << 11 | 1 << 12 | 0 << 13).to_bytes(3, "little")


@pytest.mark.parametrize("scale", [2**29, 2**31, 2**40])
def test_counts_of_any_size(scale):
    counts = np.array([5, 3, 1, 1] + [0] * 252, np.int64) * scale
    coder = Rans(precision=8)
    assert coder.table(counts) == coder.table(counts // 2**9)
    round_trip(coder, np.array([0, 1, 2, 3], np.uint8))


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.uint8, st.integers(0, 300), elements=st.integers(0, 255)), st.sampled_from([None, 8, 11, 14]), st.sampled_from([None, False, True]))
def test_round_trip_of_anything(symbols, precision, pairs):
    coder = Rans(precision=precision, pairs=pairs)
    for instructions in (None, Instructions.PORTABLE):
        round_trip(coder, symbols, instructions)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.int64, 256, elements=st.integers(0, 2**40)), st.sampled_from([None, 8, 14]), st.sampled_from([None, False, True]))
def test_a_table_of_any_counts_codes_what_it_was_made_for(counts, precision, pairs):
    coder = Rans(precision=precision, pairs=pairs)
    table = coder.table(counts)
    symbols = np.flatnonzero(counts).astype(np.uint8)
    out = np.empty_like(symbols)
    coder.decode(np.frombuffer(coder.encode(symbols, table), np.uint8), table, out)
    np.testing.assert_array_equal(out, symbols)


@pytest.mark.parametrize("size", [40, 2100, 66_000])
def test_truncation_and_flips_are_errors_or_symbols(size):
    symbols = laplacian(np.random.default_rng(4), size, 1.5, 4)
    coder = Rans()
    table, coded = round_trip(coder, symbols)
    out = np.empty_like(symbols)
    lengths = range(len(coded)) if size == 40 else np.linspace(0, len(coded) - 1, 20).astype(int)
    for length in lengths:
        with pytest.raises(CorruptFileError):
            coder.decode(np.frombuffer(coded[:length], np.uint8), table, out)
    rng = np.random.default_rng(5)
    for data, other, at in [(coded, table, i) for i in rng.integers(0, len(coded), 60)] + [(table, coded, i) for i in range(len(table))]:
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.integers(8)
        chunk, names = (bytes(flipped), other) if data is coded else (other, bytes(flipped))
        with suppress(CorruptFileError):
            coder.decode(np.frombuffer(chunk, np.uint8), names, out)
    with pytest.raises(CorruptFileError):
        coder.decode(np.frombuffer(coded + b"\x00", np.uint8), table, out)


def test_wrong_settings_and_symbols():
    with pytest.raises(RecipeError, match="8 to 14"):
        Rans(precision=15)
    with pytest.raises(PreconditionError, match="uint8"):
        Rans().encode(np.array([1, 2]), Rans().table(np.ones(256, np.int64)))
    with pytest.raises(CorruptFileError):
        Rans().encode(np.zeros(3, np.uint8), b"nonsense")
