"""Small LiteRT models of one operator each, and one of many."""

import numpy as np
from tests.deploy.tflite.tflite_writer import Op, T, model

from lilliput.deploy.tflite import options as o
from lilliput.deploy.tflite.options import Activation, Padding


def _int(values):
    return T(np.shape(values), "int32", data=np.array(values))


def unary(kind, *, scale=0.05, zero=3, out=(0.04, -7), options=None, shape=(1, 4, 8, 8)):
    return model([T(shape, scale=scale, zero=zero), T(shape, scale=out[0], zero=out[1])], [Op(kind, (0,), (1,), options)], (0,), (1,))


def binary(kind, *, shapes=((1, 4, 5, 6), (1, 4, 5, 6)), grids=((0.05, 3), (0.021, -9), (0.063, 12)), activation=Activation.NONE, constant=False):
    out = np.broadcast_shapes(*shapes)
    data = np.random.default_rng(5).integers(-128, 128, shapes[1]) if constant else None
    tensors = [T(shapes[0], scale=grids[0][0], zero=grids[0][1]), T(shapes[1], scale=grids[1][0], zero=grids[1][1], data=data),
               T(out, scale=grids[2][0], zero=grids[2][1])]
    return model(tensors, [Op(kind, (0, 1), (2,), o.ArithmeticOptions(activation=activation))], (0,) if constant else (0, 1), (2,))


def moved(kind, shape, out, *others, options=None, first=(), outputs=1):
    """An operator that keeps codes; `others` are constants behind the tensor, `first` before it."""
    extra = [_int(values) for values in (*first, *others)]
    place = 1 + outputs
    tensors = [T(shape, scale=0.1, zero=-4), *(T(out, scale=0.1, zero=-4) for _ in range(outputs)), *extra]
    inputs = (*range(place, place + len(first)), 0, *range(place + len(first), place + len(extra)))
    return model(tensors, [Op(kind, inputs, tuple(range(1, place)), options)], (0,), tuple(range(1, place)))


