"""Widths that are learned: simulations whose width moves while training, and the hook that keeps them within a budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.core.knapsack import choose
from lilliput.quantize.calibrate import quantizers
from lilliput.quantize.estimators import StraightThrough
from lilliput.quantize.grids import Grid, Parameters
from lilliput.quantize.mixed.task import Array
from lilliput.quantize.op import fake_quantize
from lilliput.quantize.quantizer import Quantizer, Simulation
from lilliput.quantize.ranges import MinMax, channel_bounds
from lilliput.train import Hook, State


def at_width(x: Tensor, grid: Grid, parameters: Parameters | None = None) -> Tensor:
    """`x` rounded to a symmetric integer grid, that of its extremes unless told; straight-through gradients."""
    scale, zero, _ = parameters or grid.parameters(*channel_bounds(MinMax(), x, grid))
    top = (1 << (grid.bits - 1)) - 1
    result: Tensor = fake_quantize(x, scale, zero, -top, top, -1 if grid.axis is None else grid.axis)
    return result


def between(bits: Tensor, widths: Sequence[int]) -> tuple[int, Tensor]:
    """The index of the widest width not above `bits` and not the last, and the share of the way from it to the next."""
    lower = max((i for i, width in enumerate(widths[:-1]) if width <= float(bits.detach())), default=0)
    if len(widths) == 1:
        return 0, torch.zeros_like(bits)
    return lower, ((bits - widths[lower]) / (widths[lower + 1] - widths[lower])).clamp(0, 1)


def interpolation(bits: Tensor, widths: Sequence[int]) -> Tensor:
    """Weights of a linear interpolation between neighbouring widths, `(widths,)`, differentiable in `bits`; they sum to 1."""
    lower, share = between(bits, widths)
    zero = torch.zeros_like(share)
    return torch.stack([1 - share if i == lower else share if i == lower + 1 else zero for i in range(len(widths))])


def noise(bits: Tensor, widths: Sequence[int], count: int) -> Tensor:
    """What each width loses, `(widths,)`, where `bits` is the width that learning settled on: `count 4^(bits - width)`.

    Rounding noise falls fourfold with every bit. Where the price of a bit is a layer's `count` of weights, the widths that
    balance loss and price are those at which each layer loses in proportion to its count; from there the noise follows at
    all other widths.
    """
    return count * 4.0 ** (bits.detach() - torch.tensor(widths).to(bits))


class Flexible(Simulation):
    """Weights on symmetric integer grids of a width that is found while training, and then fixed.

    Training searches until `fix`. Evaluation rounds to the width fixed, or before that to the one that is liked best.
    """

    fixed: Tensor

    def __init__(self, grid: Grid, widths: Sequence[int]) -> None:
        super().__init__()
        self.grid, self.widths = grid, tuple(widths)
        self.register_buffer("fixed", torch.tensor(0))

    @abstractmethod
    def search(self, x: Tensor) -> Tensor:
        """`x` as training sees it before the width is fixed."""

    @abstractmethod
    def shares(self) -> Tensor:
        """How much of every width is in use, `(widths,)`, differentiable; sums to 1."""

    @abstractmethod
    def regret(self) -> Tensor:
        """How much is lost by each width, `(widths,)`, in a unit that adds up over layers."""

    def rounded(self, x: Tensor, width: int) -> Tensor:
        """`x` on the grid of one width."""
        return at_width(x, self.grid.at(width))

    def parameters_at(self, x: Tensor, width: int) -> Parameters:
        """Scale and zero point of one width."""
        return self.grid.at(width).parameters(*channel_bounds(MinMax(), x, self.grid))

    def advance(self, progress: float) -> None:
        """Take note of the share of the search that is done."""

    def project_(self) -> None:
        """Move the parameters back to where they mean something."""

    def fix(self, width: int) -> None:
        """End the search."""
        self.fixed.fill_(width)

    @property
    def width(self) -> int:
        """The width fixed, or else that of least regret."""
        return int(self.fixed) or self.widths[int(self.regret().argmin())]

    def forward(self, x: Tensor) -> Tensor:
        """Quantize `x`."""
        if self.training and not int(self.fixed):
            return self.search(x)
        return self.rounded(x, self.width)

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """Leave the grid of the width found."""
        assert tensor is not None
        width = self.width
        quantizer.regrid(self.grid.at(width))
        quantizer.set(self.parameters_at(tensor, width))
        return self.rounded(tensor, width)


class Learner(ABC):
    """A way to learn widths: the simulation of a layer's weights, and how costs enter the loss."""

    @abstractmethod
    def simulation(self, grid: Grid, widths: Sequence[int], start: float, count: int) -> Flexible:
        """The simulation of a tensor of `count` weights, where it can at the (fractional) width `start`."""

    @abstractmethod
    def priced(self, loss: Tensor, spent: Tensor, limits: Tensor) -> Tensor:
        """The loss with its price, for costs `spent` and what they may be, both `(limits,)`."""


