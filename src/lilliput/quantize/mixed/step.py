"""The step: choose a width for every layer under a budget, then quantize, or train, with them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from lilliput.core.budget import Budget
from lilliput.core.knapsack import choose
from lilliput.core.report import Entry, Report, Row, describe
from lilliput.core.step import Result
from lilliput.quantize.mixed.costs import Cost
from lilliput.quantize.mixed.hessian import HessianTrace
from lilliput.quantize.mixed.sensitivity import Sensitivity
from lilliput.quantize.mixed.task import Task, Widths
from lilliput.quantize.posttraining import Static
from lilliput.quantize.training import Train


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """An option (an index into the widths) for every layer, what the search expects of it, a row to each layer, and notes."""

    options: tuple[int, ...]
    expected: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, Row] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Search(ABC):
    """Chooses widths: `(task) -> Chosen`, within the task's limits."""

    @abstractmethod
    def __call__(self, task: Task) -> Chosen:
        """The choice; raises `BudgetError` where nothing meets the limits."""


@dataclass(frozen=True, kw_only=True)
class Additive(Search):
    """The widths whose sensitivities add up to least, chosen exactly. (yao2021hawqv3)"""

    sensitivity: Sensitivity = field(default_factory=HessianTrace)

    def __call__(self, task: Task) -> Chosen:
        """The choice; `predicted_loss` is the sum of the sensitivities."""
        table = self.sensitivity(task)
        options = choose(table, task.costs, task.limits)
        found = table[np.arange(len(options)), list(options)]
        rows = {layer.name: {"sensitivity": float(value)} for layer, value in zip(task.layers, found, strict=True)}
        return Chosen(options=options, rows=rows, expected={"predicted_loss": float(found.sum())})


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A Step: `search` chooses a width for every layer within `budget`, then `inner` quantizes with them.

    Budgets limit `bits` (the average over all weights of quantized layers), `size` (bytes of the weights as they are stored,
    with scales and all other parameters, but without the file's graph; a share is one of the float32 parameters), or
    anything that `costs` has a table or a function for, such as `latency` and `energy` (a share is one of the cost of the
    widest widths). The scheme of `inner` says which layers, on which grids; its bits are replaced.
    """

    budget: Budget
    search: Search = field(default_factory=Additive)
    widths: Widths = field(default_factory=Widths)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    inner: Static | Train = field(default_factory=Static)
    method: str = "quantize.mixed"

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The quantized network, rows with bits and sensitivity, and the budget beside what was reached."""
        started = time.perf_counter()
        task = Task.of(model, data, self.inner, budget=self.budget, widths=self.widths, costs=self.costs)
        chosen = self.search(task)
        inner = replace(self.inner, scheme=replace(self.inner.scheme, bits=task.bits(chosen.options)), method=self.method)
        result = inner(model, data)
        entry = recorded(result.report.entries[0], task, chosen)
        return Result(result.model, Report((replace(entry, recipe=describe(self), seconds=time.perf_counter() - started),)))


def recorded(entry: Entry, task: Task, chosen: Chosen) -> Entry:
    """A quantization's entry with the choice in it: rows, the average of bits, and each limit beside what was reached."""
    reached = {name: task.cost(name, chosen.options) for name in task.limits}
    bits = sum(layer.count * task.widths.weights[c] for layer, c in zip(task.layers, chosen.options, strict=True)) / task.count
    return budgeted(entry, task, reached, bits, chosen)


def budgeted(entry: Entry, task: Task, reached: Mapping[str, float], bits: float, chosen: Chosen) -> Entry:
    """The same for methods that count for themselves what they `reached`; `bits` is the average width of a weight."""
    rows = tuple({**row, **chosen.rows.get(str(row["layer"]), {})} for row in entry.layers)
    promised, measured = ({name: value / task.count if name == "bits" else value for name, value in values.items()}
                          for values in (task.limits, reached))
    return replace(entry, metrics={**entry.metrics, "bits": bits, **chosen.expected}, layers=rows,
                   promised={**entry.promised, **promised}, measured={**entry.measured, **measured},
                   notes=(*entry.notes, *chosen.notes))


def mixed(budget: Budget, *, sensitivity: Sensitivity = HessianTrace(), widths: Widths = Widths(),
          costs: Mapping[str, Cost] | None = None, inner: Static | Train = Static()) -> Mixed:
    """Mixed precision by any additive sensitivity, solved exactly under any budget: `mixed(Budget(bits=4.0))`."""
    search = Additive(sensitivity=sensitivity)
    return Mixed(budget=budget, search=search, widths=widths, costs=costs or {}, inner=inner, method="quantize.mixed")
