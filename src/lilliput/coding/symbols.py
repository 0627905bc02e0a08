"""What of a tensor is coded: byte symbols in one or several streams, from which its bytes come back exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from lilliput import _native
from lilliput.coding.coder import Bytes
from lilliput.coding.cursor import Cursor, varint
from lilliput.coding.elements import Element
from lilliput.core import CorruptFileError
from lilliput.core.bits import pack, unpack


@dataclass(frozen=True)
class Split:
    """A tensor as streams of symbols, and what else is needed to join them."""

    head: bytes
    streams: tuple[Bytes, ...]


class Symbols(Protocol):
    """A way to split the bytes of a tensor."""

    @property
    def number(self) -> int:
        """How files name it; never used again for another."""
        ...

    def split(self, payload: Bytes, element: Element) -> Split | None:
        """The streams; None where this way is not for such a tensor."""
        ...

    def join(self, split: Split, element: Element, size: int) -> Bytes:
        """The payload of `size` bytes; raises `CorruptFileError` where the streams do not make one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Elements of up to 8 bits as symbols counted from the lowest value, so that small numbers of both signs are neighbours; everything else byte by byte."""

    number: ClassVar[int] = 0

    def split(self, payload: Bytes, element: Element) -> Split | None:
        """One stream."""
        if element.bits > 8:
            return Split(b"", (payload,))
        count = 8 * payload.size // element.bits
        codes = payload if element.bits == 8 else unpack(payload, element.bits, count)
        return Split(b"", (codes ^ np.uint8(_middle(element)) if element.signed else codes,))

    def join(self, split: Split, element: Element, size: int) -> Bytes:
        """Codes in their own bits."""
        (codes,) = _streams(split, 1)
        _same_size(codes, size if element.bits >= 8 else 8 * size // element.bits)
        if element.bits > 8:
            return codes
        codes = codes ^ np.uint8(_middle(element)) if element.signed else codes
        if element.bits < 8 and codes.size and int(codes.max()) >> element.bits:
            raise CorruptFileError(f"a code is larger than {element.bits} bits: get the file again")
        return codes if element.bits == 8 else pack(codes, element.bits)


@dataclass(frozen=True, kw_only=True)
class Planes:
    """Elements of several bytes as one stream for each byte, the highest first; of floats the sign becomes the lowest bit, so that the exponent begins a byte.

    Exponents of weights take two to three bits; signs and mantissas are noise and are stored.
    """

    number: ClassVar[int] = 1

    def split(self, payload: Bytes, element: Element) -> Split | None:
        """As many streams as an element has bytes."""
        if element.bits < 16:
            return None
        width = element.bits // 8
        planes = np.empty_like(payload)
        assert _native.split_planes(payload, width, element.real, planes) == _native.OK
        return Split(b"", tuple(planes.reshape(width, -1)))

    def join(self, split: Split, element: Element, size: int) -> Bytes:
        """Bytes side by side."""
        width = element.bits // 8
        streams = _streams(split, max(width, 2))
        for stream in streams:
            _same_size(stream, size // width)
        words = np.empty(size, np.uint8)
        if _native.join_planes(list(streams), element.real, words) != _native.OK:
            raise CorruptFileError(f"no words of {width} bytes: get the file again")
        return words


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The at most 256 different elements of a tensor, in order, and for each element which one it is: weights that share values (han2016deep)."""

    number: ClassVar[int] = 2

    def split(self, payload: Bytes, element: Element) -> Split | None:
        """One stream of indices; the values are the head."""
        if element.bits < 16:
            return None
        words = payload.view(f"<u{element.bits // 8}")
        if words.size > 4096 and len(np.unique(words[:4096])) > 256:
            return None
        values, index = np.unique(words, return_inverse=True)
        if len(values) > 256 or not len(values):
            return None
        order = _ascending(values, element)
        place = np.empty(len(values), np.uint8)
        place[order] = np.arange(len(values), dtype=np.uint8)
        return Split(values[order].tobytes(), (place[index.reshape(-1)],))

    def join(self, split: Split, element: Element, size: int) -> Bytes:
        """Values by their indices."""
        (index,) = _streams(split, 1)
        width = element.bits // 8
        if len(split.head) % width or not split.head:
            raise CorruptFileError("a table of values is damaged: get the file again")
        _same_size(index, size // width)
        values = np.frombuffer(split.head, f"<u{width}")
        if index.size and int(index.max()) >= values.size:
            raise CorruptFileError("an index is beyond its table of values: get the file again")
        return values[index].view(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """How many zeros stand before each element that is none, and these elements split in another way: for what is mostly zero.

    A run is a symbol; 255 stands for 255 zeros after which the run goes on. Zeros after the last element are not told.
    """

    number: ClassVar[int] = 3

    def split(self, payload: Bytes, element: Element) -> Split | None:
        """Runs, then the streams of the elements; the head says how they are split."""
        inner: Symbols = Codes() if element.bits == 8 else Palette()
        if element.bits < 8:
            return None
        words = payload.view(f"<u{element.bits // 8}")
        present = np.flatnonzero(words)
        if 2 * present.size > words.size:
            return None
        values = np.ascontiguousarray(words[present]).view(np.uint8)
        split = inner.split(values, element)
        if split is None:
            inner = Planes()
            split = inner.split(values, element)
            assert split is not None
        return Split(varint(present.size) + bytes([inner.number]) + split.head, (_runs(present), *split.streams))

    def join(self, split: Split, element: Element, size: int) -> Bytes:
        """Elements at their places."""
        head = Cursor(split.head, "the head of a tensor in runs")
        count = head.varint(limit=8 * size // element.bits + 1)
        kind = head.byte()
        inner = next((way for way in (Codes(), Planes(), Palette()) if way.number == kind), None)
        if inner is None or element.bits < 8 or not split.streams:
            raise head.damaged("its elements are split in no known way")
        width = element.bits // 8
        values = inner.join(Split(head.take(head.left), split.streams[1:]), element, count * width)
        places = _places(split.streams[0], count, size // width)
        words = np.zeros(size // width, f"<u{width}")
        words[places] = values.view(f"<u{width}")
        return words.view(np.uint8)


SYMBOLS: tuple[Symbols, ...] = (Codes(), Planes(), Palette(), Runs())


def _runs(present: NDArray[np.int64]) -> Bytes:
    gaps = np.diff(present, prepend=-1) - 1
    long = gaps // 255
    out = np.full(int(long.sum()) + gaps.size, 255, np.uint8)
    out[np.cumsum(long + 1) - 1] = gaps % 255
    return out


def _places(runs: Bytes, count: int, size: int) -> NDArray[np.int64]:
    """Where the elements stand, from the zeros before each."""
    ends = np.flatnonzero(runs != 255)
    if ends.size != count or (count and ends[-1] != runs.size - 1) or (not count and runs.size):
        raise CorruptFileError("runs of zeros do not fit their elements: get the file again")
    places = (np.cumsum(runs, dtype=np.int64)[ends] + np.arange(count)) if count else np.zeros(0, np.int64)
    if count and places[-1] >= size:
        raise CorruptFileError("runs of zeros go beyond their tensor: get the file again")
    return places


def _ascending(values: NDArray[np.unsignedinteger], element: Element) -> NDArray[np.int64]:
    """The order of the numbers that these words stand for: neighbours in value get neighbouring symbols."""
    if element.signed:
        return np.argsort(values.view(f"<i{element.bits // 8}"), kind="stable")
    if not element.real:
        return np.arange(values.size)
    sign = np.array(2 ** (element.bits - 1), values.dtype)
    # Of floats below zero the words grow as the numbers fall.
    return np.argsort(np.where(values & sign, ~values, values | sign), kind="stable")


def _middle(element: Element) -> int:
    return int(2 ** (element.bits - 1))


def _streams(split: Split, count: int) -> tuple[Bytes, ...]:
    if len(split.streams) != count:
        raise CorruptFileError(f"a tensor has {len(split.streams)} streams instead of {count}: get the file again")
    return split.streams


def _same_size(stream: Bytes, size: int) -> None:
    if stream.size != size:
        raise CorruptFileError(f"a stream has {stream.size} symbols instead of {size}: get the file again")