@dataclass(frozen=True, kw_only=True)
class LearnedWidths:
    """An estimator that gives weights of `layers` the simulations of a `learner`, and all else straight-through ranges."""

    learner: Learner
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    start: float

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install the simulation."""
        if tensor is None or quantizer.layer not in self.layers:
            StraightThrough().equip_(quantizer, tensor)
        else:
            quantizer.simulation = self.learner.simulation(quantizer.grid, self.widths, self.start, tensor.numel())


@dataclass(kw_only=True)
class WithinBudget(Hook):
    """Prices widths while they are searched, and fixes them exactly within the limits when `search` of training is done.

    The widths' parameters have an optimizer of their own (Adam without weight decay), whose `rate` falls linearly to zero:
    it is about the bits by which a width may move in one step, whatever the scale of the loss. Fixed are the widths of least
    regret that meet the limits.
    """

    learner: Learner
    layers: tuple[str, ...]
    costs: Mapping[str, Array]
    limits: Mapping[str, float]
    search: float = 0.5
    rate: float = 0.1
    moments: dict[str, Tensor] = field(default_factory=dict, repr=False)
    steps: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.search <= 1:
            raise RecipeError(f"search is a share of training above 0 and up to 1, not {self.search!r}")

    def start(self, state: State) -> None:
        """Raises `PreconditionError` where no width is to be learned."""
        self.moments, self.steps = {}, 0
        if not any(self._simulations(state.model)):
            raise PreconditionError("no layer has a width to learn: train with the estimator LearnedWidths")

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:  # noqa: ARG002
        """Add the price, while widths are searched."""
        found = self._simulations(state.model)
        if all(int(simulation.fixed) for layer in found for simulation in layer):
            return loss
        shares = torch.stack([sum((s.shares() for s in layer[1:]), layer[0].shares()) / len(layer) for layer in found])
        spent = torch.stack([(shares * torch.from_numpy(cost).to(shares)).sum() for cost in self.costs.values()])
        return self.learner.priced(loss, spent, torch.tensor([self.limits[name] for name in self.costs]).to(spent))

    def gradients(self, state: State) -> None:
        """Move the widths' parameters, and keep them from the network's optimizer."""
        self.steps += 1
        rate = self.rate * (1 - state.progress)
        for layer, simulations in zip(self.layers, self._simulations(state.model), strict=True):
            for i, simulation in enumerate(simulations):
                for name, parameter in simulation.named_parameters():
                    if parameter.grad is not None:
                        self._adam(f"{layer}:{i}:{name}", parameter, rate)
                        parameter.grad = None
                simulation.project_()

    def _adam(self, key: str, parameter: nn.Parameter, rate: float) -> None:
        grad = parameter.grad
        assert grad is not None
        first = self.moments.setdefault(f"{key}:first", torch.zeros_like(grad)).lerp_(grad, 0.1)
        second = self.moments.setdefault(f"{key}:second", torch.zeros_like(grad)).lerp_(grad.square(), 0.01)
        first, second = first / (1 - 0.9**self.steps), second / (1 - 0.99**self.steps)
        with torch.no_grad():
            parameter.sub_(rate * first / (second.sqrt() + 1e-12))

    def step(self, state: State) -> None:
        """Fix the widths when it is time."""
        for layer in self._simulations(state.model):
            for simulation in layer:
                simulation.advance(min(state.progress / self.search, 1.0))
        if state.progress >= self.search:
            self._fix(state.model)

    def end(self, state: State) -> None:
        """Fix the widths at the latest."""
        self._fix(state.model)

    def _fix(self, model: nn.Module) -> None:
        found = self._simulations(model)
        if all(int(simulation.fixed) for layer in found for simulation in layer):
            return
        with torch.no_grad():
            regret = np.array([sum(s.regret().double().cpu().numpy() for s in layer) for layer in found])
        widths = found[0][0].widths
        for layer, option in zip(found, choose(regret, self.costs, self.limits), strict=True):
            for simulation in layer:
                simulation.fix(widths[option])

    def _simulations(self, model: nn.Module) -> list[list[Flexible]]:
        """The simulations of every layer, in the order of the costs."""
        found: dict[str, list[Flexible]] = {name: [] for name in self.layers}
        for quantizer in quantizers(model):
            if quantizer.layer in found and isinstance(quantizer.simulation, Flexible):
                found[quantizer.layer].append(quantizer.simulation)
        return list(found.values())

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's moments."""
        return {"moments": dict(self.moments), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.moments, self.steps = dict(state["moments"]), state["steps"]
