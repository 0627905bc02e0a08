"""Operators with weights or windows, and products of two activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.tflite import options
from lilliput.deploy.tflite.builder import TO_FIRST, Builder
from lilliput.deploy.tflite.options import Padding
from lilliput.deploy.tflite.schema import Tensor

Array = NDArray[Any]


def _image(b: Builder, tensor: Tensor) -> tuple[int, int, int]:
    """Height, width and channels."""
    if len(tensor.shape) != 4 or 0 in tensor.shape:
        raise b.corrupt(f"reads a tensor of shape {tensor.shape} as images")
    return tensor.shape[1], tensor.shape[2], tensor.shape[3]


def _positive(b: Builder, *numbers: int) -> None:
    if min(numbers) < 1 or max(numbers) > 1 << 16:
        raise b.corrupt(f"has strides, dilations or a window of {numbers}")


def _pads(padding: Padding, size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> list[int]:
    """Top, left, bottom, right: SAME puts the odd one at the end."""
    if padding is Padding.VALID:
        return [0, 0, 0, 0]
    total = [max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n) for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)]
    return [t // 2 for t in total] + [t - t // 2 for t in total]


def _weights(b: Builder, tensor: Tensor, order: tuple[int, ...], rank: int = 4) -> tuple[Array, str]:
    """Codes of constant weights with their axes in `order`, and the value that holds their real values."""
    assert b.operator is not None
    q = tensor.quantization
    if tensor.kind != "int8" or q is None:
        raise b.refused(f"has weights of type {tensor.kind}{'' if tensor.kind != 'int8' else ' without a scale'}")
    if tensor.array is None:
        raise b.refused("computes its weights at run time", "make them constants")
    if len(tensor.shape) != rank or 0 in tensor.shape or np.abs(q.zeros).max() > 128:
        raise b.corrupt(f"has weights of shape {tensor.shape}")
    codes = tensor.array.transpose(order)
    parts = [b.constant(codes, f"{b.operator.kind}_{b.operator.index}.weight"), *(b.constant(a if a.size > 1 else a.reshape(()), name)
                                             for a, name in ((q.scales, "scale"), (q.zeros.astype(np.int8), "zero_point")))]
    axis = {"axis": order.index(q.axis)} if q.scales.size > 1 else {}
    return codes, b.node("DequantizeLinear", parts, ".weights", axis)


def _bias(b: Builder, place: int, image: Tensor, weights: Tensor, count: int) -> list[str]:
    """The bias at the accumulators' scale, whatever scale the file records for it: TensorFlow Lite adds its codes as they are."""
    tensor = b.optional(place)
    if tensor is None:
        return []
    if tensor.kind != "int32" or tensor.array is None:
        raise b.refused(f"has a bias of type {tensor.kind}" if tensor.array is not None else "computes its bias at run time", "make it int32 and constant")
    assert weights.quantization is not None
    if tensor.array.size != count:
        raise b.corrupt(f"has {tensor.array.size} biases for {count} filters")
    scales = (b.grid(image).scales.astype(np.float64) * weights.quantization.scales).astype(np.float32)
    if not (scales > 0).all():
        raise b.corrupt("has scales whose product is nothing in float32")
    per_channel = scales.size > 1
    parts = [b.constant(tensor.array.reshape(-1), "bias"), b.constant(scales if per_channel else scales.reshape(()), "scale")]
    return [b.node("DequantizeLinear", parts, ".bias", {"axis": 0} if per_channel else {})]


