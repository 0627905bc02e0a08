"""Whole numbers behind a coder that knows their neighbours: the smallest files, and the slowest to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lilliput.coding.cabac import Cabac
from lilliput.coding.coder import Bytes, as_bytes
from lilliput.coding.cursor import Cursor, varint
from lilliput.coding.elements import Element
from lilliput.coding.symbols import Codes, Palette, Split, Symbols
from lilliput.core import CorruptFileError


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """Codes of up to 8 bits, or which of at most 256 values an element is, less the most frequent one, as a matrix of so many rows.

    The only stream is what CABAC makes of it (wiedemann2019deepcabac); the head has the rows, the most frequent one, and the values.
    """

    rows: int = 1
    number: ClassVar[int] = 4

    def codes(self, payload: Bytes, element: Element) -> tuple[Bytes, ...]:
        """What is coded, as streams of symbols."""
        inner = _inner(element).split(payload, element)
        return () if inner is None else inner.streams

    def split(self, payload: Bytes, element: Element) -> Split | None:
        """Bits of the matrix as a stream of bytes."""
        inner = _inner(element).split(payload, element)
        if inner is None or not payload.size:
            return None
        (codes,) = inner.streams
        # Codes that fill the last byte belong to no row.
        rows = self.rows if codes.size % self.rows == 0 else 1
        most = int(np.bincount(codes).argmax())
        matrix = (codes.astype(np.int32) - most).reshape(rows, -1)
        return Split(varint(rows) + bytes([most]) + inner.head, (as_bytes(Cabac().encode(matrix)),))

    def join(self, split: Split, element: Element, size: int) -> Bytes:
        """Codes from the matrix."""
        head, count = Cursor(split.head, "the head of a tensor in contexts"), 8 * size // element.bits
        rows, most = head.varint(limit=count + 1), head.byte()
        if not rows or count % rows or len(split.streams) != 1:
            raise head.damaged(f"{count} elements in {rows} rows, and {len(split.streams)} streams")
        codes = Cabac().decode(split.streams[0], (rows, count // rows)).reshape(-1) + most
        if not 0 <= int(codes.min()) <= int(codes.max()) < 256:
            raise CorruptFileError("a code is not in a byte: get the file again")
        return _inner(element).join(Split(head.take(head.left), (codes.astype(np.uint8),)), element, size)


def _inner(element: Element) -> Symbols:
    return Codes() if element.bits <= 8 else Palette()
