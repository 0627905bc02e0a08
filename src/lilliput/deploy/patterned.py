"""Weights with `n` of every `m` not zero, stored as those alone, and decoded by standard operators.

A weight is rows `(outputs, inputs)`, those of a convolution channels last (kernel rows, kernel columns, input channels), every row in
groups of `m`, the last one filled up with zeros. The initializer `NAME.values`, `(outputs, groups, n)`, has what is stored of each group in
the type of the weight; `NAME.codes` the positions within the group, ascending, as integers of `ceil(log2 m)` bits in the order of the
values, packed as `lilliput.core.bits` packs them (for a width that is no power of two, one initializer to each power in it, the lowest bits
first). Where fewer than `n` are not zero, zeros at the first free positions are stored too. BitShift and BitwiseAnd unpack, ScatterElements
puts the values in place. A runtime that folds constants does so once, when it opens the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from lilliput.core.atomic import write_bytes
from lilliput.core.errors import PreconditionError
from lilliput.deploy.lookup import Builder, packed
from lilliput.deploy.onnx import read
from lilliput.deploy.qdq import initializer
from lilliput.deploy.runtime import open_session

Array = NDArray[Any]
_KINDS = (np.float32, np.float16, np.int8, np.uint8)


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """Rows in groups of `m`: `values` and `positions (outputs, groups, n)`, of rows that are `inputs` long."""

    values: Array
    positions: NDArray[np.uint8]
    m: int
    inputs: int

    def __post_init__(self) -> None:
        values, positions = self.values, self.positions
        if values.ndim != 3 or values.shape != positions.shape or positions.dtype != np.uint8 or not 0 < values.shape[2] <= self.m <= 256:
            raise PreconditionError("packed rows are values and positions (outputs, groups, n) with n <= m <= 256: make them with pack_rows")
        if self.inputs < 0 or values.shape[1] != -(-self.inputs // self.m) or (positions[..., :-1] >= positions[..., 1:]).any() or (positions >= self.m).any():
            raise PreconditionError(f"these positions are not ascending within groups of {self.m} in rows of {self.inputs}: make them with pack_rows")

    def unpack(self) -> Array:
        """The rows `(outputs, inputs)` with their zeros."""
        outputs, groups, _ = self.values.shape
        dense = np.zeros((outputs, groups, self.m), self.values.dtype)
        np.put_along_axis(dense, self.positions.astype(np.int64), self.values, axis=2)
        return dense.reshape(outputs, groups * self.m)[:, :self.inputs]


def pack_rows(weight: Array, n: int, m: int) -> Packed:
    """Store `n` of every `m` of rows `(outputs, inputs)`.

    >>> packed = pack_rows(np.array([[0, 5, 0, 7, 0, 0, 6]]), 2, 4)
    >>> packed.values.tolist(), packed.positions.tolist()
    ([[[5, 7], [0, 6]]], [[[1, 3], [0, 2]]])

    Raises `PreconditionError` for rows with more than `n` of some `m`, and where not `0 < n <= m <= 256`.
    """
    if weight.ndim != 2 or not 0 < n <= m <= 256:
        raise PreconditionError(f"{n} of every {m} of an array {weight.shape} cannot be packed: pass (outputs, inputs), and 0 < n <= m <= 256")
    outputs, inputs = weight.shape
    groups = np.zeros((outputs, -(-inputs // m) * m), weight.dtype)
    groups[:, :inputs] = weight
    groups = groups.reshape(outputs, -1, m)
    most = int((groups != 0).sum(2).max(initial=0))
    if most > n:
        raise PreconditionError(f"{most} of some {m} weights are not zero, more than {n}: prune them to the pattern first (prune.n_m)")
    positions = np.sort(np.argsort(groups == 0, axis=2, kind="stable")[:, :, :n], axis=2)
    return Packed(values=np.take_along_axis(groups, positions, 2), positions=positions.astype(np.uint8), m=m, inputs=inputs)


def decode(build: Builder, rows: Packed) -> ir.Value:
    """Nodes that compute the rows."""
    outputs, groups, n = rows.values.shape
    codes = packed(build, rows.positions.reshape(-1).astype(np.int64), rows.m)
    codes = build("Reshape", codes, np.array([outputs, groups, n], np.int64))
    zeros = build("Expand", np.zeros((1, 1, 1), rows.values.dtype), np.array([outputs, groups, rows.m], np.int64))
    values = initializer(build.model, f"{build.name}.values", rows.values)
    dense = build("Reshape", build("ScatterElements", zeros, codes, values, axis=2), np.array([outputs, groups * rows.m], np.int64))
    if groups * rows.m == rows.inputs:
        return dense
    one = np.array([1], np.int64)
    return build("Slice", dense, np.array([0], np.int64), np.array([rows.inputs], np.int64), one)


@dataclass(frozen=True)
class _Weight:
    """An initializer that a layer reads, and how it lies: rows of outputs as they are, or turned."""

    value: ir.Value
    turned: bool

    def rows(self, array: Array) -> Array:
        """`(outputs, inputs)`, channels last."""
        if array.ndim > 2:
            array = np.moveaxis(array, 1, -1)
            return array.reshape(array.shape[0], -1)
        return array.T if self.turned else array

    def laid_out(self, build: Builder, rows: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """Nodes that lay rows out as the initializer was."""
        if len(shape) > 2:
            rank = len(shape)
            rows = build("Reshape", rows, np.array([shape[0], *shape[2:], shape[1]], np.int64))
            return build("Transpose", rows, perm=[0, rank - 1, *range(1, rank - 1)])
        return build("Transpose", rows, perm=[1, 0]) if self.turned else rows


def _weights(model: ir.Model) -> list[_Weight]:
    """Constant weights of convolutions and products, behind what dequantizes or turns them too."""
    found: dict[int, _Weight] = {}
    for node in model.graph:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        value = node.inputs[1]
        transposed = node.attributes.get("transB")
        turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and (transposed is None or not transposed.as_int()))
        while value is not None and (made := value.producer()) is not None and made.op_type in ("DequantizeLinear", "Transpose"):
            turned ^= made.op_type == "Transpose"
            value = made.inputs[0]
        if value is not None and value.is_initializer() and value.const_value is not None:
            found.setdefault(id(value), _Weight(value, turned))
    return list(found.values())


def pack_patterns(source: str | PathLike[str], path: str | PathLike[str], *, n: int = 2, m: int = 4) -> Path:
    """Write a model whose weights with `n` of every `m` are stored packed; ONNX Runtime opens it before it counts as written.

    What it computes is the same. Floats of 32 and 16 bits and integers of 8 are packed, wherever that takes fewer bytes. Raises
    `PreconditionError` where no weight has the pattern.
    """
    model = ir.from_proto(read(source))
    count = 0
    for weight in _weights(model):
        assert weight.value.const_value is not None
        array = weight.value.const_value.numpy()
        if array.dtype in _KINDS and array.ndim > 1:
            count += _pack_(model, weight, array, n, m)
    if not count:
        raise PreconditionError(f"no weight of {source} has at most {n} of every {m} that are not zero and is smaller packed: prune it first "
                                "(prune.n_m)")
    passes.DeduplicateInitializersPass()(model)  # the decoders' shapes and shifts
    proto = ir.to_proto(model)
    proto.graph.ClearField("value_info")
    data = proto.SerializeToString(deterministic=True)
    open_session(data, 1)
    write_bytes(path, data)
    return Path(path)


def _pack_(model: ir.Model, weight: _Weight, array: Array, n: int, m: int) -> bool:
    """Replace one initializer where it follows the pattern and gets smaller."""
    try:
        rows = pack_rows(weight.rows(array), n, m)
    except PreconditionError:
        return False
    size = rows.values.nbytes + rows.positions.size * (m - 1).bit_length() // 8
    if size + _NODES >= array.nbytes:
        return False
    name = str(weight.value.name)
    build = Builder(model, name)
    dense = weight.laid_out(build, decode(build, rows), array.shape)
    for node in build.nodes:
        node.name = ""
    for user, index in list(weight.value.uses()):
        user.replace_input_with(index, dense)
    model.graph.initializers.pop(name)
    first = next(iter(model.graph))
    model.graph.insert_before(first, build.nodes)
    dense.name, weight.value.name = name, None
    return True


_NODES = 1500
"""Bytes that the nodes of one decoder take in the file, about."""
