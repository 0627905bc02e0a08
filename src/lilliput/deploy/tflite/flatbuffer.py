"""Reading flatbuffers that a stranger may have written: tables, vectors and strings, every offset checked before it is followed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import CorruptFileError

Array = NDArray[Any]
_MAX_BYTES = 2**31 - 1  # flatbuffers' own limit: offsets may be signed
_MAX_NAME = 1 << 16
# Parts may be shared, but a file of which much more is read than it holds was made to exhaust its reader.
_READ_FACTOR = 16


class Buffer:
    """The bytes of a file, and how much more may be read of them."""

    def __init__(self, data: bytes, name: str = "the file") -> None:
        self.data, self.name = memoryview(data), name
        self._left = _READ_FACTOR * len(data)
        if not 8 <= len(data) <= _MAX_BYTES:
            raise self.corrupt(f"it has {len(data)} bytes")

    def corrupt(self, reason: str) -> CorruptFileError:
        """The error to raise."""
        return CorruptFileError(f"{self.name} cannot be read as a LiteRT model: {reason}. Copy it again from its source, or convert it again")

    def span(self, start: int, size: int) -> memoryview:
        """Bytes from `start` on; `CorruptFileError` where they leave the file, or too much was read already."""
        if start < 0 or size < 0 or start + size > len(self.data):
            raise self.corrupt(f"{size} bytes at {start} lie outside of it")
        self._left -= size + 8
        if self._left < 0:
            raise self.corrupt("its parts overlap")
        return self.data[start:start + size]

    def number(self, start: int, code: str) -> Any:
        """One number, its type a code of `struct`."""
        return struct.unpack("<" + code, self.span(start, struct.calcsize("<" + code)))[0]

    def root(self, identifier: bytes) -> Table:
        """The table that the file consists of; `CorruptFileError` where the identifier is another."""
        if bytes(self.data[4:8]) != identifier:
            raise self.corrupt(f"it lacks the identifier {identifier.decode()}")
        return Table.at(self, self.number(0, "I"))

    def target(self, start: int) -> int:
        """Where the offset at `start` points to."""
        return start + int(self.number(start, "I"))


class Source(Protocol):
    """Where the fields of a structure come from: a table, or the lack of one."""

    def number(self, field: int, code: str, default: Any) -> Any:
        """A number."""
        ...


@dataclass(frozen=True)
class Table:
    """A table: its fields by number, absent ones by their default."""

    buffer: Buffer
    start: int
    size: int
    offsets: tuple[int, ...]

    @classmethod
    def at(cls, buffer: Buffer, start: int) -> Table:
        """The table that begins at `start`."""
        described = start - int(buffer.number(start, "i"))
        length, size = (int(buffer.number(described + k, "H")) for k in (0, 2))
        if length < 4 or length % 2 or size < 4:
            raise buffer.corrupt(f"the table at {start} has no valid description")
        buffer.span(start, size)
        offsets = struct.unpack(f"<{length // 2 - 2}H", buffer.span(described + 4, length - 4))
        return cls(buffer, start, size, offsets)

    def _place(self, field: int, size: int) -> int | None:
        offset = self.offsets[field] if field < len(self.offsets) else 0
        if offset and (offset < 4 or offset + size > self.size):
            raise self.buffer.corrupt(f"field {field} of the table at {self.start} lies outside of it")
        return self.start + offset if offset else None

    def number(self, field: int, code: str, default: Any) -> Any:
        """A number or truth value, its type a code of `struct`."""
        place = self._place(field, struct.calcsize("<" + code))
        return default if place is None else type(default)(self.buffer.number(place, code))

    def _target(self, field: int) -> int | None:
        place = self._place(field, 4)
        return None if place is None else self.buffer.target(place)

    def table(self, field: int) -> Table | None:
        """A table, one in a union too."""
        target = self._target(field)
        return None if target is None else Table.at(self.buffer, target)

    def tables(self, field: int) -> tuple[Table, ...]:
        """A vector of tables."""
        target = self._target(field)
        if target is None:
            return ()
        count = int(self.buffer.number(target, "I"))
        self.buffer.span(target + 4, 4 * count)
        return tuple(Table.at(self.buffer, self.buffer.target(target + 4 + 4 * k)) for k in range(count))

    def numbers(self, field: int, kind: str) -> Array | None:
        """A vector of numbers of the little-endian numpy type `kind`, a view of the file; None where it is absent."""
        target = self._target(field)
        if target is None:
            return None
        count, dtype = int(self.buffer.number(target, "I")), np.dtype(kind)
        return np.frombuffer(self.buffer.span(target + 4, count * dtype.itemsize), dtype)

    def text(self, field: int) -> str:
        """A string, empty where it is absent; what is no UTF-8 in it is replaced."""
        found = self.numbers(field, "<u1")
        if found is not None and found.size > _MAX_NAME:
            raise self.buffer.corrupt(f"a name in it has {found.size} bytes")
        return "" if found is None else found.tobytes().decode("utf-8", "replace")
