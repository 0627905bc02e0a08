"""Number formats narrower than float32, with exact rounding: floating point of any split, and fixed point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.low_precision.rounding import Nearest, Rounding

# The exponent field of each type that numbers are emulated in, and the integers that show it.
_EXPONENT = {torch.float32: (torch.int32, 0x7F800000), torch.float64: (torch.int64, 0x7FF0000000000000)}


class Format(Protocol):
    """A finite set of numbers, all of them exact in float32."""

    @property
    def bits(self) -> int:
        """Storage of one number."""

    def round(self, x: Tensor, rounding: Rounding = Nearest(), generator: torch.Generator | None = None) -> Tensor:
        """Numbers of the format as float32, same shape; NaN stays NaN. Exact for `x` in float32 and in float64."""


@dataclass(frozen=True, kw_only=True)
class Float:
    """Binary floating point: a sign, `exponent` and `mantissa` bits, with IEEE's bias `2^(exponent-1) - 1` and subnormal numbers.

    The top exponent is kept for infinities and NaN, so that `Float(exponent=5, mantissa=10)` is IEEE's half precision and
    `Float(exponent=5, mantissa=2)` the E5M2 of hardware. What rounds to more than `largest` becomes `largest` where the
    format saturates (infinities too), an infinity where not. The papers on training leave open what their formats do with
    subnormal numbers and the top exponent.

    >>> FP8.largest, FP8.smallest, FP8.round(torch.tensor([1.1, 1.125, 1.375, 1e6])).tolist()
    (57344.0, 1.52587890625e-05, [1.0, 1.0, 1.5, 57344.0])

    Raises `RecipeError` for widths that float32 does not hold exactly.
    """

    exponent: int
    mantissa: int
    saturate: bool = True

    def __post_init__(self) -> None:
        if not (2 <= self.exponent <= 8 and 1 <= self.mantissa <= 20):
            raise RecipeError("a format inside float32 has 2 to 8 bits of exponent and 1 to 20 of mantissa, not "
                              f"{self.exponent} and {self.mantissa}")

    @property
    def bits(self) -> int:
        """Sign, exponent and mantissa."""
        return 1 + self.exponent + self.mantissa

    @property
    def _bias(self) -> int:
        return (1 << (self.exponent - 1)) - 1

    @property
    def largest(self) -> float:
        """`(2 - 2^-mantissa) 2^bias`."""
        return (2 - 2.0**-self.mantissa) * 2.0**self._bias

    @property
    def smallest(self) -> float:
        """The least positive number, `2^(1 - bias - mantissa)`."""
        return 2.0 ** (1 - self._bias - self.mantissa)

    def round(self, x: Tensor, rounding: Rounding = Nearest(), generator: torch.Generator | None = None) -> Tensor:
        """Round to the spacing of the binade, `2^(floor(log2 |x|) - mantissa)`, below the normal numbers to `smallest`."""
        x = x if x.dtype in _EXPONENT else x.float()
        integers, mask = _EXPONENT[x.dtype]
        binade = (x.detach().contiguous().view(integers) & mask).view(x.dtype)
        step = binade.clamp_(2.0 ** (1 - self._bias), 2.0**self._bias).mul_(2.0**-self.mantissa)
        y = rounding(x / step, generator).mul_(step)
        if self.saturate:
            return y.clamp_(-self.largest, self.largest).float()
        return torch.where(y.abs() > self.largest, y * torch.inf, y).float()


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """Two's complement `<integer, fraction>`: multiples of `2^-fraction` in `[-2^(integer-1), 2^(integer-1) - 2^-fraction]`.

    `integer` counts the sign. What lies outside saturates, and rounding to nearest takes ties to even, where the paper takes
    them up. (gupta2015limited)

    >>> FixedPoint(integer=2, fraction=3).round(torch.tensor([0.3, 5.0, -5.0])).tolist()
    [0.25, 1.875, -2.0]

    Raises `RecipeError` for widths that float32 does not hold exactly.
    """

    integer: int
    fraction: int

    def __post_init__(self) -> None:
        if self.integer < 1 or self.fraction < 0 or not 2 <= self.bits <= 24:
            raise RecipeError(f"fixed point inside float32 has 2 to 24 bits, at least one of them (the sign) integer, not "
                              f"<{self.integer}, {self.fraction}>")

    @property
    def bits(self) -> int:
        """Integer and fraction."""
        return self.integer + self.fraction

    @property
    def largest(self) -> float:
        """`2^(integer-1) - 2^-fraction`."""
        return 2.0 ** (self.integer - 1) - self.smallest

    @property
    def smallest(self) -> float:
        """The least positive number, `2^-fraction`."""
        return 2.0**-self.fraction

    def round(self, x: Tensor, rounding: Rounding = Nearest(), generator: torch.Generator | None = None) -> Tensor:
        """Round to a multiple of `smallest` and saturate."""
        half = 2.0 ** (self.bits - 1)
        x = x if x.dtype in _EXPONENT else x.float()
        return rounding(x * 2.0**self.fraction, generator).clamp_(-half, half - 1).mul_(self.smallest).float()


FP8 = Float(exponent=5, mantissa=2)
FP16 = Float(exponent=6, mantissa=9)
HALF = Float(exponent=5, mantissa=10, saturate=False)
