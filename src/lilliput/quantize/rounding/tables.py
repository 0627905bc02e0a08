"""Fitted tables: levels that follow the distribution of the weights, or lie at powers of two."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.graph.trace import Traced
from lilliput.quantize.calibrate import constants
from lilliput.quantize.grids import Parameters
from lilliput.quantize.levels import Table
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.sharing.kmeans import optimal

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


@dataclass(frozen=True)
class Empirical:
    """The distribution of the weights themselves, each channel over its root mean square."""

    points: int = 1024


@dataclass(frozen=True, kw_only=True)
class LloydMax:
    """A Rounding: gives every weight on a table the levels of least squared error for a density, and rounds to nearest.

    The density is that of the weights over their root mean square, to each channel where the grid has an axis; all channels
    share the levels, and each has its own scale. A weight that holds exact zeros, as pruning leaves them, gets the level zero in
    place of the one nearest to it. (lloyd1982pcm, max1960distortion)
    """

    density: Density | Empirical = field(default_factory=Empirical)

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:  # noqa: ARG002
        """Fit, in place."""
        for quantizer, tensor in _tables(quantized):
            rows = _rows(quantizer, tensor)
            size = rows.square().mean(1).sqrt()
            levels = self._levels(rows, size, len(quantizer.levels))
            if bool((rows == 0).all(1).logical_not().logical_and((rows == 0).any(1)).any()):
                levels = levels.clone()
                levels[levels.abs().argmin()] = 0.0
            reach = float(levels.abs().max())
            _set(quantizer, levels / reach, (levels[1:] + levels[:-1]) / 2 / reach, size * reach)
        return []

    def _levels(self, rows: Tensor, size: Tensor, count: int) -> Tensor:
        if not isinstance(self.density, Empirical):
            return torch.tensor(density_levels(self.density, count), dtype=torch.float64)
        live = size > 0
        if not bool(live.any()):
            return torch.linspace(-1, 1, count, dtype=torch.float64)
        values = (rows[live] / size[live, None]).flatten()
        masses = size[live, None].square().expand_as(rows[live]).flatten()
        found = torch.from_numpy(optimal(values.numpy(), count, masses.numpy(), self.density.points))
        # Fewer different weights than levels: the table is filled up beyond the largest, where nothing is.
        spare = torch.arange(1, count - len(found) + 1, dtype=torch.float64)
        return torch.cat([found, found[-1] + spare * (float(found.abs().max()) * 1e-3 or 1.0)])


@dataclass(frozen=True, kw_only=True)
class NearestExponent:
    """A Rounding: `sign(w) 2^round(log2 |w|)` for weights on a table of powers of two, the scales powers of two as well.

    The largest exponent is that of the largest weight; what rounds to an exponent below the table's least becomes zero.
    (miyashita2016log)
    """

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:  # noqa: ARG002
        """Set scales and thresholds, in place; raises `PreconditionError` for tables of anything else."""
        for quantizer, tensor in _tables(quantized):
            levels = quantizer.levels.double()
            powers = levels[levels > 0].log2()
            if not bool((powers == powers.round()).all()) or not bool((levels == 0).any()):
                raise PreconditionError(f"{quantizer.layer}: exponents are rounded on tables of zero and powers of two: "
                                        "use PowerOfTwo weights")
            upward = torch.cat([powers[:1] - 0.5, (powers[1:] + powers[:-1]) / 2]).exp2()
            largest = _rows(quantizer, tensor).abs().amax(1)
            scale = torch.where(largest > 0, largest.clamp(min=1e-300).log2().round().exp2(), largest)
            _set(quantizer, levels, torch.cat([-upward.flip(0), upward]) if float(levels[0]) < 0 else upward, scale)
        return []


def _tables(quantized: Traced) -> Iterator[tuple[Quantizer, Tensor]]:
    found = [(quantizer, tensor) for quantizer, tensor in constants(quantized) if isinstance(quantizer.grid, Table)]
    if not found:
        raise PreconditionError("no weight lies on a table: give the scheme a grid of levels for its weights")
    yield from found


def _rows(quantizer: Quantizer, tensor: Tensor) -> Tensor:
    """The slices that have a scale of their own, `(channels, n)`, or the whole in one row; float64."""
    axis, values = quantizer.grid.axis, tensor.detach().cpu().double()
    return values.reshape(1, -1) if axis is None else values.movedim(axis, 0).flatten(1)


def _set(quantizer: Quantizer, levels: Tensor, thresholds: Tensor, scale: Tensor) -> None:
    scale = scale.reshape(()) if quantizer.grid.axis is None else scale
    parameters: Parameters = quantizer.grid.parameters(-scale, scale)
    device = quantizer.scale.device
    quantizer.tabulate(levels.to(device), thresholds.to(device))
    quantizer.set(Parameters(*(part.to(device) for part in parameters)))
