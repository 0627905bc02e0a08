"""Densities of variance one, and the levels of least expected squared error for them."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Density(Protocol, Hashable):
    """A symmetric density of variance 1, by two integrals from minus infinity to `x`: both take and return arrays."""

    def mass(self, x: Array) -> Array:
        """`int p(u) du`."""

    def moment(self, x: Array) -> Array:
        """`int u p(u) du`."""


@dataclass(frozen=True)
class Gaussian:
    """The normal density."""

    def mass(self, x: Array) -> Array:
        """The cumulative distribution."""
        found: Array = torch.special.ndtr(torch.from_numpy(x)).numpy()
        return found

    def moment(self, x: Array) -> Array:
        """Minus the density."""
        found: Array = -np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        return found


@dataclass(frozen=True)
class Laplace:
    """The two-sided exponential density, `exp(-|x| / b) / 2b` with `b = sqrt(1/2)`."""

    def mass(self, x: Array) -> Array:
        """Exponential on either side of zero."""
        tail = 0.5 * np.exp(-np.abs(x) * math.sqrt(2))
        return np.where(x < 0, tail, 1 - tail)

    def moment(self, x: Array) -> Array:
        """`-(|x| + b) exp(-|x| / b) / 2`."""
        size = np.minimum(np.abs(x), 1e3)
        found: Array = -0.5 * (size + math.sqrt(0.5)) * np.exp(-size * math.sqrt(2))
        return found


@lru_cache(maxsize=64)
def density_levels(density: Density, count: int) -> tuple[float, ...]:
    """The `count` levels of least expected squared error.

    Each is the mean of the density between the points half-way to its neighbours. By iterating the two conditions, from where
    many levels of a normal density would lie. (lloyd1982pcm, max1960distortion)

    >>> [round(level, 4) for level in density_levels(Gaussian(), 4)]
    [-1.5104, -0.4528, 0.4528, 1.5104]
    """
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    levels: Array = math.sqrt(3) * torch.special.ndtri(middles).numpy()
    for _ in range(20_000):
        ends = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        moved = np.diff(density.moment(ends)) / np.diff(density.mass(ends))
        moved = (moved - moved[::-1]) / 2  # rounding must not break the symmetry
        levels, before = moved, levels
        if float(np.abs(levels - before).max()) < 1e-11:
            break
    return tuple(float(level) for level in levels)
