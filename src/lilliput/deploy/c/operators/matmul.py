"""Products of two activations, as attention has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.arithmetic import Rounding, multiplier_of
from lilliput.deploy.c.operators.base import HIGH, LOW, Call, Operator, clip

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class MatMul(Operator):
    """`out[i, n, j] = M sum_k (a[n, i, k] - z_a) (b[n, k, j] - z_b) + z_out`.

    Strides and offsets in elements, so that heads need no transposition: `(batch, row, inner)` of `a`, `(batch, inner, column)` of
    `b`. The output is `(row, batch, column)`.
    """

    shape: tuple[int, int, int, int]
    strides_a: tuple[int, int, int]
    strides_b: tuple[int, int, int]
    offsets: tuple[int, int] = (0, 0)
    low: int = LOW
    high: int = HIGH

    @property
    def macs(self) -> int:
        """`batch x rows x inner x columns`."""
        return int(np.prod(self.shape))

    def _factor(self) -> tuple[int, int]:
        a, b = (buffer.scale for buffer in self.inputs)
        return multiplier_of(a * b / self.output.scale)

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        batch, rows, inner, columns = self.shape
        a, b = (np.lib.stride_tricks.as_strided(np.ascontiguousarray(x.reshape(-1)[offset:].astype(np.float64)), shape, [8 * s for s in strides],
                                                writeable=False)
                for x, offset, shape, strides in zip(arrays, self.offsets, ((batch, rows, inner), (batch, inner, columns)),
                                                     (self.strides_a, self.strides_b), strict=True))
        sums = np.matmul(a - self.inputs[0].zero, b - self.inputs[1].zero).astype(np.int64).transpose(1, 0, 2)
        return clip(rounding(sums, *self._factor()) + self.output.zero, self.low, self.high).reshape(self.output.shape)

    def span(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """What its activation leaves."""
        del spans
        return self.low, self.high

    def calls(self) -> tuple[Call, ...]:
        """`lp_matmul_s8`."""
        multiplier, shift = self._factor()
        fields = dict(zip(("batch", "rows", "inner", "columns"), self.shape, strict=True))
        fields |= {f"stride_a[{k}]": s for k, s in enumerate(self.strides_a)} | {f"stride_b[{k}]": s for k, s in enumerate(self.strides_b)}
        fields |= {"offset_a": self.offsets[0], "offset_b": self.offsets[1], "zero_a": self.inputs[0].zero, "zero_b": self.inputs[1].zero, "out_zero": self.output.zero, "multiplier": multiplier,
                   "shift": shift, "low": self.low, "high": self.high}
        return (Call(kernel="matmul_s8", structure="matmul", fields=fields),)
