"""The step of methods that learn widths while they train the network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from lilliput.core.budget import Budget
from lilliput.core.report import Report, describe
from lilliput.core.step import Result
from lilliput.quantize.bits import Uniform
from lilliput.quantize.calibrate import quantizers
from lilliput.quantize.mixed.costs import Cost
from lilliput.quantize.mixed.flexible import LearnedWidths, Learner, WithinBudget
from lilliput.quantize.mixed.learners import FractionalBits
from lilliput.quantize.mixed.step import Chosen, recorded
from lilliput.quantize.mixed.task import Task, Widths
from lilliput.quantize.training import Train


@dataclass(frozen=True, kw_only=True)
class LearnMixed:
    """A Step: train with widths that are learned, under a budget, in the first `search` share of training, and fixed in the rest.

    What budgets limit stands at `Mixed`. The widths start where all layers have the same one and the budget is just met.
    `train` says how to train; its scheme says which layers, on which grids.
    """

    budget: Budget
    learner: Learner = field(default_factory=FractionalBits)
    widths: Widths = field(default_factory=Widths)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    train: Train = field(default_factory=Train)
    search: float = 0.5
    method: str = "quantize.fracbits"

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The trained network; rows with bits, and the budget beside what was reached."""
        started = time.perf_counter()
        task = Task.of(model, data, self.train, budget=self.budget, widths=self.widths, costs=self.costs)
        layers = tuple(layer.name for layer in task.layers)
        estimator = LearnedWidths(learner=self.learner, layers=layers, widths=self.widths.weights, start=uniform_width(task))
        hook = WithinBudget(learner=self.learner, layers=layers, costs=task.costs, limits=task.limits, search=self.search)
        bits = Uniform(weights=self.widths.weights[-1], activations=self.widths.activations)
        scheme, hooks = replace(self.train.scheme, bits=bits), (hook, *self.train.hooks)
        train = replace(self.train, scheme=scheme, estimator=estimator, hooks=hooks, method=self.method)
        result = train(model, data)
        found = {q.layer: q.grid.bits for q in quantizers(result.model) if q.weight}
        chosen = Chosen(options=tuple(self.widths.weights.index(found[name]) for name in layers))
        entry = recorded(result.report.entries[0], task, chosen)
        return Result(result.model, Report((replace(entry, recipe=describe(self), seconds=time.perf_counter() - started),)))


def uniform_width(task: Task) -> float:
    """The largest width, fractions allowed, at which all layers together meet every limit; the narrowest where none does."""
    widths = np.array(task.widths.weights, dtype=float)
    best = float(widths[-1])
    for name, limit in task.limits.items():
        totals = task.costs[name].sum(0)
        fits = np.flatnonzero(totals <= limit)
        if not len(fits):
            return float(widths[0])
        at = int(fits[-1])
        if at + 1 < len(widths):
            share = (limit - totals[at]) / (totals[at + 1] - totals[at])
            best = min(best, float(widths[at] + share * (widths[at + 1] - widths[at])))
    return best
