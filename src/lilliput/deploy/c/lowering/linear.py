"""Rules for layers with weights: convolutions, linear layers, transposed convolutions, and products of two activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.lowering.context import Context, Grid
from lilliput.deploy.c.lowering.graph import constant, describe, ints, label, number, shape_of, text
from lilliput.deploy.c.lowering.layout import Placed, channels_last, in_order, strides_of
from lilliput.deploy.c.operators import Convolution, MatMul, TransposedConvolution, Window

Array = NDArray[Any]
_INT32 = (-(2**31), 2**31 - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Codes int8 of a constant with the axis of its scales: `codes * scales` along `axis`; one scale for all where `axis` is None."""

    codes: Array
    scales: Array
    axis: int | None


def weights(value: ir.Value | None, node: ir.Node) -> Weights:
    """The quantized weights that a node reads, behind transpositions and reshapes too."""
    source = value.producer() if value is not None else None
    if source is not None and source.op_type == "Transpose" and source.inputs:
        inner = weights(source.inputs[0], node)
        perm = ints(source, "perm", list(range(inner.codes.ndim))[::-1])
        return Weights(codes=inner.codes.transpose(perm), scales=inner.scales, axis=None if inner.axis is None else perm.index(inner.axis))
    if source is None or source.op_type != "DequantizeLinear" or constant(source.inputs[0]) is None:
        kind = "float weights" if value is not None and constant(value) is not None else "weights that are computed at run time"
        raise PreconditionError(f"{describe(node)} has {kind}: generated code multiplies int8 weights; quantize the layer, or compute the weights "
                                f"ahead")
    codes, scales = constant(source.inputs[0]), constant(source.inputs[1])
    zero = constant(source.inputs[2]) if len(source.inputs) > 2 else None
    assert codes is not None
    if scales is None or (len(source.inputs) > 2 and source.inputs[2] is not None and zero is None):
        raise PreconditionError(f"{describe(node)}: the scales of its weights are computed at run time; quantize the model statically")
    axis = number(source, "axis", 1) % max(codes.ndim, 1) if scales.size > 1 else None
    whole = codes.astype(np.int64)
    if zero is not None:
        whole = whole - (zero.astype(np.int64).reshape([-1 if k == axis else 1 for k in range(codes.ndim)]) if zero.size > 1 else int(zero.reshape(-1)[0]))
    if scales.ndim > 1 or number(source, "block_size", 0):
        raise PreconditionError(f"{describe(node)} has a scale for each block of weights; quantize weights by the channel")
    if whole.size and (whole.min() < -128 or whole.max() > 127):
        raise PreconditionError(f"{describe(node)} has weights outside of [-128, 127] once their zero point is taken off; quantize weights "
                                f"symmetrically")
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise PreconditionError(f"{describe(node)} has a weight scale that is not positive; calibrate the model again")
    return Weights(codes=whole, scales=scales.astype(np.float64).reshape(-1), axis=axis)


def _bias(value: ir.Value | None, node: ir.Node, scales: Array, count: int) -> Array:
    """The bias as int32 at the accumulators' scales."""
    if value is None:
        return np.zeros(count, np.int64)
    source = value.producer()
    found = constant(value)
    if source is not None and source.op_type == "DequantizeLinear" and constant(source.inputs[0]) is not None:
        codes, own = constant(source.inputs[0]), constant(source.inputs[1])
        assert codes is not None
        assert own is not None
        if np.allclose(own.astype(np.float64), scales, rtol=1e-5) and codes.dtype == np.int32:
            return np.broadcast_to(codes.astype(np.int64).reshape(-1), (count,)).copy()
        found = codes.astype(np.float64) * own.astype(np.float64)
    if found is None:
        raise PreconditionError(f"{describe(node)} has a bias that is computed at run time; add it with an Add of its own")
    if not np.isfinite(found).all():
        raise PreconditionError(f"{describe(node)} has a bias that is not finite; repair the model")
    codes = np.rint(np.broadcast_to(found.astype(np.float64).reshape(-1), (count,)) / scales)
    return np.clip(codes, *_INT32).astype(np.int64)