def convolution(b: Builder) -> None:
    """CONV_2D and DEPTHWISE_CONV_2D, whose channels have `multiplier` filters each."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.Conv2DOptions | options.DepthwiseConv2DOptions)
    x, w, out = b.tensor(0), b.tensor(1), b.tensor(0, output=True)
    height, width, channels = _image(b, x)
    depthwise = isinstance(o, options.DepthwiseConv2DOptions)
    codes, weights = _weights(b, w, (3, 0, 1, 2) if depthwise else TO_FIRST)
    kernel, stride, dilation = codes.shape[2:], (o.stride_h, o.stride_w), (o.dilation_h, o.dilation_w)
    _positive(b, *stride, *dilation)
    if channels % codes.shape[1] or codes.shape[0] % (channels // codes.shape[1]):
        raise b.corrupt(f"has weights of shape {w.shape} for {channels} channels")
    attributes = {"kernel_shape": kernel, "strides": stride, "dilations": dilation, "group": channels // codes.shape[1],
                  "pads": _pads(o.padding, (height, width), kernel, stride, dilation)}
    found = b.node("Conv", [b.real(x, True), weights, *_bias(b, 2, x, w, codes.shape[0])], attributes=attributes)
    b.give(out, b.limited(found, o.activation, out), True)


def transposed_convolution(b: Builder) -> None:
    """TRANSPOSE_CONV: its padding is that of the convolution that would lead back."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.TransposeConvOptions)
    w, x, out = b.tensor(1), b.tensor(2), b.tensor(0, output=True)
    (height, width, channels), size = _image(b, x), _image(b, out)[:2]
    codes, weights = _weights(b, w, (3, 0, 1, 2))
    kernel, stride = codes.shape[2:], (o.stride_h, o.stride_w)
    _positive(b, *stride)
    if codes.shape[0] != channels or tuple(b.whole_numbers(0)) != out.shape:
        raise b.corrupt(f"has weights of shape {w.shape} for {channels} channels, or an output of another shape than it computes")
    top, left, _, _ = _pads(o.padding, size, kernel, stride, (1, 1))
    # What is computed beyond the lower right edge is cut; where nothing is, the bias stands.
    beyond = [(n - 1) * s + k - before - m for n, s, k, before, m in zip((height, width), stride, kernel, (top, left), size, strict=True)]
    attributes = {"kernel_shape": kernel, "strides": stride, "pads": [top, left, *(max(n, 0) for n in beyond)],
                  "output_padding": [max(-n, 0) for n in beyond]}
    if any(p >= s for p, s in zip(attributes["output_padding"], stride, strict=True)):
        raise b.corrupt(f"has an output of {size} pixels, which its input does not reach")
    found = b.node("ConvTranspose", [b.real(x, True), weights, *_bias(b, 3, x, w, codes.shape[1])], attributes=attributes)
    b.give(out, b.limited(found, o.activation, out), True)


def fully_connected(b: Builder) -> None:
    """FULLY_CONNECTED: rows of features times a matrix."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.FullyConnectedOptions)
    x, w, out = b.tensor(0), b.tensor(1), b.tensor(0, output=True)
    if o.weights_format:
        raise b.refused("has shuffled weights")
    codes, weights = _weights(b, w, (0, 1), 2)
    filters, inner = codes.shape
    size = int(np.prod(x.shape, dtype=np.int64))
    if size % inner or int(np.prod(out.shape, dtype=np.int64)) != size // inner * filters:
        raise b.corrupt(f"reads {size} elements with weights of shape {codes.shape}")
    rows = (size // inner, inner)
    source = b.real(x)
    if x.shape != rows:
        flat = b.node("Reshape", [b.codes(x), b.constant(np.array(rows, np.int64), "shape")], ".flat")
        source = b.node("DequantizeLinear", [flat, *b.grid_inputs(x)], ".real")
    found = b.limited(b.node("Gemm", [source, weights, *_bias(b, 2, x, w, filters)], attributes={"transB": 1}), o.activation, out)
    if out.shape != (rows[0], filters):
        flat = b.node("QuantizeLinear", [found, *b.grid_inputs(out)], ".codes")
        b.keep(out, b.node("Reshape", [flat, b.constant(np.array(out.shape, np.int64), "shape")], ".shaped"))
    else:
        b.give(out, found)


def matmul(b: Builder) -> None:
    """BATCH_MATMUL."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.BatchMatMulOptions)
    sides = []
    for place, turned in ((0, o.adj_x), (1, o.adj_y)):
        tensor = b.tensor(place)
        rank = len(tensor.shape)
        if rank < 2:
            raise b.corrupt(f"multiplies a tensor of shape {tensor.shape}")
        side = b.real(tensor)
        sides.append(b.node("Transpose", [side], ".transposed", {"perm": [*range(rank - 2), rank - 1, rank - 2]}) if turned else side)
    b.give(b.tensor(0, output=True), b.node("MatMul", sides))


def pool(b: Builder) -> None:
    """AVERAGE_POOL_2D and MAX_POOL_2D: padding counts for nothing."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.Pool2DOptions)
    x, out = b.tensor(0), b.tensor(0, output=True)
    height, width, _ = _image(b, x)
    kernel, stride = (o.height, o.width), (o.stride_h, o.stride_w)
    _positive(b, *kernel, *stride)
    attributes = {"kernel_shape": kernel, "strides": stride, "pads": _pads(o.padding, (height, width), kernel, stride, (1, 1))}
    kind = "MaxPool" if b.operator.kind == "MAX_POOL_2D" else "AveragePool"
    b.give(out, b.limited(b.node(kind, [b.real(x, True)], attributes=attributes), o.activation, out), True)
