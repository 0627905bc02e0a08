"""Rules for pooling, means, softmax and normalisation, and the table of all rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.lowering import elementwise, linear, views
from lilliput.deploy.c.lowering.context import Context, Grid
from lilliput.deploy.c.lowering.graph import constant, describe, ints, label, number, real, shape_of
from lilliput.deploy.c.lowering.layout import channels_last, in_order
from lilliput.deploy.c.operators import AveragePool, MaxPool, Normalisation, Softmax, Window
from lilliput.deploy.c.operators.softmax import SCALE, ZERO

Array = NDArray[Any]
# (context, node, the value it computes, the value whose codes are wanted, their grid)
Rule = Callable[[Context, ir.Node, ir.Value, ir.Value, Grid], None]


def _convolution(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    rule = linear.convolution if node.op_type == "Conv" else linear.transposed
    rule(context, node, value, grid)
    context.placed[target] = context.placed[value]


def _product(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    if node.op_type == "MatMul" and node.inputs[1] in context.placed:
        linear.matmul(context, node, value, grid)
    else:
        linear.linear(context, node, value, grid)
    context.placed[target] = context.placed[value]


def _sum(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    """Add; after a product with weights that nothing else reads, the bias of that product."""
    for product, other in ((0, 1), (1, 0)):
        source = node.inputs[product].producer() if node.inputs[product] is not None else None  # type: ignore[union-attr]
        bias = node.inputs[other]
        if source is not None and source.op_type == "MatMul" and node.inputs[product] not in context.placed and _is_constant(bias):
            linear.linear(context, source, value, grid, bias)
            context.placed[target] = context.placed[value]
            return
    elementwise.binary(context, node, value, target, grid)


def _is_constant(value: ir.Value | None) -> bool:
    source = value.producer() if value is not None else None
    return constant(value) is not None or (source is not None and source.op_type == "DequantizeLinear" and constant(source.inputs[0]) is not None)


def _max_pool(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    """MaxPool on the input's own grid, then on the wanted one."""
    tensor = context.known(node.inputs[0], node)
    window = linear.window_of(node, tuple(ints(node, "kernel_shape", [])), tensor.shape[2:])
    if window.dilation != (1, 1) or number(node, "storage_order", 0):
        raise PreconditionError(f"{describe(node)} has dilations or a storage order; generated code has plain windows")
    buffer, image = linear.image_of(context, tensor)
    shape, own = shape_of(value), Grid(scale=buffer.scale, zero=buffer.zero)
    same = grid.same(buffer)
    out = context.buffer(value.name, (*window.size(*image[:2]), image[2]), own)
    step = MaxPool(inputs=(buffer,), output=out, layer=label(node), image=image, window=window, low=grid.low if same else -128,
                   high=grid.high if same else 127)
    context.emit(step, value, in_order(shape, channels_last(len(shape))))
    if same:
        context.placed[target] = context.placed[value]
    else:
        elementwise.rescale(context, context.placed[value], target, grid, label(node))


def _average_pool(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    tensor = context.known(node.inputs[0], node)
    window = linear.window_of(node, tuple(ints(node, "kernel_shape", [])), tensor.shape[2:])
    if window.dilation != (1, 1):
        raise PreconditionError(f"{describe(node)} has dilations; generated code has plain windows")
    buffer, image = linear.image_of(context, tensor)
    shape = shape_of(value)
    out = context.buffer(value.name, (*window.size(*image[:2]), image[2]), grid)
    whole = bool(number(node, "count_include_pad", 0)) and any(window.pads)
    step = AveragePool(inputs=(buffer,), output=out, layer=label(node), image=image, window=window, low=grid.low, high=grid.high, whole=whole)
    context.emit(step, target, in_order(shape, channels_last(len(shape))))


def _mean(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    """ReduceMean and GlobalAveragePool: an average pool whose window is all of the axes that go."""
    tensor = context.known(node.inputs[0], node)
    rank = len(tensor.shape)
    if node.op_type == "GlobalAveragePool":
        axes = list(range(2, rank))
    else:
        found = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        axes = [int(a) for a in found.reshape(-1)] if found is not None else ints(node, "axes", list(range(rank)))
    axes = sorted(axis % rank for axis in axes)
    kept = [k for k in range(rank) if k not in axes]
    # What stays keeps the order that it has in memory.
    order = [k for k in tensor.order if k in kept]
    positions = tensor.positions.transpose(*axes, *order)
    count, rest = int(np.prod([tensor.shape[k] for k in axes])), [tensor.shape[k] for k in order]
    buffer = context.dense(tensor, positions)
    out = context.buffer(value.name, rest or (1,), grid)
    step = AveragePool(inputs=(buffer,), output=out, layer=label(node), image=(count, 1, int(np.prod(rest))), window=Window(kernel=(count, 1)),
                       low=grid.low, high=grid.high, truncated=context.micro)
    shape = shape_of(value)
    place = np.arange(out.size).reshape(rest).transpose(np.argsort(order)) if rest else np.zeros((), np.int64)
    context.emit(step, target, place.reshape(shape))


def _softmax(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    """Softmax at its own scale of 1/256, then on the wanted grid."""
    tensor = context.known(node.inputs[0], node)
    axis = number(node, "axis", -1) % len(tensor.shape)
    buffer, positions = context.rows(tensor, np.moveaxis(tensor.positions, axis, -1))
    out = context.buffer(value.name, (positions.size // positions.shape[-1], positions.shape[-1]), Grid(scale=SCALE, zero=ZERO))
    step = Softmax(inputs=(buffer,), output=out, layer=label(node))
    context.emit(step, value, np.moveaxis(positions, -1, axis))
    elementwise.rescale(context, context.placed[value], target, grid, label(node))


def _normalisation(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    tensor = context.known(node.inputs[0], node)
    gain, offset = (real(v) for v in (*node.inputs[1:3], None, None)[:2])
    axis = number(node, "axis", -1) % len(tensor.shape)
    if gain is None or axis != len(tensor.shape) - 1 or gain.size != tensor.shape[-1]:
        raise PreconditionError(f"{describe(node)} normalises over more than the last axis, or its gain is computed at run time; generated code "
                                f"takes the last axis and constants")
    buffer, positions = context.rows(tensor, tensor.positions)
    out = context.buffer(value.name, (positions.size // gain.size, gain.size), grid)
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    step = Normalisation(inputs=(buffer,), output=out, layer=label(node), gamma=gain.reshape(-1),
                         beta=np.zeros(gain.size) if offset is None else offset.reshape(-1), epsilon=epsilon,
                         centred=node.op_type == "LayerNormalization")
    context.emit(step, value, positions)
    elementwise.rescale(context, context.placed[value], target, grid, label(node))


RULES: dict[str, Rule] = {
    "Conv": _convolution, "ConvTranspose": _convolution, "Gemm": _product, "MatMul": _product, "Add": _sum, "Sub": elementwise.binary,
    "Mul": elementwise.binary, "MaxPool": _max_pool, "AveragePool": _average_pool, "GlobalAveragePool": _mean, "ReduceMean": _mean,
    "Softmax": _softmax, "LayerNormalization": _normalisation, "RMSNormalization": _normalisation, "Concat": views.concat, "Pad": views.pad,
}
