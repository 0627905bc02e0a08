"""Casts: what becomes of a tensor on its way into a product, as numbers of a format times one scale."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.grids import Integer
from lilliput.quantize.low_precision.formats import Format
from lilliput.quantize.low_precision.rounding import Nearest, Rounding


class Scaled(NamedTuple):
    """A tensor as `values * scale`: the values are what the arithmetic sees."""

    values: Tensor
    scale: Tensor | float = 1.0

    def dense(self) -> Tensor:
        """The product."""
        return self.values * self.scale


class Cast(Protocol):
    """Any float tensor to `Scaled`, same shape."""

    def __call__(self, x: Tensor) -> Scaled:
        """The scaled values."""

    def nearest(self) -> Cast:
        """The same cast without chance, for evaluation."""


@dataclass(frozen=True)
class Unchanged:
    """The tensor as it is."""

    def __call__(self, x: Tensor) -> Scaled:
        """The scaled values."""
        return Scaled(x)

    def nearest(self) -> Self:
        """Itself."""
        return self


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """The numbers of a format, at scale one."""

    format: Format
    rounding: Rounding = field(default_factory=Nearest)

    def __post_init__(self) -> None:
        if not callable(getattr(self.format, "round", None)):
            raise RecipeError(f"a format of numbers is FixedPoint(integer=2, fraction=14), FP8 or the like, not {self.format!r}")

    def __call__(self, x: Tensor) -> Scaled:
        """The scaled values."""
        return Scaled(self.round(x))

    def round(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The numbers as a plain tensor."""
        return self.format.round(x, self.rounding, generator)

    def nearest(self) -> Rounded:
        """The same format, to nearest."""
        return replace(self, rounding=Nearest())


@dataclass(frozen=True, kw_only=True)
class Ranged:
    """An integer grid over the least and the largest value of the tensor at hand: `x = s (k - z)`, where zero is exact.

    The values are the whole numbers `k - z`, so that products of two such tensors are products of integers. One scale to
    the tensor, found anew at every call. (banner2018int8)
    """

    grid: Integer = field(default_factory=lambda: Integer(bits=8, signed=False, symmetric=False))
    rounding: Rounding = field(default_factory=Nearest)

    def __call__(self, x: Tensor) -> Scaled:
        """The scaled values."""
        low, high = torch.aminmax(x.detach())
        scale, zero, _ = self.grid.parameters(low, high)
        values = self.rounding(x / scale).clamp_(self.grid.qmin - zero, self.grid.qmax - zero)
        return Scaled(values, scale)

    def nearest(self) -> Ranged:
        """The same grid, to nearest."""
        return replace(self, rounding=Nearest())


class _BothWays(torch.autograd.Function):
    """Straight through: neither cast has a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Cast, error: Cast) -> Tensor:
        ctx.error = error
        return x.view_as(x) if isinstance(value, Unchanged) else value(x).dense()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.error(grads[0]).dense(), None, None


def cast_both_ways(x: Tensor, value: Cast, error: Cast) -> Tensor:
    """`x` through the cast `value`; its gradient, on the way back, through the cast `error`."""
    result: Tensor = _BothWays.apply(x, value, error)  # type: ignore[no-untyped-call]
    return result
