"""Tunstall codes: sequences of symbols to words of one length, decoded by copying strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lilliput import _native
from lilliput.coding.coder import Bytes, Counts, as_bytes, checked, encodable, flat
from lilliput.core import RecipeError

_LEAVES, _NODES = 0, 1
# Kinds of dictionary, and what each symbol costs besides, in eighths of a bit.
_CANDIDATES: Final = ((_LEAVES, 0), (_NODES, 2), (_NODES, 4), (_NODES, 6))


@dataclass(frozen=True, kw_only=True)
class Tunstall:
    """A dictionary of up to `2^width` likely sequences of symbols; the longest that fits is coded by its number (tunstall1967).

    The table holds each symbol's cost, `-8 log2 p` rounded; the decoder builds the dictionary from these integers: the sequences of least
    total cost. Of two kinds the one of longer average words is taken: the leaves of tunstall1967's tree; or, which is no complete tree
    any more, all nodes of a tree that is grown one node at a time, whose words may be beginnings of others. That is shorter for alphabets of
    ten symbols or more, and better still with up to 6/8 bit added to each cost, found by trial: after such a word some symbols cannot
    follow, which the costs do not know. Words have at most 64 symbols. The last word of a stream may run beyond its end.
    Chunks of 4096 symbols or more are four streams. The format is specified in `csrc/coding/tunstall.h`.

    Larger `width` (8 to 16 bits a word) are smaller files and slower: 4-bit Laplacian weights take 8%, 6% and 4.5% more than their
    entropy with 8, 12 and 16 bits, and the dictionary of 12 bits is the largest that stays in the nearest cache.

    >>> from lilliput.coding.coder import count
    >>> symbols, coder = np.array([1, 0, 1, 1, 2, 1, 1, 1], np.uint8), Tunstall(width=8)
    >>> table = coder.table(count(symbols))
    >>> out, coded = np.empty_like(symbols), coder.encode(symbols, table)
    >>> coder.decode(as_bytes(coded), table, out)
    >>> out.tolist(), len(coded)
    ([1, 0, 1, 1, 2, 1, 1, 1], 2)
    """

    width: int = 12
    number: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if not 8 <= self.width <= 16:
            raise RecipeError(f"Tunstall words have 8 to 16 bits, not {self.width}")

    def table(self, counts: Counts) -> bytes:
        """The costs, and the kind of dictionary, of longest average words, serialised."""
        found = [self._serialised(_costs(counts, more), kind) for kind, more in _CANDIDATES]
        return max(found, key=lambda table: _rate(table, counts))

    def encode(self, symbols: Bytes, table: bytes) -> bytes:
        """One chunk."""
        status, coded = _native.tunstall_encode(flat(symbols), as_bytes(table))
        encodable(status)
        return coded

    def decode(self, coded: Bytes, table: bytes, out: Bytes) -> None:
        """Fill `out`."""
        checked(_native.tunstall_decode(coded, as_bytes(table), out), "a chunk or its table")

    def bits(self, counts: Counts, table: bytes) -> float:
        """What a chunk takes on average, if symbols come in any order."""
        status, width, _, known = _native.tunstall_read(as_bytes(table))
        checked(status, "the table")
        total = int(counts.sum())
        if known < 2 or not total:
            return 0.0
        streams, header = _native.chunk_streams(total)
        words = total / _rate(table, counts) + 0.5 * streams  # the last word of a stream is not filled
        return width * words + 3.5 * streams + 8 * header

    def _serialised(self, costs: NDArray[np.uint8], kind: int) -> bytes:
        status, table = _native.tunstall_table(costs, self.width, kind)
        checked(status, "the table")
        return table


def _costs(counts: Counts, more: int) -> NDArray[np.uint8]:
    """`-8 log2 p + more`, rounded, from 1 to 255; 0 for symbols that do not occur."""
    present = counts > 0
    shares = np.where(present, counts, 1) / max(float(counts.sum(dtype=np.float64)), 1.0)
    return np.where(present, np.clip(np.rint(-8 * np.log2(shares)) + more, 1, 255), 0).astype(np.uint8)


def _rate(table: bytes, counts: Counts) -> float:
    """Symbols of an average word."""
    status, rate = _native.tunstall_rate(as_bytes(table), counts.astype(np.float64))
    checked(status, "the table")
    return rate
