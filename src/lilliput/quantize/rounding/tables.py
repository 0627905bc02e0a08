"""Fitted tables: levels that follow the distribution of the weights, or lie at powers of two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.graph.trace import Traced
from lilliput.quantize.calibrate import constants
from lilliput.quantize.density import Density, density_levels
from lilliput.quantize.grids import Parameters
from lilliput.quantize.levels import Table
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.sharing.kmeans import optimal

Array = NDArray[np.float64]


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
