"""An ONNX file taken apart into the bytes of its tensors and everything else, so that it can be put together again bit by bit.

Nothing is decoded but the lengths on the way to `ModelProto.graph.initializer[i].raw_data`: what a protobuf writer chose stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lilliput.coding.coder import Bytes
from lilliput.coding.cursor import Cursor
from lilliput.coding.elements import ELEMENTS, Element

# Field numbers of onnx.proto.
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9
_VARINT, _FIXED64, _BLOCK, _FIXED32 = 0, 1, 2, 5
# Smaller tensors stay where they are: their line in the index would take more than coding them gains.
SMALLEST = 512


@dataclass(frozen=True)
class Initializer:
    """A tensor of an ONNX file, and where its bytes are."""

    name: str
    element: Element
    shape: tuple[int, ...]
    start: int
    size: int


def initializers(model: bytes, *, smallest: int = SMALLEST) -> list[Initializer]:
    """The tensors of at least `smallest` bytes that a file holds as raw data, in order; raises `CorruptFileError` for what is no ONNX file."""
    found: list[Initializer] = []
    names: set[str] = set()
    for field, start, end in _blocks(model, 0, len(model)):
        if field != _GRAPH:
            continue
        for inner, begin, stop in _blocks(model, start, end):
            tensor = _tensor(model, begin, stop) if inner == _INITIALIZER else None
            if tensor and tensor.size >= smallest and tensor.name not in names:
                names.add(tensor.name)
                found.append(tensor)
    return found


def take_apart(model: bytes, tensors: Sequence[Initializer]) -> tuple[bytes, tuple[int, ...]]:
    """The file without these tensors' bytes, and where each one's belong in it."""
    out, places, at = bytearray(), [], 0
    for tensor in tensors:
        out += model[at:tensor.start]
        places.append(len(out))
        at = tensor.start + tensor.size
    return bytes(out + model[at:]), tuple(places)


def put_together(skeleton: bytes, places: Sequence[int], payloads: Sequence[Bytes]) -> bytes:
    """The file again."""
    out, at = bytearray(), 0
    for place, payload in zip(places, payloads, strict=True):
        out += skeleton[at:place]
        out += payload.tobytes()
        at = place
    return bytes(out + skeleton[at:])


def _blocks(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Fields of a message that have a length: number, from, to."""
    cursor = Cursor(memoryview(data)[:end], "the ONNX file")
    cursor.at = start
    while cursor.left:
        field, kind = divmod(cursor.varint(limit=2**35), 8)
        if kind == _BLOCK:
            size = cursor.varint()
            if size > cursor.left:
                raise cursor.damaged(f"it ends {size - cursor.left} bytes too early")
            yield field, cursor.at, cursor.at + size
            cursor.at += size
        elif kind == _VARINT:
            cursor.varint(limit=2**70)
        elif kind in (_FIXED64, _FIXED32):
            cursor.take(8 if kind == _FIXED64 else 4)
        else:
            raise cursor.damaged("it is no ONNX model")


def _tensor(data: bytes, start: int, end: int) -> Initializer | None:
    """A tensor whose raw data is what its type and shape want; None for any other."""
    cursor = Cursor(memoryview(data)[:end], "the ONNX file")
    cursor.at = start
    shape: list[int] = []
    element, name, raw = None, "", None
    while cursor.left:
        field, kind = divmod(cursor.varint(limit=2**35), 8)
        if kind == _VARINT:
            value = cursor.varint(limit=2**70)
            if field == _DIMS:
                shape.append(value)
            elif field == _TYPE:
                element = ELEMENTS.get(value)
        elif kind == _BLOCK:
            size = cursor.varint()
            if field == _RAW:
                raw = (cursor.at, size)
                if size > cursor.left:
                    raise cursor.damaged(f"it ends {size - cursor.left} bytes too early")
                cursor.at += size
            else:
                content = cursor.take(size)
                if field == _DIMS:
                    dims = Cursor(content, "the ONNX file")
                    while dims.left:
                        shape.append(dims.varint(limit=2**70))
                elif field == _NAME:
                    name = content.decode(errors="replace")
        else:
            cursor.take(8 if kind == _FIXED64 else 4)
    if element is None or raw is None or any(size >= 2**40 for size in shape) or element.size(shape) != raw[1]:
        return None
    return Initializer(name, element, tuple(shape), *raw)

