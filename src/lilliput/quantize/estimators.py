"""Gradient estimators: how training moves weights and scales through a rounding that has no slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.grids import Integer, Parameters
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.ranges import MinMax, channel_bounds


class Estimator(Protocol):
    """Equips a calibrated quantizer for training; `tensor` is what it quantizes, where that is a weight or constant."""

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Change the quantizer in place."""


def ends(quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """The least and the largest value of a quantizer's grid, each shaped like its scale."""
    scale = quantizer.scale.detach()
    if isinstance(quantizer.grid, Integer):
        return (quantizer.grid.qmin - quantizer.zero_point) * scale, (quantizer.grid.qmax - quantizer.zero_point) * scale
    return quantizer.levels[..., 0] * scale, quantizer.levels[..., -1] * scale


def mean_magnitude(tensor: Tensor, axis: int | None) -> Tensor:
    """`E|w|` of the whole tensor, `()`, or of each slice along `axis`, `(channels,)`; float32."""
    magnitude = tensor.detach().float().abs()
    return magnitude.mean() if axis is None else magnitude.movedim(axis, 0).flatten(1).mean(1)


def step_of_mean(tensor: Tensor, grid: Integer, otherwise: Tensor) -> Tensor:
    """The start `2 E|w| / sqrt(qmax)` of a step, shaped like the grid's scale; `otherwise` where all is zero. (esser2020lsq)"""
    start = 2 * mean_magnitude(tensor, grid.axis) / grid.qmax**0.5
    return torch.where(start > 0, start, otherwise)


@dataclass(frozen=True, kw_only=True)
class MovingExtremes:
    """Follows a tensor's extremes: a weight's as they are, an activation's as an average `r <- r + m (r_batch - r)`."""

    momentum: float

    def __call__(self, quantizer: Quantizer, x: Tensor) -> None:
        """Move the quantizer's range, in place and without a gradient."""
        with torch.no_grad():
            low, high = channel_bounds(MinMax(), x, quantizer.grid)
            if not quantizer.weight:
                bounds = quantizer.get_buffer("bounds")
                bounds.lerp_(torch.stack([low, high]), self.momentum)
                low, high = bounds
            quantizer.set(quantizer.grid.parameters(low, high))


@dataclass(frozen=True, kw_only=True)
class StraightThrough:
    """Rounding passes gradients unchanged inside the range; ranges follow the data and are not learned.

    (jacob2018quantization)
    """

    momentum: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.momentum <= 1:
            raise RecipeError(f"momentum lies above 0 and up to 1, not {self.momentum!r}")

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:  # noqa: ARG002
        """Let the range follow, from where calibration put it."""
        if not quantizer.weight:
            quantizer.register_buffer("bounds", torch.stack(ends(quantizer)))
        quantizer.follow = MovingExtremes(momentum=self.momentum)


@dataclass(frozen=True, kw_only=True)
class LSQ:
    """Scales are parameters, started for weights at `2 E|w| / sqrt(qmax)`, their gradient times `1 / sqrt(N qmax)`.

    Activations start at their calibrated scale: the paper's with the range `MeanMagnitude`. Departs from the paper: activations
    that take both signs have a fixed zero point; the scale of a weight is per channel where the grid says so; and edges into
    additions, which the paper leaves in floating point, learn their scales too. (esser2020lsq)
    """

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Start the scale and make it a parameter."""
        if tensor is not None and isinstance(quantizer.grid, Integer) and quantizer.grid.symmetric:
            scale = step_of_mean(tensor, quantizer.grid, quantizer.scale)
            quantizer.set(Parameters(scale, quantizer.zero_point, torch.zeros_like(scale, dtype=torch.bool)))
        quantizer.learn()
