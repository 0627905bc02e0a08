"""Writing small LiteRT files: a flatbuffer from front to back, its tables as dictionaries from field numbers to values."""

import struct
from dataclasses import dataclass, fields
from typing import get_type_hints

import numpy as np

from lilliput.deploy.tflite.names import OPERATORS, TYPES
from lilliput.deploy.tflite.options import OPTIONS, Options


@dataclass(frozen=True)
class Number:
    code: str
    value: object


def flatbuffer(root, identifier=b"TFL3"):
    """Bytes of a table and all that hangs on it; offsets lead forward, as flatbuffers want it."""
    data = bytearray(4) + identifier
    place = _table(data, root)
    data[:4] = struct.pack("<I", place)
    return bytes(data)


def _align(data, size, ahead=0):
    data.extend(bytes(-(len(data) + ahead) % size))


def _table(data, values):
    values = {number: value for number, value in values.items() if value is not None}
    sizes = {number: struct.calcsize("<" + value.code) if isinstance(value, Number) else 4 for number, value in values.items()}
    offsets, size = {}, 4
    for number in sorted(values, key=lambda n: -sizes[n]):
        size += -size % sizes[number]
        offsets[number] = size
        size += sizes[number]
    count = max(values, default=-1) + 1
    _align(data, 8, 4 + 2 * count)
    described = len(data)
    data += struct.pack(f"<{count + 2}H", 4 + 2 * count, size, *(offsets.get(number, 0) for number in range(count)))
    start = len(data)
    data += struct.pack("<i", start - described) + bytes(size - 4)
    for number, value in values.items():
        at = start + offsets[number]
        if isinstance(value, Number):
            struct.pack_into("<" + value.code, data, at, value.value)
        else:
            target = _child(data, value)
            struct.pack_into("<I", data, at, target - at)
    return start


def _child(data, value):
    if isinstance(value, dict):
        return _table(data, value)
    if isinstance(value, list):
        _align(data, 4)
        start = len(data)
        data += struct.pack("<I", len(value)) + bytes(4 * len(value))
        for k, item in enumerate(value):
            at = start + 4 + 4 * k
            struct.pack_into("<I", data, at, _table(data, item) - at)
        return start
    array = np.frombuffer(value.encode() + b"\0", np.uint8) if isinstance(value, str) else np.ascontiguousarray(value)
    _align(data, 16, 4)  # the widest that anything wants
    start = len(data)
    data += struct.pack("<I", array.size - isinstance(value, str)) + array.tobytes()
    return start


@dataclass(frozen=True)
class T:
    """A tensor: `scale` and `zero` one number or one for each index along `axis`; `data` for constants."""

    shape: tuple
    kind: str = "int8"
    scale: object = None
    zero: object = 0
    axis: int = 0
    data: object = None
    name: str = ""


@dataclass(frozen=True)
class Op:
    kind: str
    inputs: tuple
    outputs: tuple
    options: Options | None = None


def _options(options):
    hints = get_type_hints(type(options), include_extras=True)
    return {hints[f.name].__metadata__[0]: Number(hints[f.name].__metadata__[1], getattr(options, f.name)) for f in fields(options)}


def model(tensors, operators, inputs, outputs, version=3):
    """Bytes of a LiteRT file."""
    kinds = list(dict.fromkeys(op.kind for op in operators))
    buffers, tables = [{}], []
    for k, t in enumerate(tensors):
        quantization = None
        if t.scale is not None:
            scales = np.atleast_1d(np.asarray(t.scale, np.float32))
            quantization = {2: scales, 3: np.broadcast_to(np.asarray(t.zero, np.int64), scales.shape), 6: Number("i", t.axis)}
        place = 0
        if t.data is not None:
            place = len(buffers)
            buffers.append({0: np.ascontiguousarray(t.data).astype(t.kind).view(np.uint8).reshape(-1)})
        tables.append({0: np.array(t.shape, np.int32), 1: Number("b", TYPES.index(t.kind)), 2: Number("I", place), 3: t.name or f"t{k}",
                       4: quantization})
    ops = [{0: Number("I", kinds.index(op.kind)), 1: np.array(op.inputs, np.int32), 2: np.array(op.outputs, np.int32),
            **({3: Number("B", OPTIONS[op.kind][0]), 4: _options(op.options)} if op.options is not None else {})} for op in operators]
    codes = [OPERATORS.index(kind) for kind in kinds]
    graph = {0: tables, 1: np.array(inputs, np.int32), 2: np.array(outputs, np.int32), 3: ops, 4: "main"}
    return flatbuffer({0: Number("I", version), 1: [{0: Number("b", min(code, 127)), 2: Number("i", 1), 3: Number("i", code)} for code in codes],
                       2: [graph], 3: "test", 4: buffers})
