"""Binary networks run in bits: convolution, pooling, and `sign(normalize(x))` folded to one integer comparison a channel.

A layer's accumulator is an integer `x`, and `normalize` (batch norm, scale, bias, in any order) is monotone in it, in
floating point too, because rounding is monotone. So `sign(normalize(x))` changes at most once over the integers that can
occur, and `(x >= t) xor flip` equals it everywhere (courbariaux2016bnn). Between layers there are only bits.

XNOR-Net's scales of the weights are part of `normalize`; its scale of the activations depends on the image and place and
cannot be folded, so networks with it do not fit here (rastegari2016xnor).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lilliput.core.convolution import Window, convolve_binary, convolve_low
from lilliput.core.errors import DataError, PreconditionError
from lilliput.core.kernels import LowWeights
from lilliput.core.signs import LARGEST, Instructions, Signs, Thresholds, pack_signs

Normalize = Callable[[NDArray[np.float32]], NDArray[np.floating]]
"""Accumulators `(channels)` to the values whose sign the network takes, monotone in each channel."""

Input = Signs | NDArray[np.int8] | NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchNorm:
    """`y = fma(x, s, fma(-mean, s, beta))` with `s = gamma / sqrt(variance + epsilon)`, all `(channels)`, in float32.

    This is how torch evaluates batch norm on processors with a fused multiply-add; `y` keeps its exact sign, as there. For
    another evaluation pass the network's own function to `fold` instead.
    """

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    gamma: NDArray[np.float32]
    beta: NDArray[np.float32]
    epsilon: float = 1e-5

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The normalized values; float64 holds the product of two float32 exactly."""
        scale = (1 / np.sqrt(self.variance + np.float32(self.epsilon)) * self.gamma).astype(np.float32).astype(np.float64)
        shift = (self.beta - self.mean.astype(np.float64) * scale).astype(np.float32)
        y: NDArray[np.float64] = x.astype(np.float64) * scale + shift
        return y


def fold(normalize: Normalize, channels: int, reach: int) -> Thresholds:
    """The thresholds with `(x >= least) xor flip  <=>  normalize(x) >= 0` for all integers `-reach <= x <= reach`.

    `reach` is the largest accumulator, the sum of a row's magnitudes: the columns for signs, 255 times that for uint8 inputs.
    A negative slope flips the comparison; a slope of zero makes the channel constant. Raises `PreconditionError` where
    `normalize` changes the shape, `DataError` where it yields NaN.
    """
    if channels < 0 or not 0 <= reach < 2**24:
        raise PreconditionError(f"float32 counts in ones up to 2^24, and {channels} accumulators reach {reach}: split the layer")

    def positive(x: NDArray[np.int64]) -> NDArray[np.bool_]:
        y = np.asarray(normalize(x.astype(np.float32)))
        if y.shape != x.shape:
            raise PreconditionError(f"normalize took accumulators {x.shape} to {y.shape}: it must act on each channel by itself")
        if np.isnan(y).any():
            raise DataError("the normalization yields NaN: look for a negative variance")
        return y >= 0

    low, high = np.full(channels, -reach, np.int64), np.full(channels, reach + 1, np.int64)
    first = positive(low)
    # The sign is `first` at `low` and the other at `high`, taken as changed just out of reach: halve until they are neighbours.
    while (high - low > 1).any():
        middle = (low + high) // 2
        same = positive(middle) == first
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return Thresholds(high.astype(np.int32), first)


def kernel_signs(weights: ArrayLike) -> Signs:
    """Signs of weights `(O, C, h, w)`, torch's order, packed as `(O, h, w, C)`.

    A linear layer after a flattened image `(C, H, W)` is a convolution whose kernel is the image: pass its weights reshaped to
    `(O, C, H, W)`, and those of any other linear layer as `(O, C, 1, 1)`. Raises `PreconditionError` for other ranks.
    """
    array = np.asarray(weights)
    if array.ndim != 4:
        raise PreconditionError(f"weights are (O, C, h, w), not {array.shape}: reshape those of a linear layer to (O, C, 1, 1)")
    return pack_signs(np.moveaxis(array, 1, -1))


