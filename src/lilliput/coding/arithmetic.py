"""Arithmetic coding: any distribution within a fraction of a percent of its entropy, at a division a symbol."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lilliput import _native
from lilliput.coding.coder import Bytes, Counts, as_bytes, checked, encodable, entropy, flat
from lilliput.core import CorruptFileError, PreconditionError

# What csrc/coding/arithmetic.h says of adaptive frequencies: how much they grow by, and the total that they are halved beyond.
_GROWTH: Final = 32
_LIMIT: Final = 2**22


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Arithmetic coding: of an interval, each symbol takes the share `f / sum f` (witten1987arithmetic).

    Static frequencies are in a table, add up to `2^P`, and `P` (1 to 16) is the one of least total size. With `adaptive` ones there is
    no table: all 256 are 1 at first, a symbol's grows by 32 when it has been coded, and all are halved when together they exceed 2^22.

    Departs from witten1987arithmetic in the arithmetic, not in the code: a 64-bit low end and length instead of two 16-bit ends, carries
    that go into bytes already written instead of bits held back, four bytes at a time instead of one bit. It has no symbol for the end,
    since the count is known. Its adaptive model grows by 1 and is halved beyond 2^14, which learns small alphabets slowly and forgets
    too soon. The format is specified in `csrc/coding/arithmetic.h`.

    >>> from lilliput.coding.coder import count
    >>> symbols, coder = np.array([1, 0, 1, 1, 2, 1, 1, 1], np.uint8), Arithmetic()
    >>> table = coder.table(count(symbols))
    >>> out, coded = np.empty_like(symbols), coder.encode(symbols, table)
    >>> coder.decode(as_bytes(coded), table, out)
    >>> out.tolist(), len(coded), len(Arithmetic(adaptive=True).encode(symbols, b""))
    ([1, 0, 1, 1, 2, 1, 1, 1], 2, 5)
    """

    adaptive: bool = False

    @property
    def number(self) -> int:
        """4, and 5 where adaptive."""
        return 5 if self.adaptive else 4

    def table(self, counts: Counts) -> bytes:
        """Frequencies near those of least size, serialised; none where they adapt."""
        if self.adaptive:
            return b""
        status, table = _native.arithmetic_table(counts)
        if status != _native.OK:
            raise PreconditionError("counts are how often each of the 256 symbols occurs: pass those of coding.count")
        return table

    def encode(self, symbols: Bytes, table: bytes) -> bytes:
        """One chunk."""
        if self.adaptive:
            _no(table)
            status, coded = _native.adaptive_encode(flat(symbols))
        else:
            status, coded = _native.arithmetic_encode(flat(symbols), as_bytes(table))
        encodable(status)
        return coded

    def decode(self, coded: Bytes, table: bytes, out: Bytes) -> None:
        """Fill `out`."""
        if self.adaptive:
            _no(table)
            checked(_native.adaptive_decode(coded, out), "a chunk")
        else:
            checked(_native.arithmetic_decode(coded, as_bytes(table), out), "a chunk or its table")

    def bits(self, counts: Counts, table: bytes) -> float:
        """The symbols' shares, and one bit to end with, in whole bytes: `sum_s c_s log2(sum f / f_s)` where frequencies are static."""
        if self.adaptive:
            _no(table)
            shares = _adaptive_bits(counts)
        else:
            shares = _static_bits(counts, table)
        return 8.0 * math.ceil((shares + 1) / 8) if shares > 0 else 0.0


def _static_bits(counts: Counts, table: bytes) -> float:
    frequencies = np.empty(256, np.uint32)
    status, precision = _native.arithmetic_read(as_bytes(table), frequencies)
    checked(status, "the table")
    used = counts > 0
    encodable(_native.BAD_CODE if np.any(frequencies[used] == 0) else _native.OK)
    return float(counts[used] @ (precision - np.log2(frequencies[used].astype(np.float64))))


def _adaptive_bits(counts: Counts) -> float:
    """`log2 prod_(i < n) (256 + 32 i) - sum_s log2 prod_(j < c_s) (1 + 32 j)`, whatever the order, while nothing is halved.

    Of more symbols, as many as one halving is after the other are counted so, and the rest by their entropy.
    """
    total, window = int(counts.sum()), _LIMIT // _GROWTH
    known: NDArray[np.float64] = counts.astype(np.float64) * min(1.0, window / max(total, 1))
    learnt = _rising(np.array([known.sum()]), 256 / _GROWTH) - _rising(known, 1 / _GROWTH)
    return learnt / math.log(2) + max(total - window, 0) * entropy(counts)


def _rising(times: NDArray[np.float64], start: float) -> float:
    """`sum_n log (start (start + 1) ... (start + n - 1))`."""
    return sum(math.lgamma(start + float(n)) - math.lgamma(start) for n in times)


def _no(table: bytes) -> None:
    if table:
        raise CorruptFileError("adaptive arithmetic coding has no table, but one is there: get the file again")
