"""LLT: between two levels the place of the step is learned, as a softmax over places that sharpens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.calibrate import quantizers
from lilliput.quantize.estimators import step_of_mean
from lilliput.quantize.grids import Integer
from lilliput.quantize.levels import BitPlanes
from lilliput.quantize.quantizer import Quantizer, Simulation
from lilliput.quantize.simulations.base import integers_nearest, leave_, levels_nearest, one_sided
from lilliput.quantize.simulations.dorefa import expanded
from lilliput.train import Hook, State
from lilliput.train.hooks import Batch


class LookupTable(Simulation):
    """`s T(clip(x / s))`, `T` a table over `places` cells for each of `steps` steps, odd for weights.

    While training a step's height is spread over its cells as a softmax of `logits` at the temperature `heat`; in evaluation it
    lies at the largest. Gradients pass `x` inside the clip; those of the table's cells are divided by the root of how many values
    they had, as in the authors' code.
    """

    def __init__(self, steps: int, places: int, reach: Tensor, *, signed: bool) -> None:
        super().__init__()
        self.steps, self.places, self.signed, self.heat = steps, places, signed, 1.0
        self.reach = nn.Parameter(reach.detach().clone())
        middle = (torch.arange(places, device=reach.device) - (places - 1) / 2).square()
        # One dimension, which weight decay leaves alone.
        self.logits = nn.Parameter((-middle / middle.max().clamp(min=1)).repeat(steps))

    @property
    def limited(self) -> list[nn.Parameter]:
        """The clip."""
        return [self.reach]

    def table(self) -> Tensor:
        """Heights at the cells' ends from 0 to 1, `(steps places + 1,)`."""
        share = (self.logits.view(self.steps, self.places) / self.heat).softmax(1).flatten()
        return torch.cat([share.new_zeros(1), share.cumsum(0)]) / self.steps

    def hard(self) -> tuple[Tensor, Tensor]:
        """Levels, and the thresholds between them, both relative to the clip."""
        at = self.logits.detach().view(self.steps, self.places).argmax(1)
        first = torch.arange(self.steps, device=at.device) * self.places
        thresholds = (first + at + 0.5) / (self.steps * self.places)
        levels = torch.arange(self.steps + 1, device=at.device) / self.steps
        if self.signed:
            levels, thresholds = torch.cat([-levels.flip(0)[:-1], levels]), torch.cat([-thresholds.flip(0), thresholds])
        return levels, thresholds

    def forward(self, x: Tensor) -> Tensor:
        """Soft while training, hard in evaluation."""
        if not self.training:
            return levels_nearest(x, self.reach, *self.hard(), None)
        ratio = (x / self.reach).clamp(-1.0 if self.signed else 0.0, 1.0)
        cells = (ratio.detach().abs() * self.steps * self.places).round().long()
        table = self.table()
        counts = torch.bincount(cells.flatten(), minlength=len(table)).clamp(min=1)
        factor = cells.numel() / len(table) / counts.sqrt()
        found = (table.detach() + (table - table.detach()) * factor)[cells] * ratio.detach().sign()
        return self.reach * (found + ratio - ratio.detach())

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """Weights on even steps; activations a table with its thresholds."""
        levels, thresholds = self.hard()
        if tensor is not None:
            assert isinstance(quantizer.grid, Integer)
            scale = expanded(self.reach.detach() / self.steps, quantizer.grid, tensor)
            leave_(quantizer, scale)
            # The same levels, by the arithmetic of the grid that stays.
            return integers_nearest(levels_nearest(tensor, self.reach, levels, thresholds, None), scale, quantizer.grid)
        quantizer.tabulate(levels, thresholds)
        leave_(quantizer, self.reach)
        return None


@dataclass(frozen=True, kw_only=True)
class LearnedLookup:
    """Even levels whose thresholds are learned, each at one of `places` places between its two levels; the clip is learned too.

    Weights start clipped at `qmax` steps of `LSQ`, activations where calibration put them, thresholds half-way. The hook
    `Sharpening` goes with it. Departs from the paper: the step's places start at their middle, not evenly spread, so that a
    trained network starts as plain rounding would; and the regulariser that asks for one place to each step is left to the
    falling temperature. (wang2022llt)
    """

    places: int = 9

    def __post_init__(self) -> None:
        if self.places < 1:
            raise RecipeError(f"places between two levels are at least one, not {self.places!r}")

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install the table; activations that are never negative change to a table of levels without signs."""
        grid = quantizer.grid
        if not isinstance(grid, Integer):
            raise PreconditionError(f"{quantizer.layer}: lookup tables have even levels, those of integer grids, not of {grid}; "
                                    "see the scheme")
        if tensor is not None:
            reach = step_of_mean(tensor, grid.along(None), quantizer.scale.max()) * grid.qmax
            quantizer.simulation = LookupTable(grid.qmax, self.places, reach, signed=True)
            return
        if not one_sided(quantizer):
            raise PreconditionError(f"{quantizer.layer}: a table without signs is for activations that are never negative; see "
                                    "Roles(signed=...)")
        quantizer.simulation = LookupTable(grid.qmax, self.places, quantizer.scale * grid.qmax, signed=False)
        quantizer.regrid(BitPlanes(bits=grid.bits, signed=False))


@dataclass(frozen=True, kw_only=True)
class Sharpening(Hook):
    """Lets the temperature of lookup tables fall from `first` to `last` over training, by the same factor in every step.
    (wang2022llt)
    """

    first: float = 1.0
    last: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.last <= self.first < float("inf"):
            raise RecipeError(f"temperatures fall from first to last and stay above zero, not from {self.first!r} to "
                              f"{self.last!r}")

    def batch(self, state: State, batch: Batch) -> Batch:
        """Set the temperature."""
        for quantizer in quantizers(state.model):
            if isinstance(quantizer.simulation, LookupTable):
                quantizer.simulation.heat = self.first * (self.last / self.first) ** state.progress
        return batch