def convolution(kind="CONV_2D", *, shape=(1, 9, 7, 6), kernel=(3, 3), filters=8, stride=(1, 1), dilation=(1, 1), padding=Padding.SAME,
                activation=Activation.NONE, per_channel=True, bias=True, groups=1, out_zero=5):
    g = np.random.default_rng(1)
    channels = shape[3]
    size = [-(-n // s) if padding is Padding.SAME else (n - (k - 1) * d - 1) // s + 1 for n, s, k, d in zip(shape[1:3], stride, kernel, dilation, strict=True)]
    if kind == "DEPTHWISE_CONV_2D":
        shape_w, axis = (1, *kernel, filters), 3
        options = o.DepthwiseConv2DOptions(padding=padding, stride_h=stride[0], stride_w=stride[1], multiplier=filters // channels, activation=activation,
                                           dilation_h=dilation[0], dilation_w=dilation[1])
    else:
        shape_w, axis = (filters, *kernel, channels // groups), 0
        options = o.Conv2DOptions(padding=padding, stride_h=stride[0], stride_w=stride[1], activation=activation, dilation_h=dilation[0],
                                  dilation_w=dilation[1])
    scales = g.uniform(0.001, 0.01, filters).astype(np.float32) if per_channel else np.array([0.0061], np.float32)
    tensors = [T(shape, scale=0.037, zero=-11), T(shape_w, scale=scales, axis=axis, data=g.integers(-127, 128, shape_w)),
               T((filters,), "int32", scale=np.float32(0.037) * scales, data=g.integers(-3000, 3000, filters)), T((1, *size, filters), scale=0.09, zero=out_zero)]
    return model(tensors, [Op(kind, (0, 1, 2) if bias else (0, 1), (3,), options)], (0,), (3,))


def transposed(*, shape=(1, 4, 5, 6), kernel=(3, 3), filters=4, stride=(2, 2), padding=Padding.SAME, bias=True):
    g = np.random.default_rng(2)
    size = [n * s if padding is Padding.SAME else n * s + max(k - s, 0) for n, s, k in zip(shape[1:3], stride, kernel, strict=True)]
    scales = g.uniform(0.001, 0.01, filters).astype(np.float32)
    out = (1, *size, filters)
    tensors = [_int(out), T((filters, *kernel, shape[3]), scale=scales, data=g.integers(-127, 128, (filters, *kernel, shape[3]))),
               T(shape, scale=0.037, zero=-11), T((filters,), "int32", scale=np.float32(0.037) * scales, data=g.integers(-3000, 3000, filters)),
               T(out, scale=0.06, zero=5)]
    options = o.TransposeConvOptions(padding=padding, stride_h=stride[0], stride_w=stride[1])
    return model(tensors, [Op("TRANSPOSE_CONV", (0, 1, 2, 3) if bias else (0, 1, 2), (4,), options)], (2,), (4,))


def linear(*, shape=(1, 40), filters=12, activation=Activation.NONE, keep=False, per_channel=False):
    g = np.random.default_rng(3)
    inner = shape[-1]
    out = (*shape[:-1], filters) if keep else (int(np.prod(shape[:-1])), filters)
    scales = g.uniform(0.001, 0.01, filters).astype(np.float32) if per_channel else np.array([0.0173], np.float32)
    tensors = [T(shape, scale=0.037, zero=-11), T((filters, inner), scale=scales, data=g.integers(-127, 128, (filters, inner))),
               T((filters,), "int32", scale=np.float32(0.037) * scales, data=g.integers(-3000, 3000, filters)), T(out, scale=0.11, zero=5)]
    return model(tensors, [Op("FULLY_CONNECTED", (0, 1, 2), (3,), o.FullyConnectedOptions(activation=activation, keep_num_dims=keep))], (0,), (3,))


def pooled(kind, *, shape=(1, 9, 7, 5), kernel=(3, 2), stride=(2, 2), padding=Padding.SAME, activation=Activation.NONE):
    size = [-(-n // s) if padding is Padding.SAME else (n - k) // s + 1 for n, s, k in zip(shape[1:3], stride, kernel, strict=True)]
    options = o.Pool2DOptions(padding=padding, stride_h=stride[0], stride_w=stride[1], height=kernel[0], width=kernel[1], activation=activation)
    return model([T(shape, scale=0.05, zero=-9), T((1, *size, shape[3]), scale=0.05, zero=-9)], [Op(kind, (0,), (1,), options)], (0,), (1,))


def mean(axes, *, shape=(1, 6, 7, 5), keep=False, grids=((0.05, -9), (0.03, 4))):
    out = tuple(1 if k in axes else n for k, n in enumerate(shape) if keep or k not in axes)
    tensors = [T(shape, scale=grids[0][0], zero=grids[0][1]), T(out, scale=grids[1][0], zero=grids[1][1]), _int(axes)]
    return model(tensors, [Op("MEAN", (0, 2), (1,), o.ReducerOptions(keep_dims=keep))], (0,), (1,))


def matmul(*, left=(1, 3, 5, 8), right=(1, 3, 8, 6), adj_x=False, adj_y=False):
    out = (*left[:-2], left[-1] if adj_x else left[-2], right[-2] if adj_y else right[-1])
    tensors = [T(left, scale=0.037, zero=-11), T(right, scale=0.029, zero=20), T(out, scale=0.31, zero=3)]
    return model(tensors, [Op("BATCH_MATMUL", (0, 1), (2,), o.BatchMatMulOptions(adj_x=adj_x, adj_y=adj_y))], (0, 1), (2,))


def concatenated(axis=3, *, shapes=((1, 4, 5, 6), (1, 4, 5, 3))):
    out = list(shapes[0])
    out[axis] = sum(shape[axis] for shape in shapes)
    tensors = [*(T(shape, scale=0.1, zero=-4) for shape in shapes), T(tuple(out), scale=0.1, zero=-4)]
    inputs = tuple(range(len(shapes)))
    return model(tensors, [Op("CONCATENATION", inputs, (len(shapes),), o.ConcatenationOptions(axis=axis))], inputs, (len(shapes),))


def padded(widths, *, value=None, shape=(1, 4, 5, 6)):
    out = tuple(n + a + b for n, (a, b) in zip(shape, widths, strict=True))
    tensors = [T(shape, scale=0.1, zero=-4), T(out, scale=0.1, zero=-4), _int(widths)]
    if value is not None:
        tensors.append(T((), scale=0.1, zero=-4, data=np.array(value)))
    return model(tensors, [Op("PAD" if value is None else "PADV2", (0, 2) if value is None else (0, 2, 3), (1,))], (0,), (1,))


def resized(size, *, shape=(1, 4, 5, 3), align=False, half=False):
    return moved("RESIZE_NEAREST_NEIGHBOR", shape, (1, *size, shape[3]), list(size),
                 options=o.ResizeNearestNeighborOptions(align_corners=align, half_pixel_centers=half))


SIXTH = Activation.RELU6
CASES = {
    "conv": convolution, "conv_valid_relu6": lambda: convolution(padding=Padding.VALID, activation=SIXTH, stride=(2, 1)),
    "conv_dilated": lambda: convolution(dilation=(2, 2), activation=Activation.RELU, bias=False),
    "conv_stride": lambda: convolution(shape=(1, 10, 8, 6), stride=(2, 2), activation=Activation.RELU_N1_TO_1),
    "conv_per_tensor": lambda: convolution(per_channel=False), "conv_pointwise": lambda: convolution(kernel=(1, 1)),
    "depthwise": lambda: convolution("DEPTHWISE_CONV_2D", filters=6), "depthwise_multiplier": lambda: convolution("DEPTHWISE_CONV_2D", filters=12, stride=(2, 2)),
    "transposed": transposed, "transposed_valid": lambda: transposed(padding=Padding.VALID, kernel=(4, 3)),
    "transposed_small": lambda: transposed(kernel=(1, 2), stride=(3, 2), bias=False),
    "linear": linear, "linear_relu": lambda: linear(activation=Activation.RELU), "linear_rows": lambda: linear(shape=(1, 5, 16), keep=True),
    "linear_flat": lambda: linear(shape=(1, 3, 16)), "linear_per_channel": lambda: linear(per_channel=True),
    "matmul": matmul, "matmul_adj_y": lambda: matmul(right=(1, 3, 6, 8), adj_y=True), "matmul_adj_x": lambda: matmul(left=(1, 3, 8, 5), adj_x=True),
    "add": lambda: binary("ADD"), "add_relu": lambda: binary("ADD", activation=Activation.RELU), "add_row": lambda: binary("ADD", shapes=((1, 4, 5, 6), (6,))),
    "add_constant": lambda: binary("ADD", constant=True, shapes=((1, 4, 5, 6), (6,))),
    "add_scalar": lambda: binary("ADD", constant=True, shapes=((1, 4, 5, 6), (1,))),
    "sub": lambda: binary("SUB"), "sub_relu6": lambda: binary("SUB", activation=SIXTH), "sub_constant": lambda: binary("SUB", constant=True),
    "mul": lambda: binary("MUL", grids=((0.05, 3), (0.021, -9), (0.063, 12))), "mul_small": lambda: binary("MUL", grids=((0.05, 3), (0.021, -9), (0.0063, 12))),
    "mul_channels": lambda: binary("MUL", shapes=((1, 4, 5, 6), (1, 1, 1, 6))),
    "mul_scalar": lambda: binary("MUL", constant=True, shapes=((1, 4, 5, 6), (1,))),
    "average_pool": lambda: pooled("AVERAGE_POOL_2D"), "average_pool_valid": lambda: pooled("AVERAGE_POOL_2D", padding=Padding.VALID, activation=Activation.RELU),
    "average_pool_stride": lambda: pooled("AVERAGE_POOL_2D", kernel=(9, 7), stride=(9, 7)),
    "max_pool": lambda: pooled("MAX_POOL_2D"), "max_pool_relu6": lambda: pooled("MAX_POOL_2D", padding=Padding.VALID, activation=SIXTH),
    "mean": lambda: mean([1, 2]), "mean_keep": lambda: mean([1, 2], keep=True), "mean_same_grid": lambda: mean([1, 2], grids=((0.05, -9), (0.05, -9))),
    "mean_power": lambda: mean([1, 2], shape=(1, 8, 8, 5)), "mean_last": lambda: mean([3]), "mean_columns": lambda: mean([2], keep=True),
    "mean_rank3": lambda: mean([1], shape=(1, 11, 6)), "mean_large_scale": lambda: mean([1, 2], grids=((0.05, -9), (0.007, 4))),
    "softmax": lambda: unary("SOFTMAX", out=(1 / 256, -128), options=o.SoftmaxOptions(beta=1.0), shape=(1, 24)),
    "softmax_rows": lambda: unary("SOFTMAX", out=(1 / 256, -128), options=o.SoftmaxOptions(beta=1.0), shape=(1, 7, 12)),
    "softmax_wide": lambda: unary("SOFTMAX", scale=0.3, out=(1 / 256, -128), options=o.SoftmaxOptions(beta=1.0), shape=(1, 300)),
    "logistic": lambda: unary("LOGISTIC", out=(1 / 256, -128)), "logistic_wide": lambda: unary("LOGISTIC", scale=0.17, out=(1 / 256, -128)),
    "tanh": lambda: unary("TANH", scale=0.02, out=(1 / 128, 0)), "tanh_wide": lambda: unary("TANH", scale=0.11, zero=-20, out=(1 / 128, 0)),
    "hard_swish": lambda: unary("HARD_SWISH"), "hard_swish_wide": lambda: unary("HARD_SWISH", scale=0.2, zero=-60, out=(0.15, -128)),
    "hard_swish_narrow": lambda: unary("HARD_SWISH", scale=0.011, zero=0, out=(0.011, 0)),
    "relu": lambda: unary("RELU"), "relu_same": lambda: unary("RELU", out=(0.05, 3)), "relu6": lambda: unary("RELU6", out=(0.05, 3)),
    "leaky_relu": lambda: unary("LEAKY_RELU", options=o.LeakyReluOptions(alpha=0.3)),
    "leaky_relu_small": lambda: unary("LEAKY_RELU", scale=0.0371, out=(0.0271, 9), options=o.LeakyReluOptions(alpha=0.1)),
    "gelu": lambda: unary("GELU", options=o.GeluOptions()), "gelu_tanh": lambda: unary("GELU", options=o.GeluOptions(approximate=True)),
    "quantize": lambda: unary("QUANTIZE"), "quantize_up": lambda: unary("QUANTIZE", out=(0.012, 30)),
    "reshape": lambda: moved("RESHAPE", (1, 4, 5, 6), (1, 20, 6), [1, 20, 6]), "squeeze": lambda: moved("SQUEEZE", (1, 1, 5, 6), (5, 6)),
    "expand_dims": lambda: moved("EXPAND_DIMS", (1, 5, 6), (1, 1, 5, 6), 1), "transpose": lambda: moved("TRANSPOSE", (1, 4, 5, 6), (1, 6, 4, 5), [0, 3, 1, 2]),
    "split": lambda: moved("SPLIT", (1, 4, 5, 6), (1, 4, 5, 3), first=(3,), outputs=2, options=o.SplitOptions(parts=2)),
    "slice": lambda: moved("SLICE", (1, 4, 5, 6), (1, 2, 5, 3), [0, 1, 0, 2], [1, 2, -1, 3]),
    "strided_slice": lambda: moved("STRIDED_SLICE", (1, 4, 5, 6), (1, 2, 5), [0, 3, 0, 2], [0, 0, 4, 3], [1, -2, 1, 1],
                                   options=o.StridedSliceOptions(begin_mask=1, end_mask=5, shrink_axis_mask=8)),
    "concat": concatenated, "concat_rows": lambda: concatenated(1, shapes=((1, 4, 5, 6), (1, 2, 5, 6), (1, 1, 5, 6))),
    "pad": lambda: padded([[0, 0], [1, 2], [0, 1], [0, 0]]), "pad_value": lambda: padded([[0, 0], [1, 2], [0, 1], [2, 0]], value=77),
    "resize": lambda: resized((8, 10)), "resize_odd": lambda: resized((7, 3)), "resize_align": lambda: resized((7, 9), align=True),
    "resize_half": lambda: resized((9, 4), half=True),
}


def network():
    """Convolution, depthwise convolution, residual sum, pooling, linear layer, softmax, as converters arrange them."""
    g = np.random.default_rng(7)

    def weights(shape, count, axis, scale, source, scales=None):
        scales = g.uniform(0.5, 1.0, scales or count).astype(np.float32) * np.float32(scale)
        bias = T((count,), "int32", scale=np.float32(source) * scales, data=g.integers(-900, 900, count))
        return T(shape, scale=scales, axis=axis, data=g.integers(-127, 128, shape)), bias

    one = o.Conv2DOptions(stride_h=2, stride_w=2, activation=Activation.RELU)
    deep = o.DepthwiseConv2DOptions(stride_h=1, stride_w=1, multiplier=1, activation=SIXTH)
    point = o.Conv2DOptions(stride_h=1, stride_w=1)
    image = (1, 5, 5, 8)
    tensors = [T((1, 9, 9, 2), scale=0.031, zero=-14, name="image"), *weights((8, 3, 3, 2), 8, 0, 0.006, 0.031), T(image, scale=0.043, zero=-128),
               *weights((1, 3, 3, 8), 8, 3, 0.007, 0.043), T(image, scale=6 / 255, zero=-128), *weights((8, 1, 1, 8), 8, 0, 0.009, 6 / 255), T(image, scale=0.05, zero=3),
               T(image, scale=0.06, zero=-40), T((1, 1, 1, 8), scale=0.06, zero=-40), _int([1, 8]), T((1, 8), scale=0.06, zero=-40),
               *weights((6, 8), 6, 0, 0.002, 0.06, 1), T((1, 6), scale=0.02, zero=7, name="logits"), T((1, 6), scale=1 / 256, zero=-128, name="scores")]
    operators = [Op("CONV_2D", (0, 1, 2), (3,), one), Op("DEPTHWISE_CONV_2D", (3, 4, 5), (6,), deep), Op("CONV_2D", (6, 7, 8), (9,), point),
                 Op("ADD", (3, 9), (10,), o.ArithmeticOptions()),
                 Op("AVERAGE_POOL_2D", (10,), (11,), o.Pool2DOptions(padding=Padding.VALID, stride_h=5, stride_w=5, height=5, width=5)),
                 Op("RESHAPE", (11, 12), (13,)), Op("FULLY_CONNECTED", (13, 14, 15), (16,), o.FullyConnectedOptions()),
                 Op("SOFTMAX", (16,), (17,), o.SoftmaxOptions(beta=1.0))]
    return model(tensors, operators, (0,), (16, 17))


def bordered(kind="float32"):
    """A sigmoid between QUANTIZE and DEQUANTIZE, as converters leave them where inputs and outputs stay float, or QUANTIZE alone for uint8."""
    grids = {"scale": 0.05, "zero": 131} if kind == "uint8" else {}
    out = {"scale": 1 / 256, "zero": 0} if kind == "uint8" else {}
    tensors = [T((1, 6), kind, name="in", **grids), T((1, 6), scale=0.05, zero=3), T((1, 6), scale=1 / 256, zero=-128), T((1, 6), kind, name="out", **out)]
    return model(tensors, [Op("QUANTIZE", (0,), (1,)), Op("LOGISTIC", (1,), (2,)), Op("QUANTIZE" if kind == "uint8" else "DEQUANTIZE", (2,), (3,))],
                 (0,), (3,))