def window_of(node: ir.Node, kernel: tuple[int, ...], size: tuple[int, ...]) -> Window:
    """The window of a convolution or pool over one or two axes of sizes `size`; one axis becomes the width."""
    rank = len(kernel)
    if rank not in (1, 2):
        raise PreconditionError(f"{describe(node)} works over {rank} axes; generated code has one and two: split it, or fold an axis into the batch")
    strides, dilations = ints(node, "strides", [1] * rank), ints(node, "dilations", [1] * rank)
    pads, auto = ints(node, "pads", [0] * 2 * rank), text(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n) for n, s, k, d in zip(size, strides, kernel, dilations, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    if number(node, "ceil_mode", 0):
        sizes = zip(size, kernel, strides, dilations, pads[:rank], pads[rank:], strict=True)
        more = [(-(n + a + b - (k - 1) * d - 1)) % s for n, k, s, d, a, b in sizes]
        pads = [*pads[:rank], *(b + m for b, m in zip(pads[rank:], more, strict=True))]
    if min(pads) < 0:
        raise PreconditionError(f"{describe(node)} has negative padding; slice its input instead")
    one = [1] * (2 - rank)
    zero = [0] * (2 - rank)
    return Window(kernel=(*one, *kernel), stride=(*one, *strides), dilation=(*one, *dilations),  # type: ignore[arg-type]
                  pads=(*zero, *pads[:rank], *zero, *pads[rank:]))  # type: ignore[arg-type]


def _range(node: ir.Node, codes: Array, bias: Array) -> None:
    """Refuse sums that could leave 32 bits."""
    worst = np.abs(codes.reshape(codes.shape[0], -1)).sum(1) * 255 + np.abs(bias)
    if worst.max(initial=0) > _INT32[1]:
        raise PreconditionError(f"{describe(node)}: its sums could reach {int(worst.max())} and leave 32 bits; its bias is out of proportion to its "
                                f"scales, or it is too wide: calibrate it again or split it")


def image_of(context: Context, tensor: Placed) -> tuple[Any, tuple[int, int, int]]:
    """The buffer of `(1, C, H, W)` or `(1, C, W)` with channels last, and `(H, W, C)`."""
    shape = tensor.shape
    order = channels_last(len(shape))
    buffer = context.dense(tensor, tensor.positions.transpose(order))
    height = shape[2] if len(shape) == 4 else 1
    return buffer, (height, shape[-1], shape[1])


def convolution(context: Context, node: ir.Node, value: ir.Value, grid: Grid) -> None:
    """Conv of one or two dimensions, grouped and depthwise too."""
    x, w = context.known(node.inputs[0], node), weights(node.inputs[1], node)
    if w.axis not in (None, 0):
        raise PreconditionError(f"{describe(node)} has a scale for each input channel; quantize weights by the output channel")
    window = window_of(node, w.codes.shape[2:], x.shape[2:])
    buffer, image = image_of(context, x)
    if image[2] != w.codes.shape[1] * number(node, "group", 1):
        raise PreconditionError(f"{describe(node)} reads {image[2]} channels, and its weights expect {w.codes.shape[1] * number(node, 'group', 1)}")
    codes = w.codes.reshape(*w.codes.shape[:2], *window.kernel).transpose(0, 2, 3, 1)
    filters, scales = codes.shape[0], np.broadcast_to(buffer.scale * w.scales, (w.codes.shape[0],))
    bias = _bias(node.inputs[2] if len(node.inputs) > 2 else None, node, scales, filters)
    _range(node, codes, bias)
    shape = shape_of(value)
    rows, columns = window.size(*image[:2])
    out = context.buffer(value.name, (rows, columns, filters), grid)
    step = Convolution(inputs=(buffer,), output=out, layer=label(node), weights=codes, bias=bias, factors=scales / grid.scale, image=image,
                       window=window, groups=number(node, "group", 1), low=grid.low, high=grid.high)
    context.emit(step, value, in_order(shape, channels_last(len(shape))))


def transposed(context: Context, node: ir.Node, value: ir.Value, grid: Grid) -> None:
    """ConvTranspose without groups."""
    x, w = context.known(node.inputs[0], node), weights(node.inputs[1], node)
    if number(node, "group", 1) != 1:
        raise PreconditionError(f"{describe(node)} is a grouped transposed convolution, which generated code has not; use one group, or resize "
                                f"and convolve")
    if w.axis not in (None, 1):
        raise PreconditionError(f"{describe(node)} has a scale for each input channel; quantize weights by the output channel")
    shape, rank = shape_of(value), len(w.codes.shape) - 2
    if text(node, "auto_pad", "NOTSET") != "NOTSET":
        raise PreconditionError(f"{describe(node)} has auto_pad; export it with explicit padding")
    window = window_of(node, w.codes.shape[2:], x.shape[2:])
    buffer, image = image_of(context, x)
    codes = w.codes.reshape(*w.codes.shape[:2], *window.kernel).transpose(1, 2, 3, 0)
    filters, scales = codes.shape[0], np.broadcast_to(buffer.scale * w.scales, (w.codes.shape[1],))
    bias = _bias(node.inputs[2] if len(node.inputs) > 2 else None, node, scales, filters)
    _range(node, codes, bias)
    out = context.buffer(value.name, (shape[2] if rank == 2 else 1, shape[-1], filters), grid)
    step = TransposedConvolution(inputs=(buffer,), output=out, layer=label(node), weights=codes, bias=bias, factors=scales / grid.scale,
                                 image=image, window=window, low=grid.low, high=grid.high)
    context.emit(step, value, in_order(shape, channels_last(len(shape))))


def linear(context: Context, node: ir.Node, value: ir.Value, grid: Grid, bias: ir.Value | None = None) -> None:
    """Gemm and MatMul with constant weights: rows of features are the pixels of a 1 x 1 convolution."""
    w = weights(node.inputs[1], node)
    codes, axis = w.codes, w.axis
    if node.op_type == "Gemm":
        if number(node, "transA", 0) or any(node.attributes[key].as_float() != 1.0 for key in ("alpha", "beta") if key in node.attributes):
            raise PreconditionError(f"{describe(node)} has transA, alpha or beta; fold them into its weights")
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if number(node, "transB", 0):
            codes, axis = codes.T, None if axis is None else 1 - axis
    if codes.ndim != 2 or axis == 0:
        raise PreconditionError(f"{describe(node)} has weights of shape {codes.shape} with scales along axis {axis}; generated code takes a matrix "
                                f"with a scale for each output")
    inner, filters = codes.shape
    tensor = context.known(node.inputs[0], node)
    positions = tensor.positions.reshape(-1, inner)
    columns = positions[0] - positions[0].min()
    rows = np.arange(len(positions))[:, None] * inner
    if len(positions) * inner == tensor.buffer.size and tensor.buffer not in context.free and bool((positions == rows + columns).all()):
        buffer, codes = tensor.buffer, codes[np.argsort(columns)]
    else:
        buffer = context.dense(tensor, positions)
    scales = np.broadcast_to(buffer.scale * w.scales, (filters,))
    offset = _bias(bias, node, scales, filters)
    _range(node, codes.T, offset)
    shape = shape_of(value)
    # Rows may stand where others have the batch of one.
    out = context.buffer(value.name, (shape[1:] if shape[0] == 1 else shape) or (filters,), grid)
    step = Convolution(inputs=(buffer,), output=out, layer=label(node), weights=np.ascontiguousarray(codes.T)[:, None, None, :], bias=offset,
                       factors=scales / grid.scale, image=(1, len(positions), inner), low=grid.low, high=grid.high)
    context.emit(step, value, in_order(shape, tuple(range(len(shape)))))


def matmul(context: Context, node: ir.Node, value: ir.Value, grid: Grid) -> None:
    """MatMul of two activations, whose strides stand for transpositions."""
    shape = shape_of(value)
    tensors = [context.known(v, node) for v in node.inputs[:2]]
    found = []
    for tensor in tensors:
        full = np.broadcast_to(tensor.positions, (*shape[:-2], *tensor.shape[-2:])).reshape(-1, *tensor.shape[-2:])
        strides = strides_of(full)
        if strides is None or tensor.buffer in context.free:
            buffer = context.dense(tensor, full)
            strides = ((full.shape[1] * full.shape[2], full.shape[2], 1), 0)
        else:
            buffer = tensor.buffer
        found.append((buffer, *strides))
    (a, strides_a, offset_a), (b, strides_b, offset_b) = found
    batch, (rows, inner), columns = int(np.prod(shape[:-2], dtype=np.int64)), tensors[0].shape[-2:], tensors[1].shape[-1]
    # Rows first, then the batch: where heads are joined afterwards, they lie side by side already.
    out = context.buffer(value.name, (rows, batch, columns), grid)
    step = MatMul(inputs=(a, b), output=out, layer=label(node), shape=(batch, rows, inner, columns), strides_a=strides_a, strides_b=strides_b,  # type: ignore[arg-type]
                  offsets=(offset_a, offset_b), low=grid.low, high=grid.high)
    context.emit(step, value, in_order((batch, rows, columns), (1, 0, 2)).reshape(shape))
