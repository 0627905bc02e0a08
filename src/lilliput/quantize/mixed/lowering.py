"""Training that drops bits of channels, the least important first, until a budget is met."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.core.budget import Budget
from lilliput.core.errors import BudgetError, PreconditionError, RecipeError
from lilliput.core.report import Report, Row, describe
from lilliput.core.step import Result
from lilliput.graph.trace import Traced
from lilliput.quantize.bits import Uniform
from lilliput.quantize.calibrate import constants
from lilliput.quantize.estimators import StraightThrough
from lilliput.quantize.mixed.multibit import Bases, MultiBit
from lilliput.quantize.mixed.step import Chosen, budgeted
from lilliput.quantize.mixed.task import Task, Widths
from lilliput.quantize.mixed.written import only_bits
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.training import Train
from lilliput.train import Hook, State


class ChannelBits(ABC):
    """A way to give channels bits of their own: makes the simulation of a weight."""

    @abstractmethod
    def simulation(self, grid: MultiBit, weight: Tensor) -> Bases:
        """The simulation, all channels at the most bits."""


@dataclass(frozen=True, kw_only=True)
class MultiBitWeights:
    """An estimator that gives multi-bit weights the simulations of `channels`, and everything else straight-through ranges."""

    channels: ChannelBits

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install the simulation; raises `PreconditionError` for weights without a scale to each output channel."""
        if not isinstance(quantizer.grid, MultiBit):
            StraightThrough().equip_(quantizer, tensor)
            return
        if tensor is None or quantizer.grid.axis is None:
            raise PreconditionError(f"{quantizer.layer} has no output channels of its own to count bits in: exclude it")
        quantizer.simulation = self.channels.simulation(quantizer.grid, tensor.detach())


@dataclass(kw_only=True)
class Lowering(Hook):
    """Drops bits in `rounds` over the first `search` share of training, the same part of what is too much in each.

    `limit` counts the bits of all weights with such simulations. What is dropped first has the least score, whatever its layer.
    """

    limit: float
    search: float = 0.5
    rounds: int = 16
    done: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.search <= 1 or self.rounds < 1:
            raise RecipeError("search is a share of training above 0 and up to 1, and rounds at least 1, "
                              f"not {self.search!r} and {self.rounds!r}")

    def start(self, state: State) -> None:
        """Raises `PreconditionError` where no weight has bits to drop."""
        self.done = 0
        if not isinstance(state.model, Traced) or not _held(state.model):
            raise PreconditionError("no layer has multi-bit weights: train with the estimator MultiBitWeights")

    def step(self, state: State) -> None:
        """Fit the coordinates, and drop bits when it is time."""
        with torch.no_grad():
            for simulation, weight in _held(state.model):
                simulation.update_(weight)
            due = min(int(state.progress / self.search * self.rounds), self.rounds)
            if due > self.done:
                held, left = _held(state.model), self.rounds - self.done
                too_much = _total(held) - self.limit
                _drop(held, self.limit + max(too_much, 0.0) * (left - (due - self.done)) / left)
                self.done = due

    def end(self, state: State) -> None:
        """Meet the limit at the latest."""
        with torch.no_grad():
            _drop(_held(state.model), self.limit)

    def state_dict(self) -> dict[str, Any]:
        """How many rounds are done."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.done = state["done"]


def _held(model: nn.Module) -> list[tuple[Bases, Tensor]]:
    assert isinstance(model, Traced)
    return [(q.simulation, weight.detach()) for q, weight in constants(model) if isinstance(q.simulation, Bases)]


def _total(held: list[tuple[Bases, Tensor]]) -> float:
    return sum(float(simulation.bits.sum()) * (weight.numel() // len(simulation.bits)) for simulation, weight in held)


def _drop(held: list[tuple[Bases, Tensor]], target: float) -> None:
    """Drop bits of least score until no more than `target` are left; a channel's next bit is scored anew in the next pass."""
    while (over := _total(held) - target) > 0:
        scores = [simulation.scores(weight) for simulation, weight in held]
        flat = torch.cat([s.flatten() for s in scores])
        sizes = torch.cat([torch.full((s.numel(),), weight.numel() // len(s))
                           for s, (_, weight) in zip(scores, held, strict=True)])
        order = flat.argsort(stable=True)
        order = order[flat[order].isfinite()]
        if not len(order):
            raise BudgetError("the budget cannot be met: no bits are left to drop")
        enough = int((sizes[order].cumsum(0) < over).sum()) + 1
        marked = torch.zeros_like(flat, dtype=torch.bool)
        marked[order[:enough]] = True
        for part, s, (simulation, _) in zip(torch.split(marked, [s.numel() for s in scores]), scores, held, strict=True):
            simulation.drop_(part.view_as(s))


@dataclass(frozen=True, kw_only=True)
class LowerMixed:
    """A Step: train with multi-bit weights whose channels lose bits until the average over all weights meets the budget.

    Channels start with `bases` bits each and may lose them all. `train` says how to train, its scheme which layers; the grid
    of the weights is replaced. The exported file stores codes of a layer at the width of `bases`.
    """

    budget: Budget
    channels: ChannelBits
    bases: int = 6
    activations: int = 8
    train: Train = field(default_factory=Train)
    search: float = 0.5
    method: str = "quantize.dmbq"

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The trained network, rows with the average of bits (`channel_bits`), and the budget beside what was reached."""
        started = time.perf_counter()
        only_bits(self.budget)
        bits = Uniform(weights=self.bases, activations=self.activations)
        scheme = replace(self.train.scheme, weights=MultiBit(bits=self.bases, axis=0), bits=bits)
        widths = Widths(weights=(0, self.bases), activations=self.activations)
        task = Task.of(model, data, replace(self.train, scheme=scheme), budget=self.budget, widths=widths, costs={})
        hook = Lowering(limit=task.limits["bits"], search=self.search)
        estimator = MultiBitWeights(channels=self.channels)
        train = replace(self.train, scheme=scheme, estimator=estimator, hooks=(hook, *self.train.hooks), method=self.method)
        result = train(model, data)
        assert isinstance(result.model, Traced)
        found = counted(result.model)
        reached = sum(layer.count * found[layer.name] for layer in task.layers)
        rows: dict[str, Row] = {name: {"channel_bits": value} for name, value in found.items()}
        entry = budgeted(result.report.entries[0], task, {"bits": reached}, reached / task.count, Chosen(options=(), rows=rows))
        return Result(result.model, Report((replace(entry, recipe=describe(self), seconds=time.perf_counter() - started),)))


def counted(model: Traced) -> dict[str, float]:
    """Average bits of every multi-bit layer: `log2` of the different levels that a channel has, none for a channel of zeros."""
    out: dict[str, float] = {}
    for quantizer, _ in constants(model):
        if isinstance(quantizer.grid, MultiBit):
            rows = quantizer.levels.expand(max(quantizer.scale.numel(), 1), -1)
            out[quantizer.layer] = float(np.mean([np.ceil(np.log2(len(set(row.tolist())))) for row in rows]))
    return out
