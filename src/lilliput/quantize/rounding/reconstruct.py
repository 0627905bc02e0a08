"""Reconstruction: rounding learned piece by piece, so that each piece's results stay those of the float network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from lilliput.core.errors import RecipeError
from lilliput.graph.trace import Traced
from lilliput.graph.walk import Walk
from lilliput.quantize.calibrate import calibration_batches, widen_
from lilliput.quantize.grids import Parameters
from lilliput.quantize.rounding.partition import Partition, layers
from lilliput.quantize.rounding.problem import Problem, pose
from lilliput.quantize.rounding.soft import LearnedScale, SoftRounding
from lilliput.train.progress import Bar


class Importance(Protocol):
    """How much an error in each value of a piece's result matters."""

    def __call__(self, walk: Walk, end: fx.Node, data: Any) -> Tensor:
        """Weights of mean 1, `(1, ...)`, for the results of `end` in the float network, of which the walk holds all batches."""


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How one piece is learned: `iterations` steps of Adam, each on one batch of calibration samples, in random order.

    The loss is the squared error in units of the mean squared result, summed over channels, plus `penalty` for each undecided
    weight. The penalty's exponent falls from `beta[0]` to `beta[1]` along half a cosine, after a first `warmup` share of the
    steps without penalty. `lr` is the step of the logits `V`, `scale_lr` that of the logarithms of activation scales.

    Departs from the papers in 1,000 steps instead of 10,000 or 20,000, with a learning rate to match. (nagel2020adaround,
    li2021brecq)
    """

    iterations: int = 1000
    lr: float = 3e-2
    scale_lr: float = 1e-3
    penalty: float = 0.1
    beta: tuple[float, float] = (20.0, 2.0)
    warmup: float = 0.2

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 0 <= self.warmup < 1:
            raise RecipeError(f"reconstruction takes one step or more and a warm-up below 1, not {self.iterations} and {self.warmup}")

    def exponent(self, step: int) -> float | None:
        """The penalty's exponent at a step, None during warm-up."""
        share = (step / self.iterations - self.warmup) / (1 - self.warmup)
        first, last = self.beta
        return None if share < 0 else last + (first - last) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """A rounding: for each piece of `partition`, learn to round its weights up or down, on its inputs in the quantized network.

    `minimise |f(x; W) - f(x'; W')|^2`, weighted by `importance` where given; with `scales`, those of the activations in the
    piece and after it are learned too. Departs from the papers where that does not improve on the nearest values: they are kept
    then. (nagel2020adaround, li2021brecq)
    """

    partition: Partition = layers
    importance: Importance | None = None
    scales: bool = False
    descent: Descent = field(default_factory=Descent)

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:
        """Round in place; the note says what part of the error was left."""
        batches, notes = calibration_batches(reference, data, samples)
        pieces = self.partition(reference)
        mine, theirs = Walk(quantized, batches), Walk(reference, batches)
        left: list[float] = []
        with Bar(total=len(pieces) * self.descent.iterations) as bar:
            for index, piece in enumerate(pieces):
                wanted = theirs.through(piece.end)
                importance = None if self.importance is None else self.importance(theirs, piece.end, data)
                problem = pose(mine, piece, wanted, importance, scales=self.scales)
                if problem is not None:
                    left.append(learn_(problem, self.descent, partial(_tell, bar, index * self.descent.iterations, piece.name)))
        kept = sum(part >= 1 for part in left)
        mean = math.exp(sum(math.log(max(part, 1e-12)) for part in left) / max(len(left), 1))
        notes.append(f"rounding learned in {len(left)} pieces: {100 * mean:.0f}% of the error of nearest values is left"
                     + (f"; {kept} pieces kept those" if kept else ""))
        return notes + (widen_(quantized) if self.scales else [])


def _tell(bar: Bar, first: int, text: str, step: int) -> None:
    bar.update(first + step, text)


def learn_(problem: Problem, descent: Descent, tell: Callable[[int], None]) -> float:
    """Learn one piece's rounding in place; returns the part of the error that is left, at most 1."""
    traced = problem.traced
    before = problem.total()
    old = {name: traced.tensor(name).detach().clone() for name in problem.weights.values()}
    ranges = {quantizer: quantizer.scale.detach().clone() for quantizer in problem.scales}
    soft = {quantizer: SoftRounding(quantizer, old[name]) for quantizer, name in problem.weights.items()}
    moved = {quantizer: LearnedScale(quantizer) for quantizer in problem.scales}
    for quantizer, simulation in [*soft.items(), *moved.items()]:
        quantizer.simulation = simulation
    try:
        _descend(problem, descent, list(soft.values()), list(moved.values()), tell)
    finally:
        for quantizer, name in problem.weights.items():
            values = quantizer.settle(old[name])
            assert values is not None
            traced.set_tensor(name, values)
        for quantizer in problem.scales:
            quantizer.settle(None)
    after = problem.total()
    if after < before:
        return after / before
    for name, tensor in old.items():
        traced.set_tensor(name, tensor)
    for quantizer, scale in ranges.items():
        quantizer.set(Parameters(scale, quantizer.zero_point, torch.zeros_like(scale, dtype=torch.bool)))
    return 1.0


def _descend(problem: Problem, descent: Descent, soft: list[SoftRounding], moved: list[LearnedScale],
             tell: Callable[[int], None]) -> None:
    groups = [{"params": [s.v for s in soft], "lr": descent.lr}]
    if moved:
        groups.append({"params": [m.t for m in moved], "lr": descent.scale_lr})
    optimizer = torch.optim.Adam(groups)
    generator = torch.Generator().manual_seed(0)
    order: list[int] = []
    # The mean over values of the error in units of the mean squared result, times the number of channels.
    unit = problem.channels / problem.power * len(problem.wanted)
    for step in range(descent.iterations):
        order = order or torch.randperm(len(problem.wanted), generator=generator).tolist()
        with torch.enable_grad():
            loss = problem.error(order.pop()) * unit
            beta = descent.exponent(step)
            if beta is not None:
                loss = loss + descent.penalty * torch.stack([s.undecided(beta) for s in soft]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        tell(step + 1)
