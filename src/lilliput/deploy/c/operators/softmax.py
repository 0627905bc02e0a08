"""Softmax in fixed point, TensorFlow Lite's arithmetic: gemmlowp's exponential and reciprocal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.arithmetic import Rounding, divide_by_power, high_multiply, multiplier_of, saturate
from lilliput.deploy.c.operators.base import HIGH, LOW, Call, Operator, clip

Array = NDArray[Any]
SCALE, ZERO = 1 / 256, -128
# Differences have 5 integer bits, sums 12.
_DIFFERENCE, _SUM = 5, 12
_ONE = 2**31 - 1
# exp(-2^k) for k = -2 ... 4, with 31 bits.
_BARREL = ((-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308), (2, 39332535), (3, 720401), (4, 242))


def exponential(a: Array) -> Array:
    """`exp(a 2^-26)` with 31 bits for whole numbers `a <= 0`: a cubic around -1/8, then a factor for each bit of what is left."""
    quarter = np.int64(1 << 24)
    part = (a & (quarter - 1)) - quarter
    x = saturate(part << _DIFFERENCE) + (1 << 28)
    x2 = high_multiply(x, x)
    x3, x4 = high_multiply(x2, x), high_multiply(x2, x2)
    tail = divide_by_power(high_multiply(divide_by_power(x4, 2) + x3, 715827883) + x2, 1)
    result = 1895147668 + high_multiply(np.int64(1895147668) + 0 * x, x + tail)
    rest = part - a
    for exponent, factor in _BARREL:
        result = np.where(rest & (1 << (31 - _DIFFERENCE + exponent)), high_multiply(result, factor), result)
    return np.where(a == 0, _ONE, result)


def reciprocal(x: Array) -> Array:
    """`1 / (1 + x 2^-31)` with 31 bits, `0 <= x < 2^31`, by three Newton steps from `48/17 - 32/17 d`."""
    half = (x + _ONE + 1) // 2
    y = 1515870810 + high_multiply(half, -1010580540)
    for _ in range(3):
        y = y + saturate(high_multiply(y, (1 << 29) - high_multiply(half, y)) << 2)
    return saturate(y << 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Softmax(Operator):
    """`exp(x - max x) / sum` over the last axis, at scale 1/256 and zero point -128."""

    def __post_init__(self) -> None:
        if self.output.shape[-1] > 511:
            raise PreconditionError(f"{self.layer}: softmax over {self.output.shape[-1]} elements; sums of more than 511 leave the 12 bits that the "
                                    f"arithmetic has for them")

    @cached_property
    def exponentials(self) -> Array:
        """Of the differences 0, -1, ... -255, with 31 bits; 0 below `TensorFlow Lite's` radius. int32."""
        multiplier, shift = multiplier_of(min(self.inputs[0].scale * 2 ** (31 - _DIFFERENCE), 2.0**31 - 1) if self.inputs[0].scale < 16 else 2.0**29)
        radius = math.floor((2**_DIFFERENCE - 1) * 2.0 ** (31 - _DIFFERENCE) / 2.0**shift)
        differences = -np.arange(256, dtype=np.int64)
        kept = differences >= -radius
        found = exponential(high_multiply(np.where(kept, differences, 0) << shift, multiplier))
        return np.where(kept, found, 0).astype(np.int32)

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        del rounding
        x = arrays[0].reshape(-1, self.output.shape[-1])
        values = self.exponentials.astype(np.int64)[x.max(1, keepdims=True) - x]
        sums = divide_by_power(values, _SUM).sum(1, keepdims=True)
        headroom = 32 - np.vectorize(int.bit_length, otypes=[np.int64])(sums)
        scale = reciprocal((sums << headroom) - (1 << 31))
        found = divide_by_power(high_multiply(scale, values), _SUM - headroom + 31 - 8) + LOW
        return clip(found, LOW, HIGH).reshape(self.output.shape)

    def calls(self) -> tuple[Call, ...]:
        """`lp_softmax_s8`."""
        depth = self.output.shape[-1]
        return (Call(kernel="softmax_s8", structure="softmax", fields={"rows": self.output.size // depth, "depth": depth},
                     arrays={"exponentials": self.exponentials}),)

    def lag(self, index: int) -> int | None:
        """In place: a row is read before it is written, an element for the last time when it is."""
        del index
        return 0
