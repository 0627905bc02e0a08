"""Convolutions in integers, and with them every linear layer: rows of features are pixels of a 1 x 1 convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.arithmetic import Rounding, multipliers_of
from lilliput.deploy.c.operators.base import HIGH, LOW, Call, Operator, clip, scales

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a window moves over an image: kernel, stride and dilation as (height, width), padding as (top, left, bottom, right).

    Negative padding leaves rows or columns of the image out.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output."""
        sizes = zip((height, width), self.kernel, self.stride, self.dilation, self.pads[:2], self.pads[2:], strict=True)
        rows, columns = ((n + before + after - (k - 1) * d - 1) // s + 1 for n, k, s, d, before, after in sizes)
        return rows, columns

    def fields(self) -> dict[str, int]:
        """The members that every structure with a window has."""
        return {"kernel_h": self.kernel[0], "kernel_w": self.kernel[1], "stride_h": self.stride[0], "stride_w": self.stride[1],
                "pad_top": self.pads[0], "pad_left": self.pads[1]}

    def patches(self, image: Array, fill: int) -> Array:
        """Windows `(out_h, out_w, kernel_h, kernel_w, C)` of an image `(H, W, C)`, `fill` outside of it."""
        rows, columns = self.size(*image.shape[:2])
        top, left, bottom, right = (max(pad, 0) for pad in self.pads)
        padded = np.pad(image, ((top, bottom), (left, right), (0, 0)), constant_values=fill)
        padded = padded[max(-self.pads[0], 0):, max(-self.pads[1], 0):]
        i = np.arange(rows)[:, None] * self.stride[0] + np.arange(self.kernel[0])[None] * self.dilation[0]
        j = np.arange(columns)[:, None] * self.stride[1] + np.arange(self.kernel[1])[None] * self.dilation[1]
        found: Array = padded[i[:, None, :, None], j[None, :, None, :]]
        return found

    def lag(self, image: tuple[int, int, int], channels: int) -> int:
        """The least lag of an image `(H, W, C)` behind an output of so many channels that is written pixel after pixel.

        While pixel `p` is written, everything that its window and those of later pixels cover is still there.
        """
        height, width, depth = image
        rows, columns = self.size(height, width)
        first = np.maximum(np.arange(rows) * self.stride[0] - self.pads[0], 0)
        left = np.maximum(np.arange(columns) * self.stride[1] - self.pads[1], 0)
        needed = (first[:, None] * width + left[None]) * depth
        # Later rows may begin left of this one's window.
        later = np.append(first[1:] * width * depth, height * width * depth)
        needed = np.minimum(needed, later[:, None])
        written = (np.arange(rows * columns).reshape(rows, columns) + 1) * channels
        return max(int((written - needed).max()), 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """Weights in another form than int8: the kernel that decodes `tile` filters at a time, its arrays and its fields."""

    kernel: str
    arrays: Mapping[str, Array]
    fields: Mapping[str, int]
    tile: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(Operator):
    """`out = clip(round(M_o (b_o + sum (x - z) w_o)) + z_out)`, an image `(H, W, C)` with weights `(O, kh, kw, C / groups)`.

    Per-channel multipliers; what lies outside the image counts as the zero point. (jacob2018quantization)
    """

    weights: Array
    bias: Array
    factors: Array
    image: tuple[int, int, int]
    window: Window = Window()
    groups: int = 1
    low: int = LOW
    high: int = HIGH
    stored: Stored | None = None

    @property
    def depthwise(self) -> bool:
        """Whether every channel has a filter of its own."""
        return self.groups == self.image[2] == self.weights.shape[0] and self.groups > 1

    @property
    def pointwise(self) -> bool:
        """Whether a window is one pixel, so that the image is a list of pixels."""
        return self.window == Window() and self.groups == 1

    @cached_property
    def folded(self) -> Array:
        """`b - z sum(w)`, so that sums are over codes; int32."""
        sums = self.weights.reshape(self.weights.shape[0], -1).astype(np.int64).sum(1)
        folded = self.bias.astype(np.int64) - self.inputs[0].zero * sums
        wrapped: Array = (folded.astype(np.uint64) & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
        return wrapped

    @property
    def macs(self) -> int:
        """Multiplications, those with padding included."""
        rows, columns = self.window.size(*self.image[:2])
        return rows * columns * self.weights.size

    @property
    def weight_bytes(self) -> int:
        """Weights, as they are stored, and biases."""
        size = self.weights.size if self.stored is None else sum(array.nbytes for array in self.stored.arrays.values())
        return size + 4 * self.bias.size

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        x = arrays[0].reshape(self.image).astype(np.int64) - self.inputs[0].zero
        patches = self.window.patches(x, 0)
        rows, columns, filters = *patches.shape[:2], self.weights.shape[0]
        split = patches.reshape(rows * columns, -1, self.groups, self.image[2] // self.groups).transpose(2, 0, 1, 3)
        kernels = self.weights.reshape(self.groups, filters // self.groups, -1)
        # Whole numbers below 2^53: the product in float64 is exact.
        sums = np.matmul(split.reshape(self.groups, rows * columns, -1).astype(np.float64), kernels.transpose(0, 2, 1).astype(np.float64))
        sums = sums.transpose(1, 0, 2).reshape(-1, filters).astype(np.int64) + self.bias
        return clip(rounding(sums, *multipliers_of(self.factors)) + self.output.zero, self.low, self.high).reshape(self.output.shape)

    def calls(self) -> tuple[Call, ...]:
        """`lp_pointwise_s8`, `lp_depthwise_s8` or `lp_conv_s8`."""
        weights = self.weights.astype(np.int8)
        if self.depthwise:
            weights = weights.reshape(self.groups, -1).T  # (kh * kw, C)
        fields = {**_fields(self, self.window.size(*self.image[:2])), "groups": self.groups}
        arrays = {"weights": weights, "bias": self.folded, **scales(self.factors)}
        kernel = "pointwise_s8" if self.pointwise else "depthwise_s8" if self.depthwise else "conv_s8"
        if self.stored is None:
            return (Call(kernel=kernel, structure="conv", fields=fields, arrays=arrays),)
        inner = {f"conv.{key}": array for key, array in arrays.items() if key != "weights"}
        of_filters = {"filter": self.weights[0].size, "tile": self.stored.tile, **self.stored.fields}
        return (Call(kernel=self.stored.kernel, structure=self.stored.kernel.removesuffix("_s8"), scratch=True, kernels={"kernel": kernel},
                     fields={f"conv.{key}": value for key, value in fields.items()} | of_filters, arrays=inner | dict(self.stored.arrays)),)

    def lag(self, index: int) -> int | None:
        """Pixel after pixel; with stored weights some filters of all pixels after the others, so that the image stays whole."""
        del index
        return self.window.lag(self.image, self.weights.shape[0]) if self.stored is None else None

    @property
    def grain(self) -> int:
        """A pixel of the output."""
        return int(self.weights.shape[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class TransposedConvolution(Operator):
    """`out[s i + k - p] += x[i] w[k]`, then rescaled: weights `(O, kh, kw, C)`, image `(H, W, C)`."""

    weights: Array
    bias: Array
    factors: Array
    image: tuple[int, int, int]
    window: Window = Window()
    low: int = LOW
    high: int = HIGH

    @property
    def macs(self) -> int:
        """Multiplications, those that fall outside included."""
        return self.image[0] * self.image[1] * self.weights.size

    @property
    def weight_bytes(self) -> int:
        """Weights and biases."""
        return self.weights.size + 4 * self.bias.size

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        x = arrays[0].reshape(self.image).astype(np.int64) - self.inputs[0].zero
        (rows, columns), filters = self.output.shape[:2], self.weights.shape[0]
        (sh, sw), (top, left) = self.window.stride, self.window.pads[:2]
        total = np.zeros((rows, columns, filters), np.int64)
        for a in range(self.window.kernel[0]):
            for b in range(self.window.kernel[1]):
                part = np.einsum("ijc,oc->ijo", x, self.weights[:, a, b].astype(np.int64))
                i = np.arange(x.shape[0]) * sh + a * self.window.dilation[0] - top
                j = np.arange(x.shape[1]) * sw + b * self.window.dilation[1] - left
                inside_i, inside_j = (i >= 0) & (i < rows), (j >= 0) & (j < columns)
                total[np.ix_(i[inside_i], j[inside_j])] += part[np.ix_(inside_i, inside_j)]
        codes = rounding(total + self.bias, *multipliers_of(self.factors)) + self.output.zero
        return clip(codes, self.low, self.high).reshape(self.output.shape)

    def calls(self) -> tuple[Call, ...]:
        """`lp_transposed_conv_s8`."""
        fields = {**_fields(self, self.output.shape[:2]), "groups": 1}
        arrays: dict[str, Array] = {"weights": self.weights.astype(np.int8), "bias": self.bias.astype(np.int32), **scales(self.factors)}
        return (Call(kernel="transposed_conv_s8", structure="conv", fields=fields, arrays=arrays),)


def _fields(step: Convolution | TransposedConvolution, size: tuple[int, ...]) -> dict[str, int]:
    """The members of `lp_conv` that both kinds have, for an output of that height and width."""
    return {"in_h": step.image[0], "in_w": step.image[1], "in_c": step.image[2], "out_h": size[0], "out_w": size[1],
            "out_c": len(step.weights), "out_stride": len(step.weights), "dilation_h": step.window.dilation[0],
            "dilation_w": step.window.dilation[1], "in_zero": step.inputs[0].zero, "out_zero": step.output.zero, "low": step.low,
            "high": step.high, **step.window.fields()}
