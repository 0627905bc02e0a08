"""Simulated quantization, as it stands in an exported graph, becomes QuantizeLinear and DequantizeLinear.

The exporter leaves every `lilliput::fake_quantize` as one node `lilliput.FakeQuantize`. On a constant it becomes the
stored integers and a DequantizeLinear, computed here as the simulation computes them; elsewhere the pair of nodes. Any
runtime that knows ONNX runs the result, and ONNX Runtime fuses it to integer kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxscript
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError

Array = NDArray[np.generic]
DOMAIN = "lilliput"
_OP = "FakeQuantize"
_FOUR_BITS, _TWO_BITS = 21, 25
# Type, numpy type, least opset, and whether runtimes have it for activations too, narrowest first.
_TYPES = (
    (ir.DataType.INT2, ml_dtypes.int2, _TWO_BITS, False), (ir.DataType.UINT2, ml_dtypes.uint2, _TWO_BITS, False),
    (ir.DataType.INT4, ml_dtypes.int4, _FOUR_BITS, False), (ir.DataType.UINT4, ml_dtypes.uint4, _FOUR_BITS, False),
    (ir.DataType.INT8, np.int8, 13, True), (ir.DataType.UINT8, np.uint8, 13, True),
    (ir.DataType.INT16, np.int16, 21, True), (ir.DataType.UINT16, np.uint16, 21, True),
    (ir.DataType.INT32, np.int32, 13, False),
)


def operator(name: str, inputs: Sequence[str], attributes: Sequence[str]) -> onnxscript.values.Op:
    """An operator of this project's own domain, with float tensors (or integer zero points) and integer attributes."""
    parameter, number = onnx.defs.OpSchema.FormalParameter, onnx.defs.OpSchema.AttrType.INT
    schema = onnx.defs.OpSchema(
        name, DOMAIN, 1,
        inputs=[parameter(key, "Z" if key == "zero_point" else "T") for key in inputs],
        outputs=[parameter("y", "T")],
        type_constraints=[("T", ["tensor(float)"], ""), *([("Z", ["tensor(int32)"], "")] if "zero_point" in inputs else [])],
        attributes=[onnx.defs.OpSchema.Attribute(key, number, "") for key in attributes],
    )
    return onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), name, schema)


_FAKE = operator(_OP, ("x", "scale", "zero_point"), ("qmin", "qmax", "axis"))


def translate(x: ir.Value, scale: ir.Value, zero_point: ir.Value, qmin: int, qmax: int, axis: int) -> ir.Value:
    """What the exporter writes for `lilliput::fake_quantize`: one node that `lower_` replaces."""
    result: ir.Value = _FAKE(x, scale, zero_point, qmin=qmin, qmax=qmax, axis=axis)
    return result


def is_fake(node: ir.Node) -> bool:
    """Whether the node is a simulated quantization."""
    return node.domain == DOMAIN and node.op_type == _OP


def is_ternary(node: ir.Node) -> bool:
    """Whether the node is a simulated quantization on the table -1, 0, 1, which the integers hold."""
    table = ir.convenience.get_const_tensor(node.inputs[2]) if node.op_type == "FakeLevels" and node.inputs[2] is not None else None
    return table is not None and table.numpy().tolist() == [-1.0, 0.0, 1.0]


def is_constant(node: ir.Node) -> bool:
    """Whether the node quantizes a constant."""
    return node.inputs[0] is not None and ir.convenience.get_const_tensor(node.inputs[0]) is not None


def needed_opset(model: ir.Model, least: int) -> int:
    """The least opset, from `least` on, that has a type as narrow as each constant's range.

    Two bits (opset 25) only where no activation is quantized: ONNX Runtime fuses such layers to integer kernels that
    take four bits or eight, and then refuses the model.
    """
    nodes = [node for node in model.graph if node.domain == DOMAIN]
    if not all(is_constant(node) for node in nodes):
        return max(least, _FOUR_BITS if nodes else least)
    ranges = [_range(node) for node in nodes if is_fake(node)] + [(-1, 1) for node in nodes if is_ternary(node)]
    return max([least, *(narrowest(*limits, constant=True, opset=99)[2] for limits in ranges)])


