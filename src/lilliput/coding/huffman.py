"""Canonical Huffman codes: whole bits for every symbol, tables of a few bytes, and the smallest decoder there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lilliput import _native
from lilliput.coding.coder import Bytes, Counts, as_bytes, checked, encodable, flat
from lilliput.core import PreconditionError
from lilliput.core.signs import Instructions, chosen


@dataclass(frozen=True, kw_only=True)
class Huffman:
    """Prefix codes of least `sum_s c_s l_s`, in bits, among lengths `l_s <= 12` (huffman1952), as for the weights of han2016deep.

    Departs from huffman1952 in the limit of 12 bits, by package-merge, so that a table of 2^12 entries decodes up to six symbols at a
    time. Codes are canonical: the table holds their lengths alone. Chunks of 4096 symbols or more are four streams, decoded together.
    The only symbol of an alphabet takes no bits. The format is specified in `csrc/coding/huffman.h`.

    >>> from lilliput.coding.coder import count
    >>> symbols, coder = np.array([1, 0, 1, 1, 2, 1, 1, 1], np.uint8), Huffman()
    >>> table = coder.table(count(symbols))
    >>> out, coded = np.empty_like(symbols), coder.encode(symbols, table)
    >>> coder.decode(as_bytes(coded), table, out)
    >>> out.tolist(), len(coded)
    ([1, 0, 1, 1, 2, 1, 1, 1], 2)
    """

    number: ClassVar[int] = 2

    def table(self, counts: Counts) -> bytes:
        """The lengths of least size, serialised."""
        status, table = _native.huffman_table(counts)
        if status != _native.OK:
            raise PreconditionError("counts are how often each of the 256 symbols occurs: pass those of coding.count")
        return table

    def encode(self, symbols: Bytes, table: bytes) -> bytes:
        """One chunk."""
        status, coded = _native.huffman_encode(flat(symbols), as_bytes(table))
        encodable(status)
        return coded

    def decode(self, coded: Bytes, table: bytes, out: Bytes, *, instructions: Instructions | None = None) -> None:
        """Fill `out`."""
        checked(_native.huffman_decode(chosen(instructions), coded, as_bytes(table), out), "a chunk or its table")

    def bits(self, counts: Counts, table: bytes) -> float:
        """What a chunk takes, but for the bits that fill up the bytes of its streams, of which the average is taken."""
        lengths, present = np.empty(256, np.uint8), np.empty(256, np.uint8)
        checked(_native.huffman_lengths(as_bytes(table), lengths, present), "the table")
        encodable(_native.BAD_CODE if np.any(counts[present == 0]) else _native.OK)
        streams, header = _native.chunk_streams(int(counts.sum()))
        coded = float(counts @ lengths.astype(np.float64))
        if np.count_nonzero(present) < 2:
            return 0.0
        return float(-(-coded // 8) * 8) if streams == 1 else coded + 3.5 * streams + 8 * header
