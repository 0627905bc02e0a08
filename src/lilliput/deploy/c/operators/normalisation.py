"""Layer and root-mean-square normalisation in whole numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.arithmetic import Rounding, divide, multipliers_of
from lilliput.deploy.c.operators.base import Call, Operator, clip

Array = NDArray[Any]
_BITS = 16
_ROOT = 38


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalisation(Operator):
    """`gamma (x - mean) / sqrt(var + eps) + beta` over the last axis, of `n` elements; `centred=False` leaves the mean out. (ba2016layernorm)

    With `d = n x - sum x` and `v = n sum x^2 - (sum x)^2 + n^2 eps / s^2`, both whole numbers, the normalised value is
    `d / sqrt(v)`: `t = round(d 2^(16 + e) / isqrt(v 4^e))`, `e` such that the root has 20 bits at least, then `t` is rescaled by
    `gamma / (s_out 2^16)`, channel by channel. Without centring `x` is the code less the zero point, and sums of `x` are left out.
    """

    gamma: Array
    beta: Array
    epsilon: float
    centred: bool = True

    def __post_init__(self) -> None:
        if self.gamma.size > 4096:
            raise PreconditionError(f"{self.layer}: normalisation over {self.gamma.size} elements; at most 4,096 fit 64 bits")

    def _constants(self) -> tuple[Array, Array, Array, int]:
        multipliers, shifts = multipliers_of(np.abs(self.gamma) / (self.output.scale * 2**_BITS))
        shift = np.rint(self.beta.astype(np.float64) / self.output.scale).astype(np.int64) + self.output.zero
        epsilon = round(self.gamma.size**2 * self.epsilon / self.inputs[0].scale ** 2)
        if epsilon >= 2**52 or np.abs(shift).max() >= 2**30:
            raise PreconditionError(f"{self.layer}: the scales of this normalisation are out of proportion; calibrate it on real data")
        return np.where(self.gamma < 0, -multipliers, multipliers).astype(np.int32), shifts, shift, max(epsilon, 1)

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        n = self.gamma.size
        multipliers, shifts, beta, epsilon = self._constants()
        x = arrays[0].reshape(-1, n).astype(np.int64) - self.inputs[0].zero
        total = x.sum(1, keepdims=True) if self.centred else np.zeros((len(x), 1), np.int64)
        d, v = n * x - total, n * (x * x).sum(1, keepdims=True) - total**2 + epsilon
        extra = np.array([[max(0, -(-(_ROOT - int(value).bit_length()) // 2))] for value in v[:, 0]])
        root = np.array([[math.isqrt(int(value) << 2 * int(e))] for value, e in zip(v[:, 0], extra[:, 0], strict=True)])
        t = divide(d << (_BITS + extra), root)
        return clip(rounding(t, multipliers, shifts) + beta).reshape(self.output.shape)

    def calls(self) -> tuple[Call, ...]:
        """`lp_normalise_s8`."""
        multipliers, shifts, beta, epsilon = self._constants()
        fields = {"rows": self.output.size // self.gamma.size, "depth": self.gamma.size, "zero": self.inputs[0].zero, "centred": int(self.centred),
                  "epsilon": epsilon}
        arrays = {"multipliers": multipliers, "shifts": shifts.astype(np.int8), "beta": beta.astype(np.int32)}
        return (Call(kernel="normalise_s8", structure="normalise", fields=fields, arrays=arrays),)

    @property
    def weight_bytes(self) -> int:
        """Gain and offset."""
        return 8 * self.gamma.size

    def lag(self, index: int) -> int | None:
        """In place."""
        del index
        return 0
