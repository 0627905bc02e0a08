"""The one composer of low-rank factorization: a decomposition, ranks, a budget, and how to recover."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.core import Budget, Entry, PreconditionError, Report, Result, describe
from lilliput.core.report import Row
from lilliput.data.drawing import sample_batches
from lilliput.factorize.factors import Factor, composed, replace_, run
from lilliput.factorize.fitting import Costs, Measure, Target, meet
from lilliput.factorize.layers import Layer, find, prepared
from lilliput.factorize.lowrank import Decomposed, Decomposition, Ranks
from lilliput.factorize.observe import inputs_and_outputs, needs_data, response_covariances
from lilliput.factorize.pairs import pair
from lilliput.factorize.ranks import Allocation, Chosen
from lilliput.factorize.recovery import FineTune, Refit
from lilliput.graph.fold import fold_batchnorm_
from lilliput.graph.profile import profile
from lilliput.graph.trace import Traced
from lilliput.train import fit, recalibrate_batchnorm


@dataclass(frozen=True, kw_only=True)
class Factorize:
    """Put a chain of smaller layers in place of every layer where that saves both weights and multiply-accumulates.

    With a `budget` the ranks are the highest that meet it; without one the allocation's own. Decompositions that look at
    data, the refit and the errors in the report use `samples` inputs of the training split. Without training,
    batch-norm statistics are estimated anew on the training split. `measure` maps `size` or `latency` to functions of a
    model, for budgets that structure does not tell. `checkpoint` makes the training resumable.
    """

    method: str
    decomposition: Decomposition
    allocation: Allocation
    budget: Budget | None = None
    recover: FineTune | Refit | None = None
    exclude: tuple[str, ...] = ()
    samples: int = 256
    measure: Measure | None = field(default=None, repr=False)
    checkpoint: Path | None = field(default=None, repr=False)

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """Factorize a copy of `model`; raises `BudgetError` when the budget cannot be met."""
        began = time.perf_counter()
        original = prepared(model, data, self.method)
        target = None if self.budget is None else Target.of(self.budget, _costs(original), original, self.measure)
        if self.decomposition.sees:
            fold_batchnorm_(original)
        layers, notes = find(original, self.exclude)
        ready, reasons = self._decomposed(original, layers, data)
        work = _Work(step=self, original=original, data=data, layers={d.layer.name: d for d in ready})
        chosen = self._chosen(work, ready, target)
        promised = {} if target is None else dict(target.limits)
        ranks = {d.layer.name: r for d, r in zip(ready, chosen, strict=True)}
        small = work.build(chosen)
        errors = {} if data is None else work.output_errors()
        rows = tuple(work.row(layer, ranks.get(layer.name)) | errors.get(layer.name, {}) for layer in layers)
        reasons |= {name: "no ranks save both weights and MACs, or leaving it whole pays more" for name, r in ranks.items() if r is None}
        small = self._recovered(small, data).train(model.training)
        measured = {} if target is None else target.cost(_costs(small), lambda: small)
        entry = Entry(method=self.method, recipe=describe(self), layers=rows, promised=promised, measured=measured,
                      notes=(*notes, *(f"{name} left as it is: {reason}" for name, reason in reasons.items())),
                      seconds=time.perf_counter() - began)
        return Result(small, Report((entry,)))

    def _decomposed(self, original: Traced, layers: Sequence[Layer], data: Any) -> tuple[list[Decomposed], dict[str, str]]:
        covariances: dict[str, Tensor] = {}
        if self.decomposition.sees:
            covariances = response_covariances(original, layers, needs_data(self.method, data).train, self.samples)
        ready: list[Decomposed] = []
        reasons: dict[str, str] = {}
        for layer in layers:
            bias = None if layer.bias is None else original.tensor(layer.bias)
            found = self.decomposition(layer, (original.tensor(layer.weight), bias), covariances.get(layer.name))
            if isinstance(found, str):
                reasons[layer.name] = found
            else:
                ready.append(found)
        if not ready:
            raise PreconditionError(f"nothing in this network can be factorized by {self.method}: "
                                    + "; ".join(f"{name} is {reason}" for name, reason in reasons.items()))
        return ready, reasons

    def _chosen(self, work: _Work, ready: list[Decomposed], target: Target | None) -> Chosen:
        costs = Costs(layers=ready, original=_costs(work.original), biases=self.decomposition.sees)
        if target is not None:
            return meet(costs, self.allocation, target, work.build)
        if self.allocation.amount is None:
            raise PreconditionError(f"{type(self.allocation).__name__} needs a budget: pass budget=Budget(macs=0.5)")
        return self.allocation(ready, costs.price(("params", "macs")))(self.allocation.amount)

    def _recovered(self, small: Traced, data: Any) -> Traced:
        if isinstance(self.recover, FineTune):
            trained = fit(small, needs_data(self.method, data), self.recover.fit, hooks=self.recover.hooks, checkpoint=self.checkpoint).model
        else:
            trained = small if data is None else recalibrate_batchnorm(small, data.train)
        assert isinstance(trained, Traced)
        return trained


def _costs(network: Traced) -> dict[str, float]:
    counted = profile(network)
    return {"params": float(counted.params), "macs": float(counted.macs)}


@dataclass
class _Work:
    """One run of a step: the original, and the factors as they were found last."""

    step: Factorize
    original: Traced
    data: Any
    layers: dict[str, Decomposed]
    factors: dict[str, tuple[Factor, ...]] = field(default_factory=dict)

    def build(self, chosen: Chosen) -> Traced:
        """The network with these ranks, layer after layer, each seeing what the ones before it made of the data."""
        small = copy.deepcopy(self.original)
        sees = self.step.decomposition.sees or isinstance(self.step.recover, Refit)
        inputs = list(sample_batches(needs_data(self.step.method, self.data).train, self.step.samples)) if sees else []
        self.factors = {}
        for decomposed, ranks in zip(self.layers.values(), chosen, strict=True):
            if ranks is not None:
                layer = decomposed.layer
                seen = pair(self.original, small, layer, inputs) if sees else None
                factors = decomposed.factors(ranks, seen)
                if isinstance(self.step.recover, Refit) and seen is not None:
                    factors = self.step.recover(layer, factors, seen)
                self.factors[layer.name] = factors
                replace_(small, layer, factors)
        return small

    def row(self, layer: Layer, ranks: Ranks | None) -> Row:
        """What became of one layer: errors are relative norms, of the weight and of the response to the original's input."""
        row: Row = {"layer": layer.name, "rank": "full" if ranks is None else " x ".join(map(str, ranks)),
                    "macs_before": layer.macs, "macs_after": layer.macs, "params_before": layer.params, "params_after": layer.params}
        if ranks is None:
            return row
        factors, decomposed = self.factors[layer.name], self.layers[layer.name]
        weight = self.original.tensor(layer.weight).detach().double()
        row |= {"macs_after": int(decomposed.macs(ranks)), "params_after": int(decomposed.params(ranks)),
                "weight_error": float((composed(factors, layer) - weight).norm() / weight.norm().clamp(min=1e-300))}
        return row

    def output_errors(self) -> dict[str, Row]:
        """Relative norm of what every chain's response to the original's input differs by, on up to 64 samples."""
        layers = [self.layers[name].layer for name in self.factors]
        sums = {name: [0.0, 0.0] for name in self.factors}
        with torch.no_grad():
            for inputs in sample_batches(self.data.train, min(self.step.samples, 64)):
                for name, (x, y) in inputs_and_outputs(self.original, layers, inputs).items():
                    for place, values in enumerate((run(self.factors[name], x) - y, y)):
                        sums[name][place] += float(values.double().square().sum())
        return {name: {"output_error": math.sqrt(error / max(power, 1e-300))} for name, (error, power) in sums.items()}