@dataclass(frozen=True, kw_only=True, eq=False)
class BinaryLayer:
    """Convolution of signs, largest value of each `pool` x `pool` square, comparison; without thresholds the sums are scores."""

    weights: Signs
    thresholds: Thresholds | None = None
    window: Window = field(default_factory=Window)
    pool: int = 1

    @property
    def reach(self) -> int:
        """The largest accumulator, for `fold`."""
        return int(np.prod(self.weights.shape[1:]))

    def sums(self, x: Input, instructions: Instructions | None) -> NDArray[np.int32]:
        """The convolution of signs `(N, H, W, C)`, or of vectors `(N, C)` as images of one pixel."""
        if not isinstance(x, Signs):
            raise PreconditionError(f"a binary layer takes Signs, not {x.dtype}: use pack_signs, or begin with a PixelLayer")
        images = x if x.words.ndim != 2 else Signs(x.words[:, None, None, :], x.columns)
        return convolve_binary(images, self.weights, self.window, instructions=instructions)


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelLayer:
    """The same with bytes `(N, H, W, C)` as input, for a first layer that sees 8-bit images; weights of 1, 2 or 4 bits."""

    weights: LowWeights
    kernel: tuple[int, int]
    thresholds: Thresholds | None = None
    window: Window = field(default_factory=Window)
    pool: int = 1

    @property
    def reach(self) -> int:
        """A bound on the accumulator, for `fold`: the widest weight times the widest byte times the columns."""
        return self.weights.columns * 255 * {1: 1, 2: 2, 4: 8}[self.weights.bits]

    def sums(self, x: Input, instructions: Instructions | None) -> NDArray[np.int32]:
        """The convolution."""
        if isinstance(x, Signs):
            raise PreconditionError("a pixel layer takes int8 or uint8 images, not Signs: put it first, or use a BinaryLayer")
        return convolve_low(x, self.weights, self.kernel, self.window, instructions=instructions)


class BinaryNetwork:
    """Layers run one after the other; all but the last have thresholds, and what passes between them is bits."""

    def __init__(self, layers: Sequence[BinaryLayer | PixelLayer], instructions: Instructions | None = None) -> None:
        """Raises `PreconditionError` where a layer lacks thresholds, or the last one has them."""
        self.layers, self.instructions = tuple(layers), instructions
        if [layer.thresholds is None for layer in self.layers] != [False] * (len(self.layers) - 1) + [True]:
            raise PreconditionError("a binary network has layers, all with thresholds but the last, whose sums are the scores")
        if any(not 1 <= layer.pool <= LARGEST for layer in self.layers):
            raise PreconditionError("the side of a pooling square is at least 1")

    def activations(self, images: Input) -> Iterator[Signs | NDArray[np.int32]]:
        """What every layer yields: signs `(N, H, W, C)`, and from the last integers `(N, H, W, classes)`."""
        x = images
        for layer in self.layers:
            sums = _pooled(layer.sums(x, self.instructions), layer.pool)
            if layer.thresholds is None:
                yield sums
            else:
                x = layer.thresholds(sums, instructions=self.instructions)
                yield x

    def __call__(self, images: Input) -> NDArray[np.int32]:
        """Scores `(N, classes)`, or `(N, H, W, classes)` where the last layer leaves more than one place."""
        *_, scores = self.activations(images)
        assert isinstance(scores, np.ndarray)
        return scores[:, 0, 0] if scores.shape[1:3] == (1, 1) else scores


def _pooled(sums: NDArray[np.int32], side: int) -> NDArray[np.int32]:
    """The largest of each square, squares side by side; what does not fill one is left out, as in torch."""
    n, height, width, channels = sums.shape
    if side == 1:
        return sums
    rows, columns = height // side, width // side
    if not rows or not columns:
        raise PreconditionError(f"a square of {side} x {side} does not fit into {height} x {width}: take a smaller pool")
    squares = sums[:, :rows * side, :columns * side].reshape(n, rows, side, columns, side, channels)
    largest: NDArray[np.int32] = squares.max((2, 4))
    return largest