def lower_(model: ir.Model) -> int:
    """Replace every simulated quantization; returns how many there were.

    Raises `PreconditionError` where scale or zero point are computed and not constant, or the range fits no ONNX type.
    """
    nodes = [node for node in model.graph if is_fake(node)]
    opset = int(model.opset_imports[""])
    if not all(is_constant(node) for node in nodes):
        opset = min(opset, _TWO_BITS - 1)
    for node in nodes:
        x = node.inputs[0]
        assert x is not None
        constant = ir.convenience.get_const_tensor(x)
        new = _activation(model, node, opset) if constant is None else _constant(model, node, constant.numpy(), opset)
        model.graph.insert_before(node, new)
        output, replacement = node.outputs[0], new[-1].outputs[0]
        name, shape = output.name, output.shape
        ir.convenience.replace_all_uses_with(output, replacement, replace_graph_outputs=True)
        output.name = None
        replacement.name, replacement.shape, replacement.dtype = name, shape, ir.DataType.FLOAT
        model.graph.remove(node, safe=True)
    model.opset_imports.pop(DOMAIN, None)
    return len(nodes)


def _range(node: ir.Node) -> tuple[int, int]:
    return node.attributes["qmin"].as_int(), node.attributes["qmax"].as_int()


def _limits(array_type: type[np.generic]) -> tuple[int, int]:
    limits = ml_dtypes.iinfo(array_type)  # type: ignore[no-untyped-call]
    return int(limits.min), int(limits.max)


def narrowest(low: int, high: int, *, constant: bool, opset: int) -> tuple[ir.DataType, type[np.generic], int]:
    """The narrowest type that holds the range, ONNX's and numpy's, and the least opset that has it.

    Raises `PreconditionError` where there is none.
    """
    for kind, array_type, least, activations in _TYPES:
        least_code, most_code = _limits(array_type)
        if low >= least_code and high <= most_code and opset >= least and (constant or activations):
            return kind, array_type, least
    raise PreconditionError(f"ONNX opset {opset} has no integer type for the range [{low}, {high}]; use at most 16 bits, or pass a later opset=")


def _parameters(node: ir.Node) -> tuple[NDArray[np.float32], NDArray[np.int32], int]:
    """Scale, zero point and axis; scalars for one of each, and axis 0 then."""
    found = [ir.convenience.get_const_tensor(value) if value is not None else None for value in node.inputs[1:3]]
    if found[0] is None or found[1] is None:
        raise PreconditionError(f"{node.outputs[0].name}: scale and zero point must be constant to be exported; call .eval() on the network first")
    scale, zero_point = found[0].numpy().astype(np.float32), found[1].numpy().astype(np.int32)
    axis = node.attributes["axis"].as_int()
    if axis < 0:
        return scale.reshape(()), zero_point.reshape(()), 0
    zero_point = np.broadcast_to(zero_point, scale.shape)
    return scale, zero_point, axis


def quantize(x: Array, scale: NDArray[np.float32], zero_point: NDArray[np.int32], axis: int, limits: tuple[int, int]) -> Array:
    """`clip(round(x / s) + z, qmin, qmax)` in float32, half to even: the simulation's arithmetic, bit for bit."""
    shape = [-1 if dim == axis else 1 for dim in range(x.ndim)] if scale.ndim else []
    codes = np.rint(x.astype(np.float32) / scale.reshape(shape)) + zero_point.reshape(shape).astype(np.float32)
    clipped: Array = np.clip(codes.astype(np.float64), *limits)
    return clipped


def initializer(model: ir.Model, name: str, array: Array, kind: ir.DataType | None = None) -> ir.Value:
    """A new initializer whose name starts with `name`."""
    taken = model.graph.initializers
    unique = name if name not in taken else next(f"{name}_{i}" for i in range(1, len(taken) + 2) if f"{name}_{i}" not in taken)
    value = ir.Value(name=unique, const_value=ir.tensor(np.ascontiguousarray(array) if array.ndim else array, dtype=kind, name=unique))
    assert value.const_value is not None
    value.shape, value.dtype = ir.Shape(array.shape), value.const_value.dtype
    model.graph.register_initializer(value)
    return value


def linear(op: str, inputs: Sequence[ir.Value], axis: int, scale: Array, name: str) -> ir.Node:
    """A QuantizeLinear or DequantizeLinear."""
    attributes = [ir.AttrInt64("axis", axis)] if scale.ndim else []
    return ir.Node("", op, inputs, attributes, num_outputs=1, name=name)


