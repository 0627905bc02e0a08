"""Rounding to whole steps: to the nearest one, or up with the probability of what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Rounding(Protocol):
    """`v`, in units of the step, to whole numbers of the same shape; draws from `generator`, by default torch's global one."""

    def __call__(self, v: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The whole numbers."""


@dataclass(frozen=True)
class Nearest:
    """The nearest whole number, ties to the even one.

    >>> Nearest()(torch.tensor([0.5, 1.5, -0.2])).tolist()
    [0.0, 2.0, -0.0]
    """

    def __call__(self, v: Tensor, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """The whole numbers."""
        return v.round()


@dataclass(frozen=True)
class Stochastic:
    """`floor(v) + 1` with probability `v - floor(v)`, else `floor(v)`: unbiased, and whole numbers stay. (gupta2015limited)

    The probability is exact to `2^-24`, the resolution of the random numbers.
    """

    def __call__(self, v: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The whole numbers."""
        below = v.floor()
        # A comparison with the exact remainder, since `floor(v + u)` would round the sum and so move whole numbers.
        chance = torch.rand(v.shape, generator=generator, dtype=v.dtype, device=v.device)
        return below + (chance < v - below)
