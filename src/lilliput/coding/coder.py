"""What an entropy coder of byte symbols with static frequencies is, and what coders share."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lilliput import _native
from lilliput.core import CorruptFileError, PreconditionError
from lilliput.core.signs import Instructions, chosen

Bytes: TypeAlias = NDArray[np.uint8]
Counts: TypeAlias = NDArray[np.int64]


class Coder(Protocol):
    """Byte symbols to fewer bytes, by how often each symbol occurs.

    A table made from counts codes any sequence of the symbols whose count is not zero. What `encode` returns can be decoded alone.
    Checksums are the container's; a decoder does not rely on them.
    """

    @property
    def number(self) -> int:
        """How files name the coder; never used again for another."""
        ...

    def table(self, counts: Counts) -> bytes:
        """The serialised table for symbols of these `counts`, `(256,)`; empty where a coder needs none."""
        ...

    def encode(self, symbols: Bytes, table: bytes) -> bytes:
        """Code `symbols`, `(n,)`; raises `PreconditionError` for a symbol that the table does not know."""
        ...

    def decode(self, coded: Bytes, table: bytes, out: Bytes) -> None:
        """Fill `out` with the symbols; raises `CorruptFileError` when `coded` or `table` is not what a coder made."""
        ...

    def bits(self, counts: Counts, table: bytes) -> float:
        """What `encode` takes for symbols of these counts in one chunk, without encoding; the table not counted."""
        ...


def count(symbols: ArrayLike) -> Counts:
    """How often each of the 256 symbols occurs.

    >>> count(np.array([3, 5, 3], np.uint8))[:6].tolist()
    [0, 0, 0, 2, 0, 1]
    """
    counts = np.zeros(256, np.int64)
    _native.count_symbols(flat(symbols), counts)
    return counts


def flat(symbols: ArrayLike) -> Bytes:
    """Symbols as a contiguous vector of bytes; raises `PreconditionError` for anything but bytes."""
    array = np.asarray(symbols)
    if array.dtype != np.uint8:
        raise PreconditionError(f"symbols must be bytes (uint8), not {array.dtype}: shift them into 0 ... 255 and cast")
    return np.ascontiguousarray(array).reshape(-1)


def as_bytes(data: bytes | Bytes) -> Bytes:
    """Bytes as an array, not copied."""
    return np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data


def entropy(counts: Counts) -> float:
    """Bits a symbol, `-sum p log2 p`: what no code of single symbols goes below on average.

    >>> entropy(np.array([2, 1, 1]))
    1.5
    """
    total = int(counts.sum())
    shares = counts[counts > 0] / max(total, 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def checksum(data: bytes | Bytes, before: int = 0, instructions: Instructions | None = None) -> int:
    """CRC-32C of what `before` is of, followed by `data`.

    >>> hex(checksum(b"123456789"))
    '0xe3069283'
    """
    return _native.crc32c(chosen(instructions), as_bytes(data), before)


def checked(status: int, what: str) -> None:
    """Raise `CorruptFileError` unless a decoder's status is that all is well."""
    if status != _native.OK:
        raise CorruptFileError(f"{what} is damaged, or was made by something else: get the file again")


def encodable(status: int) -> None:
    """Raise `PreconditionError` where an encoder met a symbol that its table does not know; `CorruptFileError` for what is no table."""
    if status == _native.BAD_CODE:
        raise PreconditionError("a symbol occurs that the table has no code for: make it from the counts of all that is to be coded")
    checked(status, "the table")
