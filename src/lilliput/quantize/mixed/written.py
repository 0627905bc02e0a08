"""Widths of single channels, or single weights: values found elsewhere, written into a quantized network."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from lilliput.core.budget import Budget
from lilliput.core.errors import PreconditionError
from lilliput.core.report import Report, Row, describe
from lilliput.core.step import Result
from lilliput.graph.trace import Traced
from lilliput.quantize.bits import Uniform
from lilliput.quantize.calibrate import constant_names, widen_
from lilliput.quantize.grids import Grid, Parameters
from lilliput.quantize.mixed.step import Chosen, budgeted
from lilliput.quantize.mixed.task import Task, Widths
from lilliput.quantize.posttraining import Static


@dataclass(frozen=True)
class Written:
    """A weight's final values and the integer grid and scales on which they lie.

    A channel of `b` bits with scale `s` has codes up to `2^(b - 1) - 1` of the widest channel's grid, at its own scale.
    """

    values: Tensor
    grid: Grid
    parameters: Parameters


@dataclass(frozen=True)
class Write:
    """A Rounding that writes down values found before, by the names of the weights."""

    weights: Mapping[str, Written]

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:  # noqa: ARG002
        """Values, grids and scales, and biases that fit them."""
        for quantizer, name in constant_names(quantized):
            if name in self.weights:
                found = self.weights[name]
                quantizer.regrid(found.grid)
                quantizer.set(found.parameters)
                quantized.set_tensor(name, found.values)
        return widen_(quantized)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """All weights, the average width of each layer's, what the search expects, and notes."""

    weights: Mapping[str, Written]
    bits: Mapping[str, float]
    expected: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class FineSearch(ABC):
    """Chooses widths of parts of layers: `(task) -> Finding`, within `task.limits["bits"]`."""

    @abstractmethod
    def __call__(self, task: Task) -> Finding:
        """The weights; raises `BudgetError` where nothing meets the limit."""


def only_bits(budget: Budget) -> None:
    """Raise `PreconditionError` for a budget that limits anything but bits: nothing else knows widths within a layer."""
    if budget.costs() != ("bits",):
        given = ", ".join(budget.costs()) or "nothing"
        raise PreconditionError(f"widths within a layer are counted in bits: give Budget(bits=...) alone, not {given}")


@dataclass(frozen=True, kw_only=True)
class FineMixed:
    """A Step: `search` finds weights whose widths differ within a layer, and `inner` quantizes everything else.

    `bits` is the average over all weights of quantized layers, and counts their values alone. The exported file stores all
    values of a layer at the width of its widest.
    """

    budget: Budget
    search: FineSearch
    widths: Widths = field(default_factory=Widths)
    inner: Static = field(default_factory=Static)
    method: str = "quantize.autoq"

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The quantized network, rows with the average of bits (`channel_bits`), and the budget beside what was reached."""
        started = time.perf_counter()
        only_bits(self.budget)
        scheme = replace(self.inner.scheme, bits=Uniform(weights=self.widths.weights[-1], activations=self.widths.activations))
        task = Task.of(model, data, replace(self.inner, scheme=scheme), budget=self.budget, widths=self.widths, costs={})
        found = self.search(task)
        roundings = (*self.inner.roundings, Write(found.weights))
        result = replace(self.inner, scheme=scheme, roundings=roundings, method=self.method)(model, data)
        reached = sum(layer.count * found.bits[layer.name] for layer in task.layers)
        rows: dict[str, Row] = {name: {"channel_bits": bits} for name, bits in found.bits.items()}
        chosen = Chosen(options=(), rows=rows, expected=found.expected, notes=found.notes)
        entry = budgeted(result.report.entries[0], task, {"bits": reached}, reached / task.count, chosen)
        return Result(result.model, Report((replace(entry, recipe=describe(self), seconds=time.perf_counter() - started),)))
