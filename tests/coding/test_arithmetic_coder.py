"""Arithmetic coding: exact, at the entropy, as worked by hand, and unharmed by any bytes."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lilliput import _native
from lilliput.coding.arithmetic import Arithmetic
from lilliput.coding.coder import count, entropy
from lilliput.core import CorruptFileError, PreconditionError

STATIC, ADAPTIVE = Arithmetic(), Arithmetic(adaptive=True)


def round_trip(coder, symbols):
    table = coder.table(count(symbols))
    coded = coder.encode(symbols, table)
    out = np.full_like(symbols, 255 - (symbols[0] if len(symbols) else 0))
    coder.decode(np.frombuffer(coded, np.uint8), table, out)
    np.testing.assert_array_equal(out, symbols)
    return table, coded


def distribution(kind, size):
    rng = np.random.default_rng(1)
    return {
        "constant": np.full(size, 200),
        "two": np.where(rng.random(size) < 0.001, 255, 0),
        "all but one": np.where(np.arange(size) == size // 2, 3, 4),
        "fibonacci": np.searchsorted(np.cumsum(1.618 ** -np.arange(60.0)) / 2.618, rng.random(size)),
        "uniform": rng.integers(0, 256, size),
        "laplacian": np.clip(np.round(rng.laplace(scale=2, size=size)), -8, 7) + 8,
        "far apart": rng.choice([0, 128, 255], size),
    }[kind].astype(np.uint8)


KINDS = ["constant", "two", "all but one", "fibonacci", "uniform", "laplacian", "far apart"]


@pytest.mark.parametrize("kind", KINDS)
def test_static_size_is_the_entropy(kind):
    symbols = distribution(kind, 100_000)
    counts = count(symbols)
    table, coded = round_trip(STATIC, symbols)
    # Frequencies are whole numbers of 2^16 at best: less than 0.1%, and some bits where a table of rounder ones is smaller in all.
    assert 8 * len(coded) <= 1.001 * entropy(counts) * symbols.size + 0.75 * np.count_nonzero(counts) + 16
    # What rounder frequencies cost may not exceed what finer ones would take in the table.
    assert 8 * (len(coded) + len(table)) <= 1.0002 * entropy(counts) * symbols.size + 8 * 3 + 16 * np.ptp(np.flatnonzero(counts)) + 16


@pytest.mark.parametrize("kind", KINDS)
def test_adaptive_size_is_the_entropy_and_what_learning_costs(kind):
    symbols = distribution(kind, 300_000)  # halved twice
    counts = count(symbols)
    _, coded = round_trip(ADAPTIVE, symbols)
    # Symbols that do not occur weigh as much as eight that do: 8 log2(n / 8) bits for a constant, and more after halving.
    assert 8 * len(coded) <= 1.003 * entropy(counts) * symbols.size + 30 * np.count_nonzero(counts) + 200


@pytest.mark.parametrize("coder", [STATIC, ADAPTIVE])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 10, 1000, 50_000])
def test_bits_tell_the_size(coder, kind, size):
    symbols = distribution(kind, size)
    counts = count(symbols)
    table, coded = round_trip(coder, symbols)
    assert abs(coder.bits(counts, table) - 8 * len(coded)) <= 8 + 1e-4 * 8 * len(coded)


def test_bits_of_more_than_one_halving_are_near():
    symbols = distribution("fibonacci", 400_000)
    assert abs(ADAPTIVE.bits(count(symbols), b"") / (8 * len(ADAPTIVE.encode(symbols, b""))) - 1) < 0.005


def test_a_chunk_by_hand():
    # T = 4, f = (1, 3): P = 2, the first symbol is 0, one more follows; f_0 takes one bit, three fewer than four: five ones and a zero.
    table = bytes([2, 0, 1, 0b011111])
    # The interval is 2^64 - 1 long, r = 2^62 - 1. The symbol 1 takes [r, 4 r), of which the symbol 0 takes the first quarter, about
    # [2^62, 2^62 + 3 * 2^60): the first byte that lies in it, whatever follows, is 2^62 / 2^56 = 64.
    assert STATIC.encode(np.array([1, 0], np.uint8), table) == bytes([64])
    # (0, 0) is [0, 2^60), whose first byte is 0; (1, 1) ends with [r + 3 r / 4, 4 r), which 2^62 + 3 * 2^60 = 112 * 2^56 is just not in.
    assert STATIC.encode(np.array([0, 0], np.uint8), table) == bytes([0])
    assert STATIC.encode(np.array([1, 1], np.uint8), table) == bytes([112])
    out = np.empty(2, np.uint8)
    STATIC.decode(np.array([100], np.uint8), table, out)
    assert out.tolist() == [1, 0]


def test_an_adaptive_chunk_by_hand():
    # Two of the last symbol: [255/256, 1), then 33 of 288: [1 - 33/(256 * 288), 1) of 2^64, whose first bytes are 255 and 222 or more.
    coded = ADAPTIVE.encode(np.array([255, 255], np.uint8), b"")
    start = 1 - 33 / (256 * 288)
    assert start <= int.from_bytes(coded, "big") / 256 ** len(coded) <= start + 1 / 256 ** len(coded)
    assert len(coded) == 2


@pytest.mark.parametrize("top", [2**31, 2**40])
def test_large_counts_make_tables(top):
    counts = np.zeros(256, np.int64)
    counts[[3, 9, 200]] = 1, 2, top
    table = STATIC.table(counts)
    symbols = np.array([3, 9, 200, 200], np.uint8)
    out = np.empty_like(symbols)
    STATIC.decode(np.frombuffer(STATIC.encode(symbols, table), np.uint8), table, out)
    np.testing.assert_array_equal(out, symbols)
    assert STATIC.bits(counts, table) < 0.0003 * top


@given(hnp.arrays(np.uint8, st.integers(0, 300)))
def test_any_symbols_round_trip(symbols):
    for coder in (STATIC, ADAPTIVE):
        round_trip(coder, symbols)


@given(hnp.arrays(np.uint8, st.integers(0, 300), elements=st.integers(3, 6)), hnp.arrays(np.uint8, st.integers(0, 20), elements=st.integers(3, 6)))
def test_a_table_codes_any_sequence_of_its_symbols(symbols, others):
    counts = count(symbols)
    coded = others[counts[others] > 0]
    table = STATIC.table(counts)
    out = np.empty_like(coded)
    STATIC.decode(np.frombuffer(STATIC.encode(coded, table), np.uint8), table, out)
    np.testing.assert_array_equal(out, coded)


def test_what_cannot_be_coded_is_refused():
    table = STATIC.table(count(np.array([1, 3, 3], np.uint8)))
    for symbol in (0, 2, 4, 255):
        with pytest.raises(PreconditionError, match="has no code"):
            STATIC.encode(np.array([symbol], np.uint8), table)
    with pytest.raises(PreconditionError):
        STATIC.table(np.zeros(3, np.int64))
    with pytest.raises(PreconditionError):
        STATIC.table(np.full(256, -1))
    with pytest.raises(CorruptFileError):
        ADAPTIVE.encode(np.zeros(1, np.uint8), b"table")


@pytest.mark.parametrize("coder", [STATIC, ADAPTIVE])
def test_truncated_and_lengthened_chunks_are_refused(coder):
    symbols = distribution("laplacian", 500)
    table, coded = round_trip(coder, symbols)
    out = np.empty_like(symbols)
    accepted = 0
    for size in range(len(coded)):
        with suppress(CorruptFileError):
            # A shorter chunk ends in zeros instead, and may happen to be as long as what it then decodes to takes.
            coder.decode(np.frombuffer(coded[:size], np.uint8), table, out)
            assert len(coder.encode(out, table)) == size
            accepted += 1
    assert accepted <= 3
    for more in (1, 4, 8, 100):
        with pytest.raises(CorruptFileError):
            coder.decode(np.frombuffer(coded + bytes(more), np.uint8), table, out)
    for size in range(len(table)):
        with pytest.raises(CorruptFileError):
            coder.decode(np.frombuffer(coded, np.uint8), table[:size], out)


@pytest.mark.parametrize("coder", [STATIC, ADAPTIVE])
def test_flipped_bits_never_crash(coder):
    symbols = distribution("fibonacci", 200)
    table, coded = round_trip(coder, symbols)
    out = np.empty_like(symbols)
    for at in range(8 * (len(table) + len(coded))):
        damaged = bytearray(table + coded)
        damaged[at // 8] ^= 1 << at % 8
        with suppress(CorruptFileError):
            coder.decode(np.frombuffer(bytes(damaged[len(table):]), np.uint8), bytes(damaged[:len(table)]), out)


@settings(max_examples=300)
@given(st.binary(max_size=60), st.binary(max_size=40), st.integers(0, 200))
def test_any_bytes_are_decoded_or_refused(table, coded, size):
    out = np.empty(size, np.uint8)
    for coder in (STATIC, ADAPTIVE):
        with suppress(CorruptFileError):
            coder.decode(np.frombuffer(coded, np.uint8), table, out)


def test_the_library_checks_its_tables():
    frequencies = np.zeros(256, np.uint32)
    for table in (b"", b"\x01", b"\x00\x01\x01", b"\x11\x00\x01\x00", b"\x02\xff\x01\x1f", b"\x02\x00\x00\x1f", b"\x02\x00\x01\xff\xff\xff\xff",
                  b"\x02\x00\x01\x3f", b"\x02\x00\x01\x1f\x00", b"\x02\x00\x01\x9f"):
        assert _native.arithmetic_read(np.frombuffer(table, np.uint8), frequencies)[0] == _native.CORRUPT
    assert _native.arithmetic_read(np.frombuffer(b"\x02\x00\x01\x1f", np.uint8), frequencies) == (_native.OK, 2)
    assert frequencies[:3].tolist() == [1, 3, 0]
