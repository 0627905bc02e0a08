"""Grids that are tables in an exported graph: packed codes, decoded by standard operators.

The exporter leaves every `lilliput::fake_levels` as one node `lilliput.FakeLevels`. On a constant it becomes the initializer
`NAME.codes`: the levels' indices, 1, 2, 4 or 8 bits each, in the order of the tensor's elements, packed as `lilliput.core.bits`
packs them (code `i` in bits `(i * bits) mod 8` upwards of byte `i * bits / 8`); and the initializers `NAME.levels`, float32, and
`NAME.scale`. BitShift and BitwiseAnd unpack, Gather looks up, Mul scales. The table -1, 0, 1 becomes integers instead. Elsewhere
the thresholds at or below `x / s` are counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lilliput.core import bits
from lilliput.core.errors import PreconditionError
from lilliput.deploy.qdq import Array, initializer, is_constant, is_ternary, linear, narrowest, operator

_FAKE = operator("FakeLevels", ("x", "scale", "table", "thresholds"), ("axis",))


def translate(x: ir.Value, scale: ir.Value, table: ir.Value, thresholds: ir.Value, axis: int) -> ir.Value:
    """What the exporter writes for `lilliput::fake_levels`: one node that `lower_levels_` replaces."""
    result: ir.Value = _FAKE(x, scale, table, thresholds, axis=axis)
    return result


def lower_levels_(model: ir.Model) -> int:
    """Replace every simulated quantization on a table; returns how many there were.

    Raises `PreconditionError` where the table is computed and not constant, or activations have one table to a channel.
    """
    nodes = [node for node in model.graph if node.op_type == "FakeLevels"]
    for node in nodes:
        new = _constant(model, node) if is_constant(node) else _activation(model, node)
        model.graph.insert_before(node, new)
        output, replacement = node.outputs[0], new[-1].outputs[0]
        name, shape = output.name, output.shape
        ir.convenience.replace_all_uses_with(output, replacement, replace_graph_outputs=True)
        output.name = None
        replacement.name, replacement.shape, replacement.dtype = name, shape, ir.DataType.FLOAT
        model.graph.remove(node, safe=True)
    return len(nodes)


class Chain:
    """Nodes one after the other, each on the result of the one before."""

    def __init__(self, model: ir.Model, name: str, start: ir.Value) -> None:
        self.model, self.name, self.value = model, name, start
        self.nodes: list[ir.Node] = []

    def add(self, op: str, *constants: Array, first: bool = False, **attributes: int | list[int] | str) -> None:
        """Apply an operator to the value and constants; with `first` the constants come before it."""
        others = [initializer(self.model, f"{self.name}.{op.lower()}", array) for array in constants]
        given = [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()]
        inputs = [*others, self.value] if first else [self.value, *others]
        node = ir.Node("", op, inputs, given, num_outputs=1, name=f"{self.name}.{op.lower()}_{len(self.nodes)}")
        self.nodes.append(node)
        self.value = node.outputs[0]


def _arrays(node: ir.Node) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int]:
    """Scale, table, thresholds and axis."""
    found = [ir.convenience.get_const_tensor(value) if value is not None else None for value in node.inputs[1:4]]
    if any(array is None for array in found):
        raise PreconditionError(f"{node.outputs[0].name}: scale and levels must be constant to be exported; call .eval() on the network first")
    scale, table, thresholds = (array.numpy().astype(np.float32) for array in found if array is not None)
    return scale, table, thresholds, node.attributes["axis"].as_int()


def _broadcast(scale: NDArray[Any], ndim: int, axis: int) -> NDArray[Any]:
    return scale.reshape([-1 if dim == axis else 1 for dim in range(ndim)]) if scale.ndim else scale


def codes(x: NDArray[np.float32], scale: NDArray[np.float32], thresholds: NDArray[np.float32], axis: int) -> NDArray[np.int64]:
    """Index of each value's level, as `lilliput::fake_levels` finds it, shaped like `x`."""
    v = (x / _broadcast(scale, x.ndim, axis)).astype(np.float32)
    if thresholds.ndim == 1:
        return np.asarray(np.searchsorted(thresholds, v, side="right"), np.int64)
    found = [np.searchsorted(t, row, side="right") for t, row in zip(thresholds, np.moveaxis(v, axis, 0), strict=True)]
    return np.moveaxis(np.asarray(found, np.int64), 0, axis)


