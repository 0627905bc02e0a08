"""The tables of the LiteRT schema (`schema.fbs`, version 3) that a full-integer model consists of, read and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.tflite.flatbuffer import Buffer, Table
from lilliput.deploy.tflite.names import TYPES, operator_name
from lilliput.deploy.tflite.options import OPTIONS, Options

Array = NDArray[Any]
IDENTIFIER = b"TFL3"
_MAX_RANK, _MAX_ELEMENTS = 8, 1 << 27


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Scales and zero points of a tensor, one for all or one for each index along `axis`: `(code - zero) scale`."""

    scales: Array
    zeros: Array
    axis: int

    def same(self, other: Quantization) -> bool:
        """Whether both mean the same by a code."""
        return np.array_equal(self.scales, other.scales) and np.array_equal(self.zeros, other.zeros)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """A tensor: its type as numpy or the schema names it, its quantization if it has one, and `data` if it is a constant."""

    index: int
    name: str
    kind: str
    shape: tuple[int, ...]
    quantization: Quantization | None
    data: memoryview | None = field(repr=False)

    @property
    def array(self) -> Array | None:
        """The constant in its shape, a view of the file; None for types that numpy has not."""
        return None if self.data is None or not self.kind.islower() else np.frombuffer(self.data, np.dtype(self.kind).newbyteorder("<")).reshape(self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Operator:
    """An operator with the numbers of its tensors, -1 for one left out; `index` is its place in the order of execution."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.kind} (operator {self.index})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """The main graph of a file."""

    buffer: Buffer
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read(path: str | PathLike[str]) -> Model:
    """The main graph of a LiteRT file that a stranger may have written.

    Raises `CorruptFileError` for what is damaged or no LiteRT file, `FileNotFoundError` where there is none.
    """
    return parse(Path(path).read_bytes(), str(path))


def parse(data: bytes, name: str = "the file") -> Model:
    """See `read`."""
    buffer = Buffer(data, name)
    root = buffer.root(IDENTIFIER)
    version, graphs = root.number(0, "I", 0), root.tables(2)
    if version != 3 or not graphs:
        raise buffer.corrupt(f"it is of schema version {version} with {len(graphs)} graphs")
    contents, kinds = root.tables(4), [_kind(table) for table in root.tables(1)]
    graph = graphs[0]
    tensors = tuple(_tensor(table, k, contents) for k, table in enumerate(graph.tables(0)))
    operators = tuple(_operator(table, k, kinds, len(tensors)) for k, table in enumerate(graph.tables(3)))
    inputs, outputs = (_indices(graph, number, len(tensors), 0) for number in (1, 2))
    if not outputs:
        raise buffer.corrupt("it has no outputs")
    return Model(buffer=buffer, tensors=tensors, operators=operators, inputs=inputs, outputs=outputs)


def _kind(table: Table) -> str:
    """An OperatorCode: numbers above 127 stand in a later field."""
    code = max(table.number(0, "b", 0), table.number(3, "i", 0))
    custom = table.text(1)
    return f"CUSTOM {custom}" if custom else operator_name(code)


def _indices(table: Table, number: int, count: int, least: int) -> tuple[int, ...]:
    found = table.numbers(number, "<i4")
    if found is None:
        return ()
    if found.size and (found.min() < least or found.max() >= count):
        raise table.buffer.corrupt("it refers to a tensor that it has not")
    return tuple(int(i) for i in found)


def _operator(table: Table, index: int, kinds: list[str], count: int) -> Operator:
    code = table.number(0, "I", 0)
    if code >= len(kinds):
        raise table.buffer.corrupt("it refers to an operator code that it has not")
    number, options = OPTIONS.get(kinds[code], (0, Options))
    found = table.number(3, "B", 0)
    if number and found not in (0, number):
        raise table.buffer.corrupt(f"operator {index}, {kinds[code]}, has the options of another operator")
    return Operator(index=index, kind=kinds[code], inputs=_indices(table, 1, count, -1), outputs=_indices(table, 2, count, 0),
                    options=options.read(table.table(4) if found and number else None))


def _tensor(table: Table, index: int, contents: tuple[Table, ...]) -> Tensor:
    sizes, code, place = table.numbers(0, "<i4"), table.number(1, "b", 0), table.number(2, "I", 0)
    shape = tuple(int(n) for n in sizes) if sizes is not None and sizes.size <= _MAX_RANK else ()
    if sizes is not None and (sizes.size > _MAX_RANK or min(shape, default=1) < 0 or math.prod(shape) > _MAX_ELEMENTS):
        raise table.buffer.corrupt(f"tensor {index} has the shape {sizes[:_MAX_RANK].tolist()}")
    if not 0 <= code < len(TYPES) or place >= max(len(contents), 1):
        raise table.buffer.corrupt(f"tensor {index} is of type {code} and lies in buffer {place}")
    kind, data = TYPES[code], _content(contents[place]) if contents else None
    if data is not None and kind.islower() and len(data) != math.prod(shape) * np.dtype(kind).itemsize:
        raise table.buffer.corrupt(f"tensor {index}, {kind} of shape {shape}, has {len(data)} bytes")
    if table.number(5, "?", False) and data is None:
        kind = f"variable {kind}"
    return Tensor(index=index, name=table.text(3), kind=kind, shape=shape, quantization=_quantization(table.table(4), shape), data=data)


def _content(table: Table) -> memoryview | None:
    """A Buffer's bytes, None where it is empty."""
    if table.number(1, "Q", 0) > 1:
        raise table.buffer.corrupt("its weights lie behind the flatbuffer, as in models of more than 2 GiB")
    found = table.numbers(0, "<u1")
    return memoryview(found.data) if found is not None and found.size else None


def _quantization(table: Table | None, shape: tuple[int, ...]) -> Quantization | None:
    scales = None if table is None else table.numbers(2, "<f4")
    if table is None or scales is None or not scales.size:
        return None
    zeros, axis = table.numbers(3, "<i8"), table.number(6, "i", 0)
    if zeros is None or not zeros.size:
        zeros = np.zeros(scales.size, np.int64)
    if zeros.size == 1 < scales.size:
        zeros = np.repeat(zeros, scales.size)
    if table.number(4, "B", 0):
        raise table.buffer.corrupt("it has tensors with a quantization of their own kind, by blocks for instance")
    if zeros.size != scales.size or (scales.size > 1 and not (0 <= axis < len(shape) and shape[axis] == scales.size)):
        raise table.buffer.corrupt(f"a tensor of shape {shape} has {scales.size} scales and {zeros.size} zero points along axis {axis}")
    if not ((scales > 2.0**-60).all() and (scales < 2.0**60).all()) or np.abs(zeros).max() > 2**31:
        raise table.buffer.corrupt("it has scales that are not positive or out of all proportion, or zero points beyond 32 bits")
    return Quantization(scales=scales.astype(np.float32), zeros=zeros.astype(np.int64), axis=axis)
