"""What simulations are made of: values of a grid forward, the gradients of something smooth backward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lilliput.quantize.estimators import LSQ, Estimator, StraightThrough
from lilliput.quantize.grids import SMALLEST_SCALE, Grid, Integer, Parameters
from lilliput.quantize.levels import Table
from lilliput.quantize.levels_op import fake_levels
from lilliput.quantize.op import fake_quantize
from lilliput.quantize.quantizer import Quantizer, Simulation


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, value: Tensor) -> Tensor:  # noqa: ARG004
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grads[0], None


def replaced(surrogate: Tensor, value: Tensor) -> Tensor:
    """`value`, exactly, with the gradients of `surrogate`, which has the same shape: what is straight-through about an estimator.
    """
    result: Tensor = _Replaced.apply(surrogate, value.to(surrogate.dtype))  # type: ignore[no-untyped-call]
    return result


def levels_nearest(x: Tensor, scale: Tensor, table: Tensor, thresholds: Tensor, axis: int | None) -> Tensor:
    """`x` on a table of levels relative to `scale`, without a gradient."""
    with torch.no_grad():
        result: Tensor = fake_levels(x, scale, table, thresholds, -1 if axis is None else axis)
    return result


def integers_nearest(x: Tensor, scale: Tensor, grid: Integer) -> Tensor:
    """`x` on a symmetric integer grid, without a gradient."""
    with torch.no_grad():
        zero = torch.zeros_like(scale, dtype=torch.int32)
        result: Tensor = fake_quantize(x, scale, zero, grid.qmin, grid.qmax, -1 if grid.axis is None else grid.axis)
    return result


def positive(scale: Tensor) -> Tensor:
    """The scale, but where it is nothing (a channel of zeros, pruned away) the smallest that arithmetic on scales can take."""
    return scale.clamp(min=SMALLEST_SCALE)


def leave_(quantizer: Quantizer, scale: Tensor) -> None:
    """Leave a scale, with zero point 0, in the quantizer."""
    scale = scale.detach().float()
    quantizer.set(Parameters(scale, torch.zeros_like(scale, dtype=torch.int32), torch.zeros_like(scale, dtype=torch.bool)))


class OnGrid(Simulation):
    """A simulation whose values lie on a symmetric grid that does not change: `nearest` finds them."""

    levels: Tensor
    thresholds: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        if isinstance(grid, Table):
            self.register_buffer("levels", grid.table, persistent=False)
            self.register_buffer("thresholds", grid.thresholds, persistent=False)

    def nearest(self, x: Tensor, scale: Tensor) -> Tensor:
        """`x` on the grid of that scale, `()` or one for each channel, without a gradient."""
        if isinstance(self.grid, Integer):
            return integers_nearest(x, scale, self.grid)
        return levels_nearest(x, scale, self.levels, self.thresholds, self.grid.axis)


def one_sided(quantizer: Quantizer) -> bool:
    """Whether calibration saw no negative values: the result of a ReLU, as methods with a clip at zero expect it."""
    return isinstance(quantizer.grid, Integer) and not quantizer.grid.signed and bool((quantizer.zero_point == 0).all())


@dataclass(frozen=True, kw_only=True)
class CalibratedRange:
    """Scales stay where calibration put them; rounding passes gradients unchanged inside the range."""

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Change nothing."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """One estimator for weights and one for activations of up to so many bits; another for all that is wider.

    Wider are the first and the last layer as a rule, and edges that additions read. Activations of few bits that take
    both signs, for which methods that clip at zero say nothing, learn their scale by `signed`.
    """

    weights: Estimator
    activations: Estimator = field(default_factory=LSQ)
    weight_bits: int = 7
    activation_bits: int = 7
    wide: Estimator = field(default_factory=StraightThrough)
    signed: Estimator = field(default_factory=LSQ)

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Hand the quantizer to the estimator that it is for."""
        if quantizer.grid.bits > (self.weight_bits if quantizer.weight else self.activation_bits):
            chosen = self.wide
        elif quantizer.weight:
            chosen = self.weights
        else:
            affine = isinstance(quantizer.grid, Integer) and not quantizer.grid.symmetric
            chosen = self.activations if one_sided(quantizer) or not affine else self.signed
        chosen.equip_(quantizer, tensor)
