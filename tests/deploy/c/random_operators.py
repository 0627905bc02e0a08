"""Random integer operators for tests of kernels, and programs of many operators that have nothing to do with each other."""

import numpy as np

from lilliput.deploy.c.operators import (
    Add,
    AveragePool,
    Buffer,
    Convolution,
    Copy,
    MatMul,
    MaxPool,
    Move,
    Multiply,
    Normalisation,
    Softmax,
    Table,
    TransposedConvolution,
    Window,
)
from lilliput.deploy.c.plan import ALIGNMENT, Plan
from lilliput.deploy.c.plan.overlap import Overlap
from lilliput.deploy.c.program import Port, Program


def _pick(rng, *choices):
    return choices[rng.integers(len(choices))]


def _zero(rng):
    return int(_pick(rng, 0, -128, 127, rng.integers(-128, 128)))


def _buffer(rng, name, shape):
    return Buffer(name=name, shape=tuple(int(n) for n in shape), scale=float(2.0 ** rng.uniform(-9, 1)), zero=_zero(rng))


def _limits(rng, zero):
    """Those of no activation, of a ReLU, and of one with an upper limit."""
    return _pick(rng, {}, {"low": zero}, {"low": zero, "high": int(rng.integers(zero, 128))})


def _window(rng, image, *, dilated=True):
    """A window of which at least one position exists, and every position covers a pixel."""
    while True:
        kernel = _pick(rng, (3, 3), (3, 3), (1, 1), tuple(rng.integers(1, 6, 2)), (1, int(rng.integers(1, 8))), (int(rng.integers(1, 8)), 1))
        dilation = _pick(rng, (1, 1), (1, 1), tuple(rng.integers(1, 4, 2))) if dilated else (1, 1)
        stride = _pick(rng, (1, 1), (2, 2), tuple(rng.integers(1, 4, 2)))
        pads = [int(rng.integers(0, size)) for size in (*kernel, *kernel)]
        if rng.random() < 0.5:
            pads = [(size - 1) // 2 for size in kernel] * 2
        window = Window(kernel=_whole(kernel), stride=_whole(stride), dilation=_whole(dilation), pads=tuple(pads))
        if min(window.size(*image[:2])) >= 1 and window.patches(np.ones(image, np.int64), 0).sum((2, 3)).min() >= 1:
            return window


def _whole(pair):
    return tuple(int(n) for n in pair)


def _image(rng, channels):
    return int(rng.integers(1, 9)), int(rng.integers(1, 9)), int(channels)


def _layer(rng, weights):
    """What a layer with these weights has besides: biases, and factors that spread its sums over all codes, some far from that."""
    filters, taps = weights.shape[0], int(np.prod(weights.shape[1:]))
    spread = 74.0 * 74.0 * np.sqrt(taps)
    factors = _pick(rng, 1.0, 1.0, 1.0, 0.02, 30.0) * rng.uniform(10, 120, filters) / spread
    if rng.random() < 0.1:
        factors[rng.integers(filters)] = _pick(rng, 0.0, 2.0**-31, 1.0, 0.5)
    return {"bias": np.rint(rng.normal(0, spread, filters)).astype(np.int64), "factors": factors, "weights": weights}


def _codes(rng, *shape):
    if rng.random() < 0.15:
        return rng.choice(np.array([-128, 127], np.int64), shape)
    return rng.integers(-128, 128, shape)


def _convolved(rng, name, image, filters, window, groups=1):
    weights = _codes(rng, filters, *window.kernel, image[2] // groups)
    source, out = _buffer(rng, f"{name}_in", image), _buffer(rng, name, (*window.size(*image[:2]), filters))
    return Convolution(inputs=(source,), output=out, layer=name, image=image, window=window, groups=groups, **_layer(rng, weights),
                       **_limits(rng, out.zero))


def convolution(rng, name):
    """Of one group, mostly 3 x 3."""
    image = _image(rng, _pick(rng, 1, 2, 3, 4, 8, 16, 20, rng.integers(1, 24)))
    return _convolved(rng, name, image, int(_pick(rng, 8, rng.integers(1, 14))), _window(rng, image))


def grouped(rng, name):
    """Groups of channels, depthwise with several filters to a channel among them."""
    groups = int(rng.integers(2, 5))
    image = _image(rng, groups * rng.integers(1, 7))
    return _convolved(rng, name, image, groups * int(rng.integers(1, 5)), _window(rng, image), groups)


def depthwise(rng, name):
    """A filter for every channel."""
    image = _image(rng, _pick(rng, 8, 16, rng.integers(2, 40)))
    return _convolved(rng, name, image, image[2], _window(rng, image), image[2])


def pointwise(rng, name):
    """1 x 1."""
    image = _image(rng, _pick(rng, 4, 8, 32, rng.integers(1, 70)))
    return _convolved(rng, name, image, int(_pick(rng, 8, rng.integers(1, 20))), Window())


def linear(rng, name):
    """One pixel of many channels."""
    image = (1, int(_pick(rng, 1, 1, rng.integers(1, 4))), int(rng.integers(1, 400)))
    return _convolved(rng, name, image, int(rng.integers(1, 14)), Window())


def transposed(rng, name):
    """A transposed convolution."""
    image = _image(rng, rng.integers(1, 12))
    kernel, stride = _whole(rng.integers(1, 5, 2)), _whole(rng.integers(1, 4, 2))
    dilation = _pick(rng, (1, 1), _whole(rng.integers(1, 3, 2)))
    pads = tuple(int(rng.integers(0, (k - 1) * d + 1)) // 2 for k, d in zip(kernel * 2, dilation * 2, strict=True))
    size = [(n - 1) * s + (k - 1) * d + 1 - a - b for n, s, k, d, a, b in zip(image[:2], stride, kernel, dilation, pads[:2], pads[2:], strict=True)]
    filters = int(rng.integers(1, 10))
    source, out = _buffer(rng, f"{name}_in", image), _buffer(rng, name, (*size, filters))
    return TransposedConvolution(inputs=(source,), output=out, layer=name, image=image, **_layer(rng, _codes(rng, filters, *kernel, image[2])),
                                 window=Window(kernel=kernel, stride=stride, dilation=dilation, pads=pads), **_limits(rng, out.zero))


def _like(buffer, name, shape):
    return Buffer(name=name, shape=tuple(shape), scale=buffer.scale, zero=buffer.zero)


def pool(rng, name):
    """The largest code or the mean of a window, the mean on equal and on other grids."""
    image = _image(rng, rng.integers(1, 24))
    window = _window(rng, image, dilated=False)
    kind = int(rng.integers(4))
    if kind == 3:
        window = Window(kernel=image[:2])
    source = _buffer(rng, f"{name}_in", image)
    shape = (*window.size(*image[:2]), image[2])
    other = Buffer(name=name, shape=shape, scale=source.scale * rng.uniform(0.3, 3), zero=_zero(rng))
    out = _like(source, name, shape) if kind < 2 else other
    common = {"inputs": (source,), "output": out, "layer": name, "image": image, "window": window, **_limits(rng, out.zero)}
    return MaxPool(**common) if kind == 0 else AveragePool(**common, whole=bool(rng.random() < 0.3))


def binary(rng, name):
    """Sums, differences and products, of equal shapes or with a second tensor that repeats."""
    shape = (int(rng.integers(1, 40)), int(rng.integers(1, 20)))
    a, b = _buffer(rng, f"{name}_a", shape), _buffer(rng, f"{name}_b", _pick(rng, shape, shape, shape[1:], (1,)))
    add = rng.random() < 0.6
    scale = (max(a.scale, b.scale) if add else a.scale * b.scale * 100) * rng.uniform(0.5, 2)
    out = Buffer(name=name, shape=shape, scale=float(scale), zero=_zero(rng))
    common = {"inputs": (a, b), "output": out, "layer": name, **_limits(rng, out.zero)}
    return Add(**common, sign=_pick(rng, 1, 1, -1)) if add else Multiply(**common)


def table(rng, name):
    """Any function of a code."""
    shape = (int(rng.integers(1, 300)),)
    return Table(inputs=(_buffer(rng, f"{name}_in", shape),), output=_buffer(rng, name, shape), layer=name, table=rng.integers(-128, 128, 256))


def softmax(rng, name):
    """Over rows of 1 to 60 elements."""
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 60)))
    return Softmax(inputs=(_buffer(rng, f"{name}_in", shape),), output=Buffer(name=name, shape=shape, scale=1 / 256, zero=-128), layer=name)


