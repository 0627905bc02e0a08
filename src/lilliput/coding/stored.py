"""Symbols as they are, and behind zstd: what entropy coders are measured by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import zstandard

from lilliput.coding.coder import Bytes, Counts, entropy, flat
from lilliput.core import CorruptFileError
from lilliput.core.bits import pack, packed_size, unpack


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Every symbol as one byte."""

    number: ClassVar[int] = 0

    def table(self, counts: Counts) -> bytes:  # noqa: ARG002 - as every coder has it
        """None."""
        return b""

    def encode(self, symbols: Bytes, table: bytes) -> bytes:  # noqa: ARG002
        """The symbols."""
        return flat(symbols).tobytes()

    def decode(self, coded: Bytes, table: bytes, out: Bytes) -> None:
        """The symbols."""
        if coded.size != out.size or table:
            raise CorruptFileError("a stored chunk has another size than it should: get the file again")
        out[:] = coded

    def bits(self, counts: Counts, table: bytes) -> float:  # noqa: ARG002
        """Eight each."""
        return 8.0 * float(counts.sum())


@dataclass(frozen=True, kw_only=True)
class Zstd:
    """Symbols packed into as few whole bits as the largest needs (1, 2, 4 or 8), then zstd: finds what repeats, which no table of counts can."""

    level: int = 19
    number: ClassVar[int] = 7

    def table(self, counts: Counts) -> bytes:
        """One byte: the bits of a symbol."""
        highest = int(np.flatnonzero(counts).max(initial=0))
        return bytes([next(bits for bits in (1, 2, 4, 8) if highest < 2**bits)])

    def encode(self, symbols: Bytes, table: bytes) -> bytes:
        """A frame of zstd with the size of its content."""
        return zstandard.ZstdCompressor(level=self.level).compress((symbols if table[0] == 8 else pack(symbols, table[0])).tobytes())

    def decode(self, coded: Bytes, table: bytes, out: Bytes) -> None:
        """Fill `out`."""
        if len(table) != 1 or table[0] not in (1, 2, 4, 8):
            raise CorruptFileError("the table of a zstd chunk is damaged: get the file again")
        size = out.size if table[0] == 8 else packed_size(out.size, table[0])
        packed = np.frombuffer(inflate(coded, size), np.uint8)
        out[:] = packed if table[0] == 8 else unpack(packed, table[0], out.size)

    def bits(self, counts: Counts, table: bytes) -> float:  # noqa: ARG002
        """A guess from single symbols: their entropy."""
        return float(counts.sum()) * entropy(counts)


def inflate(coded: Bytes | bytes, size: int) -> bytes:
    """What a frame of zstd holds, which must be `size` bytes; no more memory than that is taken."""
    try:
        frame = memoryview(coded.tobytes() if isinstance(coded, np.ndarray) else coded)
        told = zstandard.frame_content_size(frame)
        out = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size) if told == size else b""
    except zstandard.ZstdError as error:
        raise CorruptFileError(f"a zstd frame is damaged: {error}") from None
    if told != size or len(out) != size:
        raise CorruptFileError(f"a zstd frame holds another size than the {size} bytes that it should: get the file again")
    return out
