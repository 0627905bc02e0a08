"""Precision that falls while training goes on: weights first, activations later, from more bits to fewer (two-stage,
progressive).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.calibrate import quantizers
from lilliput.quantize.grids import Grid, Integer
from lilliput.quantize.op import fake_quantize
from lilliput.quantize.quantizer import Quantizer, Simulation
from lilliput.quantize.simulations.base import leave_, one_sided
from lilliput.quantize.simulations.dorefa import Squashed
from lilliput.train import Hook, State
from lilliput.train.hooks import Batch


@dataclass(frozen=True, kw_only=True)
class Stage:
    """From the share `start` of training on, weights and activations have so many bits; None leaves them in floating point."""

    start: float = 0.0
    weights: int | None
    activations: int | None


class FixedClip(Simulation):
    """`x` clipped to `[0, top]` and rounded, straight through inside."""

    top: Tensor

    def __init__(self, grid: Integer, top: Tensor) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("top", top.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Clip, then round."""
        scale = self.top / self.grid.qmax
        result: Tensor = fake_quantize(x, scale, torch.zeros_like(scale, dtype=torch.int32), self.grid.qmin, self.grid.qmax, -1)
        return result

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """The step."""
        leave_(quantizer, self.top / self.grid.qmax)
        return None


class Staged(Simulation):
    """One simulation for each number of bits; the one that `Stages` chose works, the one of fewest bits is left at the end."""

    def __init__(self, simulations: dict[int, Simulation]) -> None:
        super().__init__()
        self.simulations = nn.ModuleDict({str(bits): simulation for bits, simulation in simulations.items()})
        self.bits: int | None = min(simulations)

    @property
    def last(self) -> Simulation:
        """That of fewest bits."""
        found = self.simulations[min(self.simulations, key=int)]
        assert isinstance(found, Simulation)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """The values of the present stage."""
        if self.bits is None:
            return x
        result: Tensor = self.simulations[str(self.bits)](x)
        return result

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The grid of fewest bits."""
        return self.last.settle(quantizer, tensor)


@dataclass(frozen=True, kw_only=True)
class StagedLevels:
    """Weights as `TanhLevels`, activations clipped at the calibrated range, in all the numbers of bits of `stages` beside their
    own.

    The hook `Stages` goes with it. (zhuang2018twostage)
    """

    stages: tuple[Stage, ...]

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install all the stages' simulations."""
        grid = quantizer.grid
        widths = {bits for stage in self.stages if (bits := stage.activations if tensor is None else stage.weights) is not None}
        widths = {bits for bits in widths if bits >= grid.bits} | {grid.bits}
        if tensor is not None:
            quantizer.simulation = Staged({bits: Squashed(_at(grid, bits), tensor) for bits in sorted(widths)})
            return
        if not isinstance(grid, Integer) or not one_sided(quantizer):
            raise PreconditionError(f"{quantizer.layer}: a clip from zero is for activations that are never negative; see "
                                    "Roles(signed=...)")
        top = quantizer.scale * grid.qmax
        clips: dict[int, Simulation] = {}
        for bits in sorted(widths):
            clips[bits] = FixedClip(Integer(bits=bits, signed=False, symmetric=False), top)
        quantizer.simulation = Staged(clips)


def _at(grid: Grid, bits: int) -> Grid:
    return grid if bits == grid.bits else grid.at(bits)


@dataclass(frozen=True, kw_only=True)
class Stages(Hook):
    """Goes through the stages as training progresses.

    Two stages are the paper's first method (weights, then activations), falling bits its second. (zhuang2018twostage)
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        starts = [stage.start for stage in self.stages]
        if not starts or starts != sorted(starts) or starts[0] != 0 or starts[-1] >= 1:
            raise RecipeError(f"stages start at 0 and then later and later, before 1, not at {starts}")
        if self.stages[-1].weights is None or self.stages[-1].activations is None:
            raise RecipeError("the last stage has bits for weights and for activations")

    def batch(self, state: State, batch: Batch) -> Batch:
        """Change bits where it is time."""
        stage = next(stage for stage in reversed(self.stages) if state.progress >= stage.start)
        for quantizer in quantizers(state.model):
            if isinstance(quantizer.simulation, Staged):
                wanted = stage.weights if quantizer.weight else stage.activations
                quantizer.simulation.bits = None if wanted is None else max(wanted, quantizer.grid.bits)
        return batch
