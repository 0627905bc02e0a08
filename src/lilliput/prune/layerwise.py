"""The composer of pruning layer by layer: a solver for one layer's weights, on the inputs that pruned layers before it give."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from lilliput.core import Budget, BudgetError, Entry, PreconditionError, Report, Result, describe
from lilliput.data.drawing import batches_within
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.graph.fold import TRANSPOSED
from lilliput.graph.moments import Moments
from lilliput.graph.products import LAYERS, as_rows
from lilliput.graph.walk import Walk, constant_nodes, sample_bytes
from lilliput.graph.weights import has_own_weight, parameter, weight_name, weight_of
from lilliput.prune.allocation import uniform
from lilliput.prune.criteria import Magnitude
from lilliput.prune.fitting import Target, meet
from lilliput.prune.hooks import HoldMasks
from lilliput.prune.patterns import Pattern, Whole
from lilliput.prune.solvers import Solver
from lilliput.prune.statistics import Stats
from lilliput.prune.step import FineTune, fitted, floating, recalibrated
from lilliput.prune.units import Element, ElementPlan


@dataclass(frozen=True, kw_only=True)
class LayerByLayer:
    """Prune linear layers and convolutions from input to output, each with what the pruned network gives it for inputs.

    Every layer loses the same share: what the budget asks for, or what `pattern` says by itself, and then there need be no
    budget. A solver sees a layer as rows, and their inputs by `H = 2 / positions sum x x'` over `samples` samples; columns of a
    convolution come with its input channels innermost. Without `recover`, batch-norm statistics are estimated anew in the end.
    Weights on inputs that were always zero go first, and stay what they were where they stay.
    """

    method: str
    solver: Solver
    pattern: Pattern = field(default_factory=Whole)
    budget: Budget | None = None
    unit: Element = field(default_factory=Element)
    samples: int = 256
    recover: FineTune | None = None
    checkpoint: Path | None = field(default=None, repr=False)

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """Prune a copy of `model`; raises `BudgetError` when the budget cannot be met."""
        began = time.perf_counter()
        traced = floating(model, data)
        if data is None:
            raise PreconditionError(f"{self.method} looks at the inputs of every layer: pass data=")
        pruned = copy.deepcopy(traced).eval()
        layers, refused = self._layers(pruned)
        plan = ElementPlan(traced, replace(self.unit, exclude=(*self.unit.exclude, *refused)))
        drops, target = self._drops(plan, traced)
        batches, notes = batches_within(data.train, self.samples, sample_bytes(traced))
        keep, errors = self._walked(Walk(pruned, batches), layers, dict(zip(plan.names, drops, strict=True)))
        kept = [keep[name] for name in plan.names]
        small = self._recovered(pruned.train(traced.training), plan, kept, data)
        rows = [{**row, "output_error": errors[name]} for row, name in zip(plan.rows(kept), plan.names, strict=True)]
        share = sum(drops) / sum(len(k) for k in kept)
        notes = [f"sparsity {share:.4f}", *notes, *plan.notes(), *(f"{name} stays whole: {why}" for name, why in refused.items())]
        promised, measured = ({}, {}) if target is None else (dict(target.limits), target.cost(plan, kept, lambda: small))
        entry = Entry(method=self.method, recipe=describe(self), layers=tuple(rows), promised=promised, measured=measured,
                      notes=tuple(notes), seconds=time.perf_counter() - began)
        return Result(small, Report((entry,)))

    def _layers(self, traced: Traced) -> tuple[dict[str, fx.Node], dict[str, str]]:
        """Layers that can be pruned, by the name of their weight, and reasons why others cannot, by theirs."""
        constant = constant_nodes(traced)
        layers: dict[str, fx.Node] = {}
        refused: dict[str, str] = {}
        weights = set(ElementPlan(traced, self.unit).names)
        for node in traced.graph.nodes:
            name = parameter(node.args[1]) if node.target in LAYERS else None
            if name in weights:
                why = self._refusal(traced, node, constant)
                layers |= {} if why else {name: node}
                refused |= {name.rpartition(".")[0]: why} if why else {}
        found = {name.rpartition(".")[0] for name in layers}
        for owner in (name.rpartition(".")[0] for name in weights):
            if owner not in found:
                refused.setdefault(owner, "it is no linear layer or convolution")
        return {name: node for name, node in layers.items() if name.rpartition(".")[0] not in refused}, refused

    def _refusal(self, traced: Traced, layer: fx.Node, constant: set[fx.Node]) -> str:
        weight = traced.tensor(weight_name(layer))
        if layer.target in TRANSPOSED:
            return "it is a transposed convolution"
        names = {str(n.target) for n in traced.graph.nodes if n.op == "get_attr" and traced.tensor(str(n.target)) is weight}
        if not has_own_weight(layer) or len(names) > 1:
            return "something else reads its weight, too"
        if layer.args[0] in constant:
            return "it has no inputs from data"
        span, channels = self.pattern.span, weight.shape[1]
        return "" if span is None or channels % span == 0 else f"its {channels} input channels do not divide into parts of {span}"

    def _drops(self, plan: ElementPlan, traced: Traced) -> tuple[list[int], Target | None]:
        """How many weights of each layer go, and the budget's limits."""
        if not plan.names:
            raise BudgetError(f"{self.method} finds nothing in this network to prune: it takes linear layers and convolutions "
                              "whose weights are their own")
        target = None if self.budget is None else Target.of(self.budget, plan, traced, None)
        if self.pattern.share is None:
            if target is None:
                raise PreconditionError(f"{self.method} is not told how much goes: pass a budget such as Budget(params=0.5), or "
                                        "a pattern that says it, NM(n=2, m=4)")
            keep = meet(plan, plan.scores(Magnitude(), Stats(), traced), uniform, target, traced)[1]
            return [int((~k).sum()) for k in keep], target
        drops = [round(self.pattern.share * len(k)) for k in plan.everything()]
        if target is not None:
            cost = plan.cost([np.arange(len(k)) >= drop for k, drop in zip(plan.everything(), drops, strict=True)])
            if not target.met(cost):
                worst = max(target.limits, key=lambda name: cost[name] / target.limits[name])
                raise BudgetError(f"{worst} <= {target.limits[worst]:.6g} cannot be met: the least this network allows is "
                                  f"{cost[worst]:.6g} with {self.pattern}; ask for that, or take a pattern that removes more")
        return drops, target

    def _walked(self, walk: Walk, layers: dict[str, fx.Node], drops: dict[str, int]) -> tuple[dict[str, Keep], dict[str, float]]:
        """Prune in place, layer after layer: what is kept, and what part of its output each layer loses."""
        keep: dict[str, Keep] = {}
        errors: dict[str, float] = {}
        for name, layer in layers.items():
            walk.before(layer)
            weight, source = weight_of(walk.traced, layer), layer.args[0]
            assert isinstance(source, fx.Node)
            moments = Moments(layer, weight)
            for values in walk.values:
                moments.update(values[source])
            order = _innermost(weight)
            rows, hessian = as_rows(weight.double(), layer)[:, :, order], moments.hessian[:, order][:, :, order]
            found, kept = self._solved(rows, hessian, drops[name])
            change = found - rows
            norm = float((rows @ hessian * rows).sum())
            errors[name] = float((change @ hessian * change).sum()) / norm if norm > 0 else 0.0
            back = order.argsort()
            walk.traced.set_tensor(weight_name(layer), found[:, :, back].reshape(weight.shape).to(weight.dtype))
            keep[name] = kept[:, :, back].flatten().numpy()
        return keep, errors

    def _solved(self, rows: Tensor, hessian: Tensor, drop: int) -> tuple[Tensor, Tensor]:
        read = (hessian.diagonal(dim1=1, dim2=2) > 0)[:, None].expand_as(rows)
        found, kept = self.solver(rows * read, hessian, self.pattern, drop)
        return torch.where(kept & ~read, rows, found), kept

    def _recovered(self, pruned: Traced, plan: ElementPlan, keep: list[Keep], data: Any) -> Traced:
        if self.recover is None:
            return recalibrated(pruned, data)
        checkpoint = None if self.checkpoint is None else self.checkpoint.with_suffix(f".recover{self.checkpoint.suffix}")
        return fitted(pruned, data, self.recover.fit, (*self.recover.hooks, HoldMasks(plan.masks(keep))), checkpoint)


def _innermost(weight: Tensor) -> Tensor:
    """The order of a layer's columns in which the input channels at one position of the kernel come one after the other."""
    return torch.arange(weight[0].numel()).reshape(weight.shape[1], -1).T.flatten()
