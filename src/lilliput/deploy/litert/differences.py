"""What LiteRT computes differently, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from os import PathLike
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lilliput.core.errors import PreconditionError
from lilliput.deploy.litert.flatbuffer import Operator, Value
from lilliput.deploy.litert.runtime import Kernels, Session, decode
from lilliput.deploy.reference import Reference

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One operator of the file against the integer reference, in steps of its result's grid.

    `differ` of `values` codes differ, by `largest` at most, where the reference reads what LiteRT's operators gave: what this operator does
    differently. `carried` is the largest difference when each computes on from the input, so that differences travel. `edge`
    is the tensor in the ONNX file; where the converter added the operator, or fused the edge, there is none, and no figures:
    what it does differently is seen in the operators that read it. `regridded`: LiteRT's kernel has a grid of its own (softmax, sigmoid, tanh),
    and its values were rounded to the edge's grid to be compared.
    """

    operator: str
    tensor: str
    edge: str | None
    values: int
    differ: int | None = None
    largest: int | None = None
    carried: int | None = None
    regridded: bool = False


def difference(path: str | PathLike[str], exported: str | PathLike[str], *inputs: Array, kernels: Kernels = Kernels.BUILTIN) -> tuple[Difference, ...]:
    """Compare the `.tflite` file with the integer reference on the ONNX file of the same network, for one batch `(N, ...)` per input.

    Rows stand in the order of execution. Tensors are matched by name, scale and zero point. LiteRT has images in the order height, width, channels,
    and its converter moves dimensions about; of the orders that fit the shape the one is taken in which fewest codes differ. A tensor without the
    batch in front is not compared.

    Raises `PreconditionError` when no tensor is in both files; `DataError`.
    """
    session, reference = Session(path, kernels=kernels), Reference(exported)
    found, alone = session.values(*inputs), reference.values(*inputs)
    edges = _edges(reference.model)
    codes: dict[int, tuple[_Edge, Array]] = {}
    for value in (*session.file.inputs, *(v for operator in session.file.operators for v in operator.outputs)):
        edge = edges.get(value.name.partition(".")[0])
        if edge is None or found[value.index].size != alone[edge.codes].size or value.kind != "INT8" or value.shape[:1] != (1,):
            continue
        if edge.same(value) or value.name in edges:
            codes[value.index] = edge, _aligned(edge.encode(found[value.index], value), alone[edge.codes])
    if not codes:
        raise PreconditionError(f"{path} and {exported} have no tensor in common: export both from the same network")
    given = {edge.codes: got for edge, got in codes.values()}
    each = reference.values(*inputs, given=given)
    return tuple(_row(operator, value, found[value.index].size, codes, (each, alone)) for operator in session.file.operators for value in operator.outputs)


@dataclass(frozen=True, kw_only=True)
class _Edge:
    """The codes of an activation in the ONNX file, and their grid in unsigned bytes."""

    codes: str
    scale: float
    zero_point: int

    def same(self, value: Value) -> bool:
        return bool(value.scale.tolist() == [self.scale] and (value.zero_point + 128).tolist() == [self.zero_point])

    def encode(self, codes: Array, value: Value) -> Array:
        """LiteRT's codes as this edge's unsigned bytes: moved by 128, or rounded anew where the grids differ."""
        if self.same(value):
            return (codes.astype(np.int16) + 128).astype(np.uint8)
        steps = np.rint(decode(codes, value).astype(np.float64) / self.scale) + self.zero_point
        clipped: Array = np.clip(steps, 0, 255).astype(np.uint8)
        return clipped


def _edges(model: onnx.ModelProto) -> dict[str, _Edge]:
    """Every QuantizeLinear by the name of what it rounds, and by that of its values as real numbers."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    edges: dict[str, _Edge] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero_point = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
            if scale.size == 1 and zero_point.dtype == np.uint8:
                edges[node.input[0]] = _Edge(codes=node.output[0], scale=float(scale), zero_point=int(zero_point))
    by_codes = {edge.codes: edge for edge in edges.values()}
    return edges | {node.output[0]: by_codes[node.input[0]] for node in model.graph.node
                    if node.op_type == "DequantizeLinear" and node.input[0] in by_codes}


def _aligned(codes: Array, like: Array) -> Array:
    """The codes in the order and shape of the reference's."""
    orders = permutations(range(1, codes.ndim)) if codes.ndim <= 5 else [tuple(range(1, codes.ndim))]
    candidates = [turned for order in orders if (turned := codes.transpose(0, *order)).shape == like.shape] or [codes.reshape(like.shape)]
    return min(candidates, key=lambda candidate: int((candidate != like).sum()))


def _row(operator: Operator, value: Value, count: int, codes: Mapping[int, tuple[_Edge, Array]],
         computed: tuple[Mapping[str, Array], Mapping[str, Array]]) -> Difference:
    if value.index not in codes:
        return Difference(operator=operator.kind, tensor=value.name, edge=None, values=count)
    edge, got = codes[value.index]
    read = next((codes[x.index][1] for x in operator.inputs if x is not None and x.index in codes and codes[x.index][0] is edge), None)
    wanted = computed[0][edge.codes] if read is None else read  # moved only
    steps, carried = (np.abs(got.astype(np.int64) - source.astype(np.int64)) for source in (wanted, computed[1][edge.codes]))
    return Difference(operator=operator.kind, tensor=value.name, edge=value.name.partition(".")[0], values=steps.size, differ=int((steps > 0).sum()),
                      largest=int(steps.max(initial=0)), carried=int(carried.max(initial=0)), regridded=not edge.same(value))


def table(rows: Sequence[Difference]) -> str:
    """The rows as text, one line each under a heading; no figures where there is no edge."""
    heading = ("operator", "tensor", "values", "differ", "largest", "carried")
    text = [heading, *((row.operator + " (own grid)" * row.regridded, row.tensor, f"{row.values:,}", *("" if n is None else f"{n:,}" for n in (row.differ, row.largest, row.carried)))
                       for row in rows)]
    widths = [max(len(line[i]) for line in text) for i in range(len(heading))]
    return "\n".join("  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
                     for line in text)