def _constant(model: ir.Model, node: ir.Node) -> list[ir.Node]:
    scale, table, thresholds, axis = _arrays(node)
    tensor = ir.convenience.get_const_tensor(node.inputs[0])  # type: ignore[arg-type]
    assert tensor is not None
    found = codes(tensor.numpy().astype(np.float32), scale, thresholds, axis)
    name = str(node.inputs[0].name)  # type: ignore[union-attr]
    if is_ternary(node):
        return [_ternary(model, name, found - 1, scale, axis)]
    return unpacked(model, name, found, table, axis, scale)


def _ternary(model: ir.Model, name: str, values: NDArray[np.int64], scale: NDArray[np.float32], axis: int) -> ir.Node:
    # ONNX wants positive scales; the signs go to the integers.
    signed = values * _broadcast(np.where(scale < 0, -1, 1), values.ndim, axis)
    kind, array_type, _ = narrowest(-1, 1, constant=True, opset=int(model.opset_imports[""]))
    inputs = [initializer(model, f"{name}.codes", signed.astype(array_type), kind), initializer(model, f"{name}.scale", np.abs(scale)),
              initializer(model, f"{name}.zero_point", np.zeros(scale.shape, array_type), kind)]
    return linear("DequantizeLinear", inputs, max(axis, 0), scale, f"{name}.dequantize")


def unpack(model: ir.Model, name: str, flat: Array, width: int) -> Chain:
    """Nodes that compute `flat`, codes of `width` 1, 2, 4, 8 or 16 bits, as int32 from the packed initializer `NAME.codes`."""
    stored = flat.astype(np.uint16 if width == 16 else np.uint8)
    packed = bits.pack(stored, width) if width < 8 else stored
    chain = Chain(model, name, initializer(model, f"{name}.codes", packed))
    if width < 8:
        chain.add("Unsqueeze", np.array([1], np.int64))
        chain.add("BitShift", np.arange(0, 8, width, dtype=np.uint8), direction="RIGHT")
        chain.add("BitwiseAnd", np.array((1 << width) - 1, np.uint8))
        chain.add("Reshape", np.array([-1], np.int64))
        chain.add("Slice", np.array([0], np.int64), np.array([flat.size], np.int64))
    chain.add("Cast", to=int(ir.DataType.INT32))
    return chain


def unpacked(model: ir.Model, name: str, found: Array, table: Array, axis: int = -1, scale: Array | None = None) -> list[ir.Node]:
    """Nodes for `table[found] * scale` from packed codes: `table` is `(K, ...)`, or `(channels, K)` with `axis` from zero."""
    own = axis >= 0 and table.ndim == 2
    levels = table.shape[1] if own else table.shape[0]
    width = next(w for w in (1, 2, 4, 8, 16) if levels <= 1 << w)
    moved = np.moveaxis(found, axis, 0) if own else found
    flat = np.ascontiguousarray(moved).reshape(-1)
    chain = unpack(model, name, flat, width)
    chain.add("Reshape", np.array([moved.shape[0], -1] if own else moved.shape, np.int64))
    lookup = np.ascontiguousarray(table.astype(np.float32))
    if own:
        chain.add("GatherElements", lookup, first=True, axis=1)
        chain.add("Reshape", np.array(moved.shape, np.int64))
        order = [*range(1, axis + 1), 0, *range(axis + 1, found.ndim)]
        if order != list(range(found.ndim)):
            chain.add("Transpose", perm=order)
    else:
        chain.add("Gather", lookup, first=True, axis=0)
    if scale is not None:
        chain.add("Mul", _broadcast(scale, found.ndim, axis))
    return chain.nodes


def _activation(model: ir.Model, node: ir.Node) -> list[ir.Node]:
    scale, table, thresholds, _ = _arrays(node)
    name, x = str(node.outputs[0].name), node.inputs[0]
    if table.ndim > 1 or scale.ndim:
        raise PreconditionError(f"{name}: activations on a table of levels can be exported per tensor only")
    assert x is not None
    chain = Chain(model, name, x)
    chain.add("Div", scale)
    chain.add("Unsqueeze", np.array([-1], np.int64))
    chain.add("GreaterOrEqual", thresholds)
    chain.add("Cast", to=int(ir.DataType.INT32))
    chain.add("ReduceSum", np.array([-1], np.int64), keepdims=0)
    chain.add("Gather", table, first=True, axis=0)
    chain.add("Mul", scale)
    return chain.nodes
