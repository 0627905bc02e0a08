"""QIL: an interval, learned, outside of which values are pruned or clipped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError
from lilliput.quantize.estimators import step_of_mean
from lilliput.quantize.grids import SMALLEST_SCALE, Integer
from lilliput.quantize.levels import BitPlanes
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.simulations.base import OnGrid, leave_, levels_nearest, one_sided, positive, replaced
from lilliput.quantize.simulations.dorefa import expanded


def transformed(magnitude: Tensor, centre: Tensor, radius: Tensor, gamma: Tensor | None = None) -> Tensor:
    """`clip((|x| - c + d) / (2 d), 0, 1)^g`: 0 up to `c - d`, 1 from `c + d` on. (jung2019qil)"""
    part = ((magnitude - centre + radius) / (2 * radius)).clamp(0, 1)
    # The slope of a power at zero would be infinite.
    return part if gamma is None else torch.where(part > 0, part.clamp(min=SMALLEST_SCALE) ** gamma, part)


class Interval(OnGrid):
    """Centre `c` and radius `d` of the interval, both parameters; what is in it is spread over all levels up to `unit`."""

    def __init__(self, grid: Integer, top: Tensor) -> None:
        super().__init__(grid)
        self.qmax = grid.qmax
        self.centre, self.radius = nn.Parameter(top.detach() / 2), nn.Parameter(top.detach() / 2)
        self.register_buffer("unit", positive(top.detach().clone()))

    @property
    def limited(self) -> list[nn.Parameter]:
        """Centre and radius."""
        return [self.centre, self.radius]

    def forward(self, x: Tensor) -> Tensor:
        """Activations, which are never negative."""
        unit = self.get_buffer("unit")
        smooth = transformed(x, self.centre, self.radius)
        scale, table, thresholds = self.table()
        return replaced(smooth * unit, levels_nearest(x, scale, table, thresholds, None))

    def table(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, even levels, and the values of `x` at which the transformed value passes from one level to the next, over the
        scale.
        """
        steps = torch.arange(1, self.qmax + 1, device=self.centre.device)
        unit, low = self.get_buffer("unit"), self.centre.detach() - self.radius.detach()
        thresholds = (low + 2 * self.radius.detach() * (steps - 0.5) / self.qmax) / unit
        return unit, torch.cat([steps.new_zeros(1), steps]) / self.qmax, thresholds

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """A table: even levels, and thresholds of their own."""
        scale, table, thresholds = self.table()
        quantizer.tabulate(table, thresholds)
        leave_(quantizer, scale)
        return None


class SignedInterval(Interval):
    """The same of magnitudes, signs kept, with the learned exponent `g`."""

    def __init__(self, grid: Integer, top: Tensor) -> None:
        super().__init__(grid, top)
        self.gamma = nn.Parameter(torch.ones_like(top))

    @property
    def limited(self) -> list[nn.Parameter]:
        """Centre, radius and exponent."""
        return [*super().limited, self.gamma]

    def forward(self, x: Tensor) -> Tensor:
        """Weights."""
        unit = self.get_buffer("unit")
        smooth = transformed(x.abs(), self.centre, self.radius, self.gamma) * x.sign() * unit
        return replaced(smooth, self.nearest(smooth, expanded(unit / self.qmax, self.grid, x)))

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The step."""
        assert tensor is not None
        leave_(quantizer, expanded(self.get_buffer("unit") / self.qmax, self.grid, tensor))
        return self.forward(tensor)


@dataclass(frozen=True, kw_only=True)
class LearnedInterval:
    """Magnitudes below `c - d` are pruned, above `c + d` clipped, and what lies between is spread over all levels.

    `x' = clip((|x| - c + d) / (2 d), 0, 1)^g sign(x)`, then rounding with a straight-through gradient; `c` and `d` are learned
    from the task's loss, and for weights `g` too. The interval starts as `[0, top]`, `top` the calibrated range, or for weights
    `qmax` of the steps that `LSQ` starts with. Departs from the paper in a factor, `top` as it was at the start, so that a
    trained layer keeps what it computes. Activations end as a table with even levels and thresholds of its own. (jung2019qil)
    """

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install the interval; activations that are never negative change to a table without signs."""
        grid = quantizer.grid
        if not isinstance(grid, Integer):
            raise PreconditionError(f"{quantizer.layer}: intervals are for integer grids, not {grid}; see the scheme")
        if tensor is not None:
            quantizer.simulation = SignedInterval(grid, step_of_mean(tensor, grid.along(None), quantizer.scale.max()) * grid.qmax)
            return
        if not one_sided(quantizer):
            raise PreconditionError(f"{quantizer.layer}: an interval of magnitudes is for activations that are never negative; "
                                    "see Roles(signed=...)")
        quantizer.simulation = Interval(grid, quantizer.scale * grid.qmax)
        quantizer.regrid(BitPlanes(bits=grid.bits, signed=False))