def matmul(rng, name):
    """Of two activations, each transposed or not."""
    batch, rows, inner, columns = shape = _whole(rng.integers(1, [4, 10, 40, 10]))
    a, b = _buffer(rng, f"{name}_a", (batch, rows * inner)), _buffer(rng, f"{name}_b", (batch, inner * columns))
    out = Buffer(name=name, shape=(batch, rows, columns), scale=float(a.scale * b.scale * 74 * 74 * np.sqrt(inner) / rng.uniform(10, 120)), zero=_zero(rng))
    return MatMul(inputs=(a, b), output=out, layer=name, shape=shape, strides_a=(rows * inner, *_pick(rng, (inner, 1), (inner, 1), (1, rows))),
                  strides_b=(inner * columns, *_pick(rng, (columns, 1), (1, inner))), **_limits(rng, out.zero))


def normalisation(rng, name):
    """Layer and root-mean-square normalisation."""
    rows, depth = int(rng.integers(1, 5)), int(rng.integers(1, 70))
    out = Buffer(name=name, shape=(rows, depth), scale=float(rng.uniform(0.01, 0.1)), zero=_zero(rng))
    return Normalisation(inputs=(_buffer(rng, f"{name}_in", (rows, depth)),), output=out, layer=name, gamma=rng.normal(0, 1, depth),
                         beta=rng.normal(0, 1, depth), epsilon=float(10.0 ** rng.uniform(-8, -3)), centred=bool(rng.random() < 0.7))


