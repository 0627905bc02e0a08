"""Files of coded tensors, `.lil`: written whole, mapped when read, each tensor decoded alone. `docs/lil.md` specifies the format."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.coding.coder import Bytes, Coder, as_bytes, checksum
from lilliput.coding.coders import coder_named
from lilliput.coding.contexts import Contexts
from lilliput.coding.elements import Element, element_of, from_payload, to_payload
from lilliput.coding.index import (
    HEADER,
    HEADER_SIZE,
    Chunk,
    Index,
    Places,
    Record,
    Skeleton,
    gaps,
    header,
    parse_header,
    read_index,
    write_index,
)
from lilliput.coding.skeleton import initializers, put_together, take_apart
from lilliput.coding.stored import Stored, Zstd, inflate
from lilliput.coding.streams import Coded, decode, encode
from lilliput.coding.symbols import SYMBOLS, Split, Symbols
from lilliput.core import CorruptFileError, PreconditionError, UnknownNameError
from lilliput.core.atomic import write_bytes

# Those that decode at the speed of memory.
AUTO = ("stored", "rans", "zstd")


@dataclass(frozen=True)
class CodedTensor:
    """A tensor that stands nowhere yet."""

    name: str
    element: Element
    shape: tuple[int, ...]
    symbols: int
    head: bytes
    streams: tuple[Coded, ...]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.head) + sum(stream.size for stream in self.streams)


@dataclass(frozen=True)
class Choice:
    """What may be chosen from for a tensor: coders of symbols and, where `contexts` are, CABAC for whole tensors."""

    coders: tuple[Coder, ...]
    contexts: bool = False
    threads: int = 1

    def ways(self, shape: Sequence[int]) -> tuple[Symbols, ...]:
        """How a tensor of this shape may be split."""
        return (*SYMBOLS, Contexts(rows=max(shape[0], 1) if len(shape) > 1 else 1)) if self.contexts else SYMBOLS


def code(name: str, payload: Bytes, element: Element, shape: Sequence[int], choice: Choice) -> CodedTensor:
    """A tensor split and coded in the way that takes least; what comes back is compared before it is trusted."""
    best: CodedTensor | None = None
    for way in choice.ways(shape):
        split = way.split(payload, element)
        if split is None:
            continue
        coders = (Stored(),) if isinstance(way, Contexts) else choice.coders
        streams = tuple(encode(stream, coders, choice.threads) for stream in split.streams)
        coded = CodedTensor(name, element, tuple(shape), way.number, split.head, streams)
        if (best is None or coded.size < best.size) and np.array_equal(way.join(split, element, payload.size), payload):
            best = coded
    assert best is not None
    return best


def write(path: str | os.PathLike[str], tensors: Sequence[CodedTensor], skeleton: tuple[bytes, tuple[int, ...]] | None = None) -> int:
    """Write a file; its size in bytes. `skeleton` is what `take_apart` made of the ONNX file that the tensors are from."""
    places, index_of = Places(), []
    blobs: list[bytes] = []
    for tensor in tensors:
        index_of.append(Record(tensor.name, tensor.element, tensor.shape, tensor.symbols, tensor.head, tuple(s.placed(places) for s in tensor.streams)))
        blobs += [chunk for stream in tensor.streams for chunk in stream.chunks]
    told: Skeleton | None = None
    if skeleton is not None:
        frame = Zstd().encode(as_bytes(skeleton[0]), b"\x08")
        told = Skeleton(places.chunk(len(frame), checksum(frame)), len(skeleton[0]), skeleton[1])
        blobs.append(frame)
    index = write_index(Index(tuple(index_of), told))
    fixed, rest = header(index, places.end, checksum(index))
    out = bytearray(fixed + checksum(fixed).to_bytes(4, "little") + rest)
    for (start, end), blob in zip(gaps(index_of, told), blobs, strict=True):
        out += bytes(end - start) + blob
    write_bytes(path, bytes(out + index))
    return len(out) + len(index)


def pack_onnx(model: bytes, path: str | os.PathLike[str], *, coder: str = "auto", threads: int = 1) -> int:
    """Write an ONNX file's bytes as a file of coded tensors, from which `Container.onnx` gives the same bytes; the size in bytes.

    `coder` is the name of one, "auto" for the one that takes least for each tensor, or "cabac" for that too where it takes less.
    """
    choice = choice_of(coder, threads)
    found = initializers(model)
    data = as_bytes(model)
    coded = [code(t.name, data[t.start:t.start + t.size], t.element, t.shape, choice) for t in found]
    return write(path, coded, take_apart(model, found))


def save(tensors: Mapping[str, NDArray[Any]], path: str | os.PathLike[str], *, coder: str = "auto", threads: int = 1) -> int:
    """Write arrays by name; the size in bytes."""
    choice = choice_of(coder, threads)
    return write(path, [code(name, to_payload(array), element_of(array), array.shape, choice) for name, array in tensors.items()])


def choice_of(name: str, threads: int = 1) -> Choice:
    """What to choose from, by the name of a coder, "auto" or "cabac"."""
    names = AUTO if name in ("auto", "cabac") else ("stored", name)
    return Choice(coders=tuple(map(coder_named, names)), contexts=name == "cabac", threads=threads)


class Container(Mapping[str, NDArray[Any]]):
    """A file of coded tensors, mapped into memory; each tensor is decoded when it is asked for.

    Sizes are checked against the file before memory is taken: no tensor may have more than `limit` bytes (64 times the file and
    64 MiB unless told). Raises `CorruptFileError`, with the name of the tensor, for anything that is not as it was written.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1, limit: int | None = None) -> None:
        self.path, self.threads = Path(path), threads
        if not self.path.is_file():
            raise PreconditionError(f"there is no file {self.path}")
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        self._bytes = np.frombuffer(self._map, np.uint8) if self._map is not None else np.empty(0, np.uint8)
        self.limit = 64 * size + 2**26 if limit is None else limit
        first = self._bytes[:HEADER_SIZE]
        offset, length, told = parse_header(first.tobytes(), size, str(self.path), checksum(first[:HEADER.size]))
        raw = self._bytes[offset:offset + length]
        if checksum(raw) != told:
            raise CorruptFileError(f"{self.path} is damaged: its index has a wrong checksum")
        told_of = read_index(raw.tobytes(), f"the index of {self.path}", offset)
        self.records = {record.name: record for record in told_of.records}
        self.skeleton = told_of.skeleton
        for start, stop in gaps(told_of.records, told_of.skeleton):
            if self._bytes[start:stop].any():
                raise CorruptFileError(f"{self.path} is damaged: there is something between its chunks, before byte {stop}")

    def __enter__(self) -> Container:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; arrays that were read stay."""
        self._bytes = np.empty(0, np.uint8)
        if self._map is not None:
            with suppress(BufferError):  # somebody still looks at it: then it goes with the last of them
                self._map.close()
            self._map = None

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.records:
            raise UnknownNameError("tensor", name, self.records)
        record = self.records[name]
        return from_payload(self.payload(name), record.element, record.shape)

    def payload(self, name: str) -> Bytes:
        """The bytes of a tensor as ONNX has them."""
        return self.joined(name, self.streams(name))

    def joined(self, name: str, streams: tuple[Bytes, ...]) -> Bytes:
        """The bytes of a tensor from its streams."""
        record = self.records[name]
        with self._naming(name):
            return self.way(record).join(Split(record.head, streams), record.element, record.size)

    def streams(self, name: str) -> tuple[Bytes, ...]:
        """The symbols of a tensor, stream by stream."""
        with self._naming(name):
            self.way(self.records[name])
            return self._decoded(self.records[name])

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        try:
            yield
        except CorruptFileError as error:
            raise CorruptFileError(f"{self.path}: tensor {name!r}: {error}") from None

    def way(self, record: Record) -> Symbols:
        """How a tensor is split."""
        for way in (*SYMBOLS, Contexts()):
            if way.number == record.symbols:
                return way
        raise CorruptFileError(f"its symbols are of the unknown kind {record.symbols}: the file was made by a newer program")

    def _decoded(self, record: Record) -> tuple[Bytes, ...]:
        most = 8 * record.size // record.element.bits
        if record.size > self.limit or any(stream.count > max(record.size, most) for stream in record.streams) or len(record.streams) > 9:
            raise CorruptFileError(f"it is said to have {record.size} bytes, which is much for such a file: pass limit= if that is right")
        return tuple(decode(stream, self._read, self.threads) for stream in record.streams)

    def _read(self, offset: int, size: int) -> Bytes:
        return self._bytes[offset:offset + size]

    def onnx(self) -> bytes:
        """The ONNX file that the tensors are from, bit by bit; raises `PreconditionError` where they are from none."""
        if self.skeleton is None:
            raise PreconditionError(f"{self.path} holds tensors and no graph: read them by their names")
        return put_together(self._skeleton(self.skeleton), self.skeleton.places, [self.payload(name) for name in self.records])

    def _skeleton(self, skeleton: Skeleton) -> bytes:
        chunk: Chunk = skeleton.chunk
        frame = self._read(chunk.offset, chunk.size)
        if checksum(frame) != chunk.checksum or skeleton.size > self.limit:
            raise CorruptFileError(f"{self.path}: the graph has a wrong checksum, or a size that is out of range: get the file again")
        try:
            return inflate(frame, skeleton.size)
        except CorruptFileError as error:
            raise CorruptFileError(f"{self.path}: the graph: {error}") from None


def open(path: str | os.PathLike[str], *, threads: int = 1, limit: int | None = None) -> Container:
    """Open a file of coded tensors: `with open("model.lil") as m: m["layer4.conv.weight"]`."""
    return Container(path, threads=threads, limit=limit)
