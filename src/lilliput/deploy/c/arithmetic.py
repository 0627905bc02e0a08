"""The integer arithmetic of the generated C code, in numpy: rescaling by a multiplier and a power of two.

A real factor `M` is `m 2^(shift - 31)` with `m` in `[2^30, 2^31)`, as TensorFlow Lite has it (jacob2018quantization). `DoubleRounding`,
the default, is the arithmetic of TensorFlow Lite Micro: a doubling high multiply with ties up, then a division by a power of two
with ties away from zero. `SingleRounding` rounds once, ties up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError

Array = NDArray[Any]
_LOW, _HIGH = -(2**31), 2**31 - 1


def multiplier_of(factor: float) -> tuple[int, int]:
    """Multiplier and shift of a real factor: `m = round(q 2^31)` for `factor = q 2^shift`, `q` in `[0.5, 1)`.

    Factors under `2^-32` become zero. Raises `PreconditionError` for factors that are negative, not finite or `2^30` and more.

    >>> multiplier_of(0.5), multiplier_of(3.0), multiplier_of(0.0)
    ((1073741824, 0), (1610612736, 2), (0, 0))
    """
    if not (math.isfinite(factor) and 0 <= factor < 2.0**30):
        raise PreconditionError(f"a rescaling factor of {factor} is outside [0, 2^30): a scale of the model is damaged; calibrate it again")
    fraction, shift = math.frexp(factor)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    return (multiplier, shift) if shift >= -31 and multiplier else (0, 0)


def multipliers_of(factors: Array) -> tuple[Array, Array]:
    """Multipliers and shifts, both int32, of real factors `(n,)`."""
    pairs = [multiplier_of(float(factor)) for factor in np.asarray(factors, np.float64).reshape(-1)]
    return np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int32)


class Rounding(Protocol):
    """How a product with a multiplier loses its last bits."""

    def __call__(self, x: Array, multiplier: Array | int, shift: Array | int) -> Array:
        """`x M` as whole numbers, int64, for whole numbers `x` within int32; multiplier and shift broadcast over them."""
        ...


@dataclass(frozen=True)
class DoubleRounding:
    """`(x 2^left m + 2^30) >> 31`, then `/ 2^right` to the nearest, ties away from zero: TensorFlow Lite Micro's.

    `x 2^left` wraps at 32 bits as it does there; the lowering sees to it that it never does.
    """

    def __call__(self, x: Array, multiplier: Array | int, shift: Array | int) -> Array:
        """See `Rounding`."""
        m, s = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
        high = high_multiply(_wrap(np.asarray(x, np.int64) << np.maximum(s, 0)), m)
        return divide_by_power(high, np.maximum(-s, 0))


@dataclass(frozen=True)
class SingleRounding:
    """`(x m + 2^(30 - shift)) >> (31 - shift)`, exact but for this one rounding, ties up."""

    def __call__(self, x: Array, multiplier: Array | int, shift: Array | int) -> Array:
        """See `Rounding`."""
        m, s = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
        result: Array = (np.asarray(x, np.int64) * m + (np.int64(1) << (30 - s))) >> (31 - s)
        return result


def _wrap(x: Array) -> Array:
    return x.astype(np.int32).astype(np.int64)


def high_multiply(a: Array, b: Array | int) -> Array:
    """`(2 a b) / 2^32` with ties up, and the one overflow saturated: gemmlowp's SaturatingRoundingDoublingHighMul.

    gemmlowp divides by `2^31` towards zero after adding `2^30` or, to negative products, `1 - 2^30`: together ties up.
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    result: Array = np.minimum((product + (1 << 30)) >> 31, _HIGH)
    return result


def divide_by_power(x: Array, exponent: Array | int) -> Array:
    """`x / 2^exponent` to the nearest, ties away from zero: gemmlowp's RoundingDivideByPOT, `0 <= exponent <= 31`."""
    e = np.asarray(exponent, np.int64)
    mask = (np.int64(1) << e) - 1
    remainder, threshold = x & mask, (mask >> 1) + (x < 0)
    result: Array = (x >> e) + (remainder > threshold)
    return result


def divide(x: Array, count: Array | int) -> Array:
    """`x / count` to the nearest, ties away from zero."""
    result: Array = np.sign(x) * ((np.abs(x) + np.asarray(count) // 2) // count)
    return result


def saturate(x: Array, low: int = _LOW, high: int = _HIGH) -> Array:
    """Within limits."""
    return np.clip(x, low, high)
