"""The index of a file of coded tensors, and where its chunks stand. `docs/lil.md` specifies it byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lilliput.coding.cursor import Cursor, block, varint
from lilliput.coding.elements import ELEMENTS, Element
from lilliput.core import CorruptFileError

MAGIC = b"\x89LIL\r\n\x1a\n"
VERSION = 1
HEADER = struct.Struct("<8sHHIQQ")
HEADER_SIZE = 64
# Chunks of this many bytes and more begin at multiples of 64, so that they can be mapped; others at multiples of 4.
_LARGE = 4096


@dataclass(frozen=True)
class Chunk:
    """Where some symbols' bytes are, and their CRC-32C."""

    offset: int
    size: int
    checksum: int


@dataclass(frozen=True)
class Stream:
    """Symbols behind one coder: all chunks hold `2**log_chunk` of them but the last."""

    coder: int
    count: int
    log_chunk: int
    table: bytes
    chunks: tuple[Chunk, ...]

    @property
    def size(self) -> int:
        """Bytes of chunks and table."""
        return len(self.table) + sum(chunk.size for chunk in self.chunks)


@dataclass(frozen=True)
class Record:
    """One tensor: its type, and the streams that it is made of."""

    name: str
    element: Element
    shape: tuple[int, ...]
    symbols: int
    head: bytes
    streams: tuple[Stream, ...]

    @property
    def size(self) -> int:
        """Bytes of the tensor as it is in memory."""
        return self.element.size(self.shape)

    @property
    def coded(self) -> int:
        """Bytes that it takes in the file, its line of the index aside."""
        return len(self.head) + sum(stream.size for stream in self.streams)


@dataclass(frozen=True)
class Skeleton:
    """An ONNX file without the bytes of its tensors, behind zstd, and where each tensor's bytes belong in it."""

    chunk: Chunk
    size: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class Index:
    """Everything that a file says about its tensors."""

    records: tuple[Record, ...]
    skeleton: Skeleton | None