def move(rng, name):
    """A tensor turned, or padded, or through a table."""
    shape = rng.integers(1, 6, 4)
    strides_in = np.append(np.cumprod(shape[::-1])[-2::-1], 1)
    order, margin = rng.permutation(4), rng.integers(0, 3, 4)
    sizes = shape[order] + margin
    strides_out = np.append(np.cumprod(sizes[::-1])[-2::-1], 1)
    lookup = rng.integers(-128, 128, 256) if rng.random() < 0.4 else None
    copy = Copy(source=0, shape=_whole(shape[order]), strides_in=_whole(strides_in[order]), strides_out=_whole(strides_out), table=lookup,
                offset_out=int(strides_out @ (margin // 2)))
    return Move(inputs=(_buffer(rng, f"{name}_in", shape),), output=_buffer(rng, name, sizes), layer=name, copies=(copy,),
                fill=_zero(rng))


KINDS = (convolution, pointwise, depthwise, convolution, linear, grouped, transposed, pool, binary, convolution, table, softmax, depthwise, pool,
         matmul, pointwise, normalisation, binary, move, convolution)


def operators(count, seed=0, kinds=KINDS):
    """So many operators, kind after kind."""
    rng = np.random.default_rng(seed)
    return [kind(rng, f"{kind.__name__}_{seed}_{i}") for i, kind in zip(range(count), kinds * (count // len(kinds) + 1), strict=False)]


def program(steps, **options):
    """A program of steps that share nothing, every one's inputs the program's own and its output too."""
    inputs = tuple(_port(buffer) for step in steps for buffer in step.inputs)
    return Program(inputs=inputs, outputs=tuple(_port(step.output) for step in steps), steps=tuple(steps), **options)


def _port(buffer):
    return Port(name=buffer.name, buffer=buffer, positions=np.arange(buffer.size).reshape(1, *buffer.shape))


def side_by_side(made, pixels_at_once=2):
    """A plan in which only an input and an output of a step share memory, as closely as kernels of so many pixels at once may.

    Steps lie one after the other, so that what a kernel writes too much falls on inputs of the next.
    """
    share, offsets, end = Overlap(pixels_at_once=pixels_at_once), {}, 0
    for step in made.steps:
        offsets[step.output] = start = end
        end += step.output.size
        lags = share(step)
        for buffer in step.inputs:
            # One of them at most: they may not share memory with each other.
            offsets[buffer] = start + lags[buffer] if buffer in lags and buffer is min(lags, key=lags.__getitem__) else end
            offsets[buffer] = -(-offsets[buffer] // ALIGNMENT) * ALIGNMENT
            end = max(end, offsets[buffer] + buffer.size)
        if step.scratch is not None:
            offsets[step.scratch] = -(-end // ALIGNMENT) * ALIGNMENT
            end = offsets[step.scratch] + step.scratch.size
        end = -(-end // ALIGNMENT) * ALIGNMENT
    return Plan(program=made, offsets=offsets, arena=end, bound=end)


def samples(made, count=2, seed=0):
    """Inputs of a program: any codes first, the least and largest codes next, and so on."""
    rng = np.random.default_rng(seed)
    return [[rng.choice(np.array([-128, 127], np.int8), port.buffer.shape) if i % 2 else rng.integers(-128, 128, port.buffer.shape, dtype=np.int8)
             for port in made.inputs] for i in range(count)]


def wrong(made, found, given):
    """For every step with a code that differs from the reference: its layer and how many of them, over all samples."""
    counts = {}
    for sample, outputs in zip(given, found, strict=True):
        for step, want, codes in zip(made.steps, made(*sample), outputs, strict=True):
            differ = int((want.reshape(-1) != np.asarray(codes).reshape(-1)).sum())
            if differ:
                counts[step.layer] = counts.get(step.layer, 0) + differ
    return counts