def _constant(model: ir.Model, node: ir.Node, x: Array, opset: int) -> list[ir.Node]:
    low, high = _range(node)
    scale, zero_point, axis = _parameters(node)
    kind, array_type, _ = narrowest(low, high, constant=True, opset=opset)
    codes = quantize(x, scale, zero_point, axis, (low, high)).astype(array_type)
    name = str(node.inputs[0].name)  # type: ignore[union-attr]
    inputs = [initializer(model, f"{name}.codes", codes, kind), initializer(model, f"{name}.scale", scale)]
    if zero_point.any() or kind != ir.DataType.INT32:
        inputs.append(initializer(model, f"{name}.zero_point", zero_point.astype(array_type), kind))
    return [linear("DequantizeLinear", inputs, axis, scale, f"{name}.dequantize")]


def _activation(model: ir.Model, node: ir.Node, opset: int) -> list[ir.Node]:
    low, high = _range(node)
    scale, zero_point, axis = _parameters(node)
    if -128 <= low < 0 and high <= 127:
        # The same codes, moved up: ONNX Runtime fuses unsigned activations, and fails on some networks with signed ones.
        low, high, zero_point = low + 128, high + 128, zero_point + np.int32(128)
    kind, array_type, _ = narrowest(low, high if low < 0 else max(high, 255), constant=False, opset=opset)
    name, x = str(node.outputs[0].name), node.inputs[0]
    new: list[ir.Node] = []
    if scale.ndim:
        return _by_channel(model, node, (scale, zero_point, axis), (low, high), kind)
    if _limits(array_type) != (low, high):
        bounds = [initializer(model, f"{name}.{end}", np.asarray((code - zero_point) * scale, np.float32))
                  for end, code in (("least", low), ("most", high))]
        new.append(ir.Node("", "Clip", [x, *bounds], num_outputs=1, name=f"{name}.clip"))
        x = new[-1].outputs[0]
    parameters = [initializer(model, f"{name}.scale", scale), initializer(model, f"{name}.zero_point", zero_point.astype(array_type), kind)]
    new.append(linear("QuantizeLinear", [x, *parameters], axis, scale, f"{name}.quantize"))  # type: ignore[list-item]
    new.append(linear("DequantizeLinear", [new[-1].outputs[0], *parameters], axis, scale, f"{name}.dequantize"))
    return new


def _by_channel(model: ir.Model, node: ir.Node, parameters: tuple[Array, Array, int], limits: tuple[int, int], kind: ir.DataType) -> list[ir.Node]:
    """Activations with a scale to the channel: the pair's arithmetic in elementary operators, the codes as integers between them.

    ONNX Runtime (1.31) fuses the pair itself into integer kernels that take one scale, and then refuses the model.
    """
    scale, zero_point, axis = parameters
    x, name, shape = node.inputs[0], str(node.outputs[0].name), node.outputs[0].shape
    if shape is None:
        raise PreconditionError(f"{name} has a scale to the channel and no known shape: export it with scales to the tensor")
    aligned = [-1 if dim == axis else 1 for dim in range(len(shape))]
    scales, zeros = (initializer(model, f"{name}.{key}", np.asarray(array, np.float32).reshape(aligned))
                     for key, array in (("scale", scale), ("zero_point", zero_point)))
    ends = [initializer(model, f"{name}.{key}", np.asarray(code, np.float32)) for key, code in zip(("least", "most"), limits, strict=True)]
    new: list[ir.Node] = []
    for op, others in (("Div", [scales]), ("Round", []), ("Add", [zeros]), ("Clip", ends), ("Cast", [kind]), ("Cast", [ir.DataType.FLOAT]),
                       ("Sub", [zeros]), ("Mul", [scales])):
        inputs = [value for value in others if isinstance(value, ir.Value)]
        attributes = [ir.AttrInt64("to", int(other)) for other in others if isinstance(other, ir.DataType)]
        new.append(ir.Node("", op, [x, *inputs], attributes, num_outputs=1, name=f"{name}.{op.lower()}_{len(new)}"))
        x = new[-1].outputs[0]
    return new