def aligned(offset: int, size: int) -> int:
    """Where a chunk of `size` bytes begins that follows `offset`."""
    step = 64 if size >= _LARGE else 4
    return -(-offset // step) * step


class Places:
    """Chunks one after the other."""

    def __init__(self) -> None:
        self.end = HEADER_SIZE

    def chunk(self, size: int, checksum: int) -> Chunk:
        """The next one."""
        offset = aligned(self.end, size)
        self.end = offset + size
        return Chunk(offset, size, checksum)


def write_index(index: Index) -> bytes:
    """Serialise."""
    out = bytearray(varint(len(index.records)))
    for record in index.records:
        out += block(record.name.encode()) + bytes([record.element.number]) + varint(len(record.shape))
        out += b"".join(map(varint, record.shape)) + bytes([record.symbols]) + block(record.head) + varint(len(record.streams))
        for stream in record.streams:
            out += bytes([stream.coder]) + varint(stream.count) + bytes([stream.log_chunk]) + block(stream.table)
            out += b"".join(map(_chunk, stream.chunks))
    if index.skeleton is None:
        return bytes(out + b"\x00")
    skeleton = index.skeleton
    gaps = [after - before for before, after in zip((0, *skeleton.places), skeleton.places, strict=False)]
    return bytes(out + b"\x01" + varint(skeleton.size) + _chunk(skeleton.chunk) + b"".join(map(varint, gaps)))


def _chunk(chunk: Chunk) -> bytes:
    return varint(chunk.size) + chunk.checksum.to_bytes(4, "little")


def read_index(data: bytes | memoryview, what: str, end: int) -> Index:
    """Parse; chunks must end at `end`. Raises `CorruptFileError`."""
    cursor, places = Cursor(data, what), Places()
    records = tuple(_record(cursor, places) for _ in range(_count(cursor)))
    if len({record.name for record in records}) != len(records):
        raise cursor.damaged("two tensors have one name")
    skeleton = _skeleton(cursor, places, len(records)) if cursor.varint(limit=2) else None
    cursor.end()
    if places.end != end:
        raise cursor.damaged(f"its chunks end at byte {places.end}, and it begins at {end}")
    return Index(records, skeleton)


def _count(cursor: Cursor) -> int:
    """A number of things each of which takes a byte at least."""
    return cursor.varint(limit=cursor.left + 1)


def _record(cursor: Cursor, places: Places) -> Record:
    name = cursor.text()
    element = ELEMENTS.get(cursor.byte())
    if element is None:
        raise cursor.damaged(f"tensor {name!r} has elements of an unknown type")
    shape = tuple(cursor.varint(limit=2**40) for _ in range(_count(cursor)))
    symbols, head = cursor.byte(), cursor.block()
    if element.size(shape) >= 2**40:
        raise cursor.damaged(f"tensor {name!r} is said to have {element.size(shape)} bytes")
    return Record(name, element, shape, symbols, head, tuple(_stream(cursor, places) for _ in range(_count(cursor))))


def _stream(cursor: Cursor, places: Places) -> Stream:
    coder, count, log_chunk, table = cursor.byte(), cursor.varint(limit=2**40), cursor.byte(), cursor.block()
    if not 10 <= log_chunk <= 30:
        raise cursor.damaged(f"chunks of 2^{log_chunk} symbols")
    number = -(-count >> log_chunk) if count else 0
    if 5 * number > cursor.left:
        raise cursor.damaged("there are more chunks than it has room for")
    return Stream(coder, count, log_chunk, table, tuple(_place(cursor, places) for _ in range(number)))


def _place(cursor: Cursor, places: Places) -> Chunk:
    size = cursor.varint(limit=2**40)
    return places.chunk(size, int.from_bytes(cursor.take(4), "little"))


def _skeleton(cursor: Cursor, places: Places, tensors: int) -> Skeleton:
    size = cursor.varint(limit=2**40)
    chunk = _place(cursor, places)
    found, at = [], 0
    for _ in range(tensors):
        at += cursor.varint(limit=2**40)
        found.append(at)
    if found and found[-1] > size:
        raise cursor.damaged("a tensor belongs beyond the end of its ONNX file")
    return Skeleton(chunk, size, tuple(found))


def header(index: bytes, offset: int, checksum_of: int) -> tuple[bytes, bytes]:
    """The header without its own checksum, and zeros up to the first chunk."""
    fixed = HEADER.pack(MAGIC, VERSION, 0, checksum_of, offset, len(index))
    return fixed, bytes(HEADER_SIZE - len(fixed) - 4)


def gaps(records: Sequence[Record], skeleton: Skeleton | None) -> Iterator[tuple[int, int]]:
    """Where zeros fill the space between chunks: from, to."""
    end = HEADER_SIZE
    chunks = [chunk for record in records for stream in record.streams for chunk in stream.chunks]
    for chunk in (*chunks, *((skeleton.chunk,) if skeleton else ())):
        yield end, chunk.offset
        end = chunk.offset + chunk.size


def parse_header(data: bytes, size: int, what: str, checksum_of: int) -> tuple[int, int, int]:
    """Offset, size and checksum of the index of a file of `size` bytes; `checksum_of` is that of the header's first bytes."""
    if data[:len(MAGIC)] != MAGIC[:len(data)]:
        raise CorruptFileError(f"{what} is no file of coded tensors (.lil): `lilliput pack` makes them from ONNX files")
    if len(data) < HEADER_SIZE:
        raise CorruptFileError(f"{what} is damaged: it ends within its header")
    _, version, zero, checksum, offset, length = HEADER.unpack_from(data)
    if int.from_bytes(data[HEADER.size:HEADER.size + 4], "little") != checksum_of or zero or any(data[HEADER.size + 4:]):
        raise CorruptFileError(f"{what} is damaged: its header's checksum is wrong")
    if version != VERSION:
        raise CorruptFileError(f"{what} has version {version} of the format, this program reads version {VERSION}: use a newer one")
    if offset < HEADER_SIZE or offset + length != size:
        raise CorruptFileError(f"{what} is damaged: it has {size} bytes and should have {offset + length}")
    return offset, length, checksum
