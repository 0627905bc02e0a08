"""Operators that take each element by itself, and softmax and means."""

from __future__ import annotations

import numpy as np

from lilliput.deploy.tflite import options
from lilliput.deploy.tflite.builder import Builder

# LiteRT's operator, and ONNX's where it has one of the same meaning.
FUNCTIONS = {"LOGISTIC": "Sigmoid", "TANH": "Tanh", "HARD_SWISH": "HardSwish", "RELU": "Relu", "LEAKY_RELU": "LeakyRelu", "GELU": "Gelu"}
CLIPS = {"RELU6": options.Activation.RELU6, "RELU_N1_TO_1": options.Activation.RELU_N1_TO_1}
_BINARY = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul"}


def binary(b: Builder) -> None:
    """ADD, SUB and MUL, in whichever order of axes their operands already are."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.ArithmeticOptions)
    x, y, out = b.tensor(0), b.tensor(1), b.tensor(0, output=True)
    first = len(out.shape) == 4 and x.shape == y.shape and b.has_first(x) and b.has_first(y)
    found = b.node(_BINARY[b.operator.kind], [b.real(x, first), b.real(y, first)])
    b.give(out, b.limited(found, o.activation, out), first)


def function(b: Builder) -> None:
    """A function of one element. TensorFlow Lite Micro has no GELU; LiteRT's exact one is a step off the correctly rounded at some codes."""
    assert b.operator is not None
    x, out, o = b.tensor(0), b.tensor(0, output=True), b.operator.options
    first = b.has_first(x)
    source = b.real(x, first)
    if b.operator.kind in CLIPS:
        found = b.limited(source, CLIPS[b.operator.kind], out)
    else:
        attributes: dict[str, float | str] = {}
        if isinstance(o, options.LeakyReluOptions):
            attributes = {"alpha": o.alpha}
        elif isinstance(o, options.GeluOptions):
            attributes = {"approximate": "tanh" if o.approximate else "none"}
        found = b.node(FUNCTIONS[b.operator.kind], [source], attributes=attributes)
    b.give(out, found, first)


def requantize(b: Builder) -> None:
    """QUANTIZE from int8 to another grid of int8."""
    x, out = b.tensor(0), b.tensor(0, output=True)
    first = b.has_first(x)
    b.give(out, b.real(x, first), first)


def softmax(b: Builder) -> None:
    """SOFTMAX over the last axis."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.SoftmaxOptions)
    if o.beta != 1.0:
        raise b.refused(f"has beta {o.beta}", "fold it into the scale of what it reads")
    b.give(b.tensor(0, output=True), b.node("Softmax", [b.real(b.tensor(0))], attributes={"axis": -1}))


def mean(b: Builder) -> None:
    """MEAN over some axes."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.ReducerOptions)
    x, out = b.tensor(0), b.tensor(0, output=True)
    rank = len(x.shape)
    axes = b.whole_numbers(1)
    if not axes or any(not -rank <= axis < rank for axis in axes):
        raise b.corrupt(f"takes the mean of {rank} axes over {axes}")
    axes = sorted({axis % rank for axis in axes})
    b.give(out, b.node("ReduceMean", [b.real(x), b.constant(np.array(axes, np.int64), "axes")], attributes={"keepdims": int(o.keep_dims)}))
