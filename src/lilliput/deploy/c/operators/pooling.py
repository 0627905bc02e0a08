"""Windows without weights: the mean and the largest of a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.arithmetic import Rounding, divide, multiplier_of, multipliers_of
from lilliput.deploy.c.operators import sub_byte
from lilliput.deploy.c.operators.base import HIGH, LOW, Call, Operator, clip
from lilliput.deploy.c.operators.window import Window

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool(Operator):
    """A window over an image `(H, W, C)`, every channel by itself."""

    sub_byte: ClassVar[bool] = True

    image: tuple[int, int, int]
    window: Window
    low: int = LOW
    high: int = HIGH

    def _fields(self) -> dict[str, int]:
        rows, columns = self.window.size(*self.image[:2])
        return {"in_h": self.image[0], "in_w": self.image[1], "channels": self.image[2], "out_h": rows, "out_w": columns,
                "in_zero": self.inputs[0].zero, "out_zero": self.output.zero, "low": self.low, "high": self.high, **self.window.fields()}

    def lag(self, index: int) -> int | None:
        """Pixel after pixel."""
        del index
        if self.narrow:
            return sub_byte.pixel_lag(self.window, self.image, self.inputs[0], self.output)
        return self.window.lag(self.image, self.image[2])

    @property
    def grain(self) -> int:
        """A pixel; of sub-byte codes one is computed at a time."""
        return 0 if self.narrow else self.image[2]

    def span(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """What its activation leaves."""
        del spans
        return self.low, self.high


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(Pool):
    """The largest code of the window's part inside the image."""

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        del rounding
        codes = self.window.patches(arrays[0].reshape(self.image), LOW - 1).max((2, 3))
        return clip(codes, self.low, self.high).reshape(self.output.shape)

    def span(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """That of the input, within what its activation leaves; a window that lies outside of the image has the least code."""
        low, high = (min(max(code, self.low), self.high) for code in spans[0])
        return (low, high) if self.window.inside(*self.image[:2]) else (self.low, high)

    def calls(self) -> tuple[Call, ...]:
        """`lp_max_pool_s8`."""
        return (sub_byte.wrapped(Call(kernel="max_pool_s8", structure="pool", fields=self._fields()), self),)


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePool(Pool):
    """The mean over the window's part inside the image.

    On equal grids `sum / count` to the nearest, ties away from zero, as in TensorFlow Lite. Where the grids differ
    `M_count (sum - count z) + z_out` with a multiplier for each count, so that one rounding does both. With `whole` padding counts, as the
    zero point. `truncated` is TensorFlow Lite's MEAN: it rescales on equal grids too, by the multiplier of one element divided by the
    count and cut, with as many bits as the count takes.
    """

    whole: bool = False
    truncated: bool = False

    @property
    def _same(self) -> bool:
        source, target = self.inputs[0], self.output
        return source.scale == target.scale and source.zero == target.zero and not (self.whole or self.truncated)

    def _multipliers(self) -> tuple[Array, Array]:
        """For 1 element, 2, 3, ... up to the whole window."""
        size = self.window.kernel[0] * self.window.kernel[1]
        counts = np.arange(1, size + 1) if not self.whole else np.full(size, size)
        if self.truncated:
            multiplier, shift = multiplier_of(self.inputs[0].scale / self.output.scale)
            bits = np.minimum(np.floor(np.log2(counts)).astype(np.int64), min(32, 31 + shift))
            return ((np.int64(multiplier) << bits) // counts).astype(np.int32), (shift - bits).astype(np.int32)
        return multipliers_of(self.inputs[0].scale / self.output.scale / counts)

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        codes = arrays[0].reshape(self.image)
        inside = self.window.patches(np.ones(self.image, np.int64), 0).sum((2, 3))
        if self._same:
            return clip(divide(self.window.patches(codes, 0).sum((2, 3)), inside), self.low, self.high).reshape(self.output.shape)
        sums = self.window.patches(codes - self.inputs[0].zero, 0).sum((2, 3))
        multipliers, shifts = self._multipliers()
        found = rounding(sums, multipliers[inside - 1], shifts[inside - 1]) + self.output.zero
        return clip(found, self.low, self.high).reshape(self.output.shape)

    def span(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """On equal grids that of the input, within what its activation leaves."""
        low, high = spans[0] if self._same else (LOW, HIGH)
        return min(max(low, self.low), self.high), min(max(high, self.low), self.high)

    def calls(self) -> tuple[Call, ...]:
        """`lp_average_pool_s8`, or `lp_mean_pool_s8` where the grids differ."""
        if self._same:
            return (sub_byte.wrapped(Call(kernel="average_pool_s8", structure="pool", fields=self._fields()), self),)
        multipliers, shifts = self._multipliers()
        arrays = {"multipliers": multipliers, "shifts": shifts.astype(np.int8)}
        return (sub_byte.wrapped(Call(kernel="mean_pool_s8", structure="mean_pool", arrays=arrays,
                                      fields={f"pool.{name}": value for name, value in self._fields().items()}), self),)
