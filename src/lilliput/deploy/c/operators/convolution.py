"""Convolutions in integers, and with them every linear layer: rows of features are pixels of a 1 x 1 convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.arithmetic import Rounding, multipliers_of
from lilliput.deploy.c.operators import sub_byte
from lilliput.deploy.c.operators.base import HIGH, LOW, Buffer, Call, Operator, clip, scales
from lilliput.deploy.c.operators.window import PIXEL, Window

Array = NDArray[Any]


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

    sub_byte: ClassVar[bool] = True

    weights: Array
    bias: Array
    factors: Array
    image: tuple[int, int, int]
    window: Window = PIXEL
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
        return self.window == PIXEL and self.groups == 1

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
            call = Call(kernel=kernel, structure="conv", fields=fields, arrays=arrays)
            return (self._in_blocks(replace(call, kernel="conv_s8", kernels={"kernel": kernel}), "") if self.narrow else call,)
        inner = {f"conv.{key}": array for key, array in arrays.items() if key != "weights"}
        of_filters = {"filter": self.weights[0].size, "tile": self.stored.tile, **self.stored.fields}
        name = self.stored.kernel.removesuffix("_s8")
        call = Call(kernel=self.stored.kernel, structure=name, scratch=True, kernels={"kernel": kernel},
                    fields={f"conv.{key}": value for key, value in fields.items()} | of_filters, arrays=inner | dict(self.stored.arrays))
        return (self._in_blocks(call, f"{name}.") if self.narrow else call,)

    def _in_blocks(self, call: Call, prefix: str) -> Call:
        """The call over sub-byte codes, whose member for the kernel of int8 is called `PREFIXkernel`."""
        fields = sub_byte.members("blocks.in", self.inputs[0]) | sub_byte.members("blocks.out", self.output)
        count, (before, _) = self._block()
        found = sub_byte.inside(call, fields | {"blocks.columns": count, "blocks.behind": before}, "conv_blocks")
        return replace(found, kernels={f"{prefix}kernel": call.kernels["kernel"]}, scratch=True)

    def _block(self) -> tuple[int, tuple[int, int]]:
        """Pixels of a row at a time, and the bytes of scratch memory that they take."""
        channels = self.weights.shape[0]
        count = min(sub_byte.columns(self.window, self.image, channels), self.window.size(*self.image[:2])[1])
        return count, sub_byte.sizes(self.window, self.image, channels, count)

    def on(self, buffers: Mapping[Buffer, Buffer]) -> Self:
        """The same step, with scratch memory for its blocks behind that for its weights where a buffer is narrow now."""
        step = super().on(buffers)
        if not step.narrow or self.narrow:
            return step
        before = 0 if step.scratch is None else -(-step.scratch.size // 4) * 4
        scratch = Buffer(name=f"{step.output.name}.blocks", shape=(before + sum(step._block()[1]),), scale=1.0, zero=0)
        return replace(step, scratch=scratch)

    def undivided(self) -> Self:
        """The same step with all of its stored weights decoded at once."""
        assert self.stored is not None
        assert self.scratch is not None
        sizes = [-(-count * self.weights[0].size // 4) * 4 for count in (self.stored.tile, self.weights.shape[0])]
        scratch = replace(self.scratch, shape=(self.scratch.size + sizes[1] - sizes[0],))
        return replace(self, stored=replace(self.stored, tile=self.weights.shape[0]), scratch=scratch)

    def span(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """What its activation leaves."""
        del spans
        return self.low, self.high

    def lag(self, index: int) -> int | None:
        """Pixel after pixel, or block after block; with stored weights some filters of all pixels after the others: the image stays whole.

        Where all filters are decoded at once, the order is that of pixels again.
        """
        del index
        if self.stored is not None and self.stored.tile < self.weights.shape[0]:
            return None
        if self.narrow:
            return sub_byte.block_lag(self.window, self.image, self.inputs[0], self.output)
        return self.window.lag(self.image, self.weights.shape[0])

    @property
    def grain(self) -> int:
        """A pixel of the output; blocks are read as a whole."""
        return 0 if self.narrow else int(self.weights.shape[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class TransposedConvolution(Operator):
    """`out[s i + k - p] += x[i] w[k]`, then rescaled: weights `(O, kh, kw, C)`, image `(H, W, C)`."""

    weights: Array
    bias: Array
    factors: Array
    image: tuple[int, int, int]
    window: Window = PIXEL
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

    def span(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """What its activation leaves."""
        del spans
        return self.low, self.high

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
