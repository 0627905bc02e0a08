"""Grids: which values a quantized tensor may take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError

# Below this, products of two scales leave the normal range of float32.
SMALLEST_SCALE = 2.0**-60


class Parameters(NamedTuple):
    """Scale (float32), zero point (int32) and where the range was empty (bool); all `()` or `(channels,)`."""

    scale: Tensor
    zero_point: Tensor
    dead: Tensor


@dataclass(frozen=True, kw_only=True)
class Grid(ABC):
    """What all grids have: codes of `bits` bits, and the dimension `axis` whose slices have each its own scale.

    `axis` is None for one scale to the tensor. A grid is *symmetric* when its zero point is always 0.
    """

    bits: int = 8
    axis: int | None = None

    @property
    @abstractmethod
    def symmetric(self) -> bool:
        """Whether the zero point is fixed at 0."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Number of levels less one."""

    @abstractmethod
    def parameters(self, low: Tensor, high: Tensor) -> Parameters:
        """Scale and zero point that cover `[low, high]`; shapes `()` or `(channels,)`, elementwise."""

    @abstractmethod
    def nearest(self, values: Tensor, parameters: Parameters) -> Tensor:
        """The grid's nearest values, for float64 `values` of any shape and parameters of shape `()`."""

    def at(self, bits: int) -> Grid:
        """The grid of this kind with another width, or the integer one where this kind has no such width."""
        return replace(self, bits=bits)

    def along(self, axis: int | None) -> Self:
        """The same with scales along another dimension."""
        return replace(self, axis=axis)


@dataclass(frozen=True, kw_only=True)
class Integer(Grid):
    """The integer grid `{(k - z) * s : qmin <= k <= qmax}`, on which zero always lies exactly.

    `symmetric` fixes `z = 0` (and, when signed, drops the most negative code, so that the grid is its own
    mirror image); `axis` gives every slice along that dimension its own scale, None one scale to the tensor.

    >>> Integer(bits=8).qmin, Integer(bits=8, signed=False, symmetric=False).qmax
    (-127, 255)

    Raises `RecipeError` for widths outside 2 to 16 bits.
    """

    signed: bool = True
    symmetric: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or not 2 <= self.bits <= 16:
            raise RecipeError(f"an integer grid has 2 to 16 bits, not {self.bits!r}; binary and ternary are grids of their own")

    @property
    def steps(self) -> int:
        """Number of levels less one."""
        return self.qmax - self.qmin

    def nearest(self, values: Tensor, parameters: Parameters) -> Tensor:
        """`(clamp(round(x / s) + z, qmin, qmax) - z) * s` in float64."""
        s, z = parameters.scale.double(), parameters.zero_point
        return (values / s).round_().add_(z).clamp_(self.qmin, self.qmax).sub_(z).mul_(s)

    @property
    def qmin(self) -> int:
        """Smallest code."""
        return -(1 << (self.bits - 1)) + int(self.symmetric) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    def parameters(self, low: Tensor, high: Tensor) -> Parameters:
        """Scale and zero point that cover `[low, high]` and zero; shapes `()` or `(channels,)`, elementwise.

        Where the range is empty (all values zero, or too small for float32 arithmetic on scales) any scale
        represents the zeros exactly; it takes the largest scale of the other channels, so that a bias on
        the same channel stays representable, and is reported as dead.
        """
        low, high = low.double().clamp(max=0), high.double().clamp(min=0)
        if self.symmetric:
            span = torch.maximum(low.abs() if self.signed else torch.zeros_like(low), high) / self.qmax
        else:
            span = (high - low) / (self.qmax - self.qmin)
        dead = span < SMALLEST_SCALE
        live = span[~dead].max() if bool((~dead).any()) else torch.ones((), dtype=span.dtype) / self.qmax
        span = torch.where(dead, live, span)
        zero = torch.zeros_like(span) if self.symmetric else (self.qmin - low / span).round().clamp(self.qmin, self.qmax)
        scale = span.float()
        # A range that ends where a clamp ends (ReLU6) must not reach past it by rounding, or the clamp cannot be dropped.
        beyond = scale.double() * (self.qmax - zero) > torch.where(dead, torch.inf, high)
        if not self.symmetric:
            scale = torch.where(beyond & (zero == self.qmin), torch.nextafter(scale, torch.zeros_like(scale)), scale)
        return Parameters(scale, zero.to(torch.int32), dead)
