"""The one composer of pruning: a choice on every axis, a budget, and how to recover."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from lilliput.core import Budget, Entry, PreconditionError, Report, Result, describe
from lilliput.graph import Traced, trace
from lilliput.graph.coupling import Keep
from lilliput.graph.rules import scaled_norms
from lilliput.prune.allocation import Allocation, FromBudget, FromNetwork, resolved, told, uniform
from lilliput.prune.branches import Branches
from lilliput.prune.criteria import Criterion
from lilliput.prune.during import Pruning, WhileTraining
from lilliput.prune.fitting import Measure, Target, meet
from lilliput.prune.hooks import Compensation, HoldMasks, NormPenalty, TightenMasks, apply_masks_, change_weights_
from lilliput.prune.mask_search import Rearrangement
from lilliput.prune.reasons import reasons
from lilliput.prune.schedules import Gradual, OneShot, Progressive, Schedule, Soft
from lilliput.prune.sensitivity import sensitivity
from lilliput.prune.statistics import Statistic, Stats, gather
from lilliput.prune.structures import Structures
from lilliput.prune.units import ChannelPlan, Channels, Element, ElementPlan, Plan, Scores
from lilliput.train import Fit, Hook, fit, recalibrate_batchnorm


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Training after (or, for gradual and soft schedules, while) pruning, with further hooks such as distillation."""

    fit: Fit = field(default_factory=Fit)
    hooks: tuple[Hook, ...] = ()


class Preparation(Protocol):
    """Training before pruning."""

    @property
    def fit(self) -> Fit:
        """How to train."""
        ...

    def hooks(self, traced: Traced, /) -> tuple[Hook, ...]:
        """What is done while the network trains; raises `PreconditionError` for a network that it does not suit."""
        ...


@dataclass(frozen=True, kw_only=True)
class Slim:
    """Training before pruning with an L1 penalty on batch-norm scales."""

    fit: Fit = field(default_factory=Fit)
    strength: float = 1e-4

    def hooks(self, traced: Traced) -> tuple[Hook, ...]:
        """Raises `PreconditionError` where there is no batch norm."""
        names = tuple(scale for scale, _ in scaled_norms(traced))
        if not names:
            raise PreconditionError("the penalty is on batch-norm scales, and this network has no batch norm: pass one that has")
        return (NormPenalty(names, self.strength),)


def floating(model: nn.Module, data: Any) -> Traced:
    """The network, traced; raises `PreconditionError` for one that is quantized, or not traced and without an example."""
    if not isinstance(model, Traced) and data is None:
        raise PreconditionError("an untraced model needs an example to trace it: pass data=, or trace it first")
    traced = trace(model, data.example()) if not isinstance(model, Traced) else model
    if any(n.op == "call_module" or "lilliput" in str(n.target) for n in traced.graph.nodes):
        raise PreconditionError("this network is quantized; prune first, then quantize")
    return traced


def fitted(model: Traced, data: Any, config: Fit, hooks: tuple[Hook, ...], checkpoint: Path | None) -> Traced:
    """The network trained on."""
    trained = fit(model, data, config, hooks=hooks, checkpoint=checkpoint).model
    assert isinstance(trained, Traced)
    return trained


def recalibrated(small: Traced, data: Any) -> Traced:
    """The network with batch-norm statistics estimated anew, where there is data."""
    if data is None:
        return small
    out = recalibrate_batchnorm(small, data.train)
    assert isinstance(out, Traced)
    return out


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Remove what matters least until the budget is met.

    The sparsity is found by bisection on structure; training happens only in `prepare` and `recover`. Without
    `recover`, batch-norm statistics are estimated anew on the training split. `measure` maps `size` or `latency` to
    functions of a model, for budgets that structure does not tell. `checkpoint` makes the training resumable.
    `rearrange` swaps what goes at once for as many others; `compensate` changes the weights that stay whenever others go.
    """

    method: str
    budget: Budget | None
    criterion: Criterion
    unit: Channels | Element | Branches | Structures = field(default_factory=Channels)
    allocation: Allocation | FromNetwork | FromBudget = uniform
    schedule: Schedule | WhileTraining = field(default_factory=OneShot)
    prepare: Preparation | None = None
    recover: FineTune | None = None
    rearrange: Rearrangement | None = None
    compensate: Compensation | None = None
    measure: Measure | None = field(default=None, repr=False)
    checkpoint: Path | None = field(default=None, repr=False)

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """Prune a copy of `model`; raises `BudgetError` when the budget cannot be met."""
        began = time.perf_counter()
        traced = self._checked(model, data)
        if self.prepare is not None:
            traced = self._fit(traced, data, self.prepare.fit, self.prepare.hooks(traced), "prepare")
        plan = self.unit.plan(traced)
        target = Target.of(self.budget, plan, traced, self.measure)
        stats = gather(traced, data, self.needs)
        scores = plan.scores(self.criterion, stats, traced)
        ready = replace(self, allocation=resolved(self.allocation, plan, scores, traced, data, target))
        amount, keep = meet(plan, scores, ready.shares, target, traced)
        if isinstance(self.schedule, Progressive):
            for sparsity in self.schedule.amounts(amount):
                masked = copy.deepcopy(traced)
                apply_masks_(masked, plan.masks(plan.keep(scores, ready.shares(scores, sparsity))))
                scores = plan.scores(self.criterion, gather(masked, data, self.criterion.needs), traced)
            amount, keep = meet(plan, scores, ready.shares, target, traced)
        if self.rearrange is not None and isinstance(self.schedule, OneShot):
            keep = self.rearrange(plan, keep, stats, traced)
        small, keep = ready._carried_out(plan, target, ready._compensated(traced, plan, keep, stats), amount, keep, data)
        rises = None if data is None else sensitivity(plan, keep, traced, data)
        why = self._reasons(plan, keep, scores)
        rows = tuple({**row, "reason": why[row["layer"]]} if row["layer"] in why else row for row in plan.rows(keep, rises))
        entry = Entry(method=self.method, recipe=describe(self), layers=rows, promised=dict(target.limits),
                      measured=target.cost(plan, keep, lambda: small),
                      notes=(f"sparsity {amount:.4f}", *told(ready.shares, plan, keep), *plan.notes()),
                      seconds=time.perf_counter() - began)
        return Result(small, Report((entry,)))

    @property
    def needs(self) -> frozenset[Statistic]:
        """The statistics of the network that are read before anything goes."""
        return frozenset().union(*(piece.needs for piece in (self.criterion, self.rearrange, self.compensate) if piece is not None))

    @property
    def shares(self) -> Allocation:
        """The allocation; raises `PreconditionError` for one that is made on a network, and has not been."""
        if isinstance(self.allocation, FromNetwork | FromBudget):
            raise PreconditionError(f"{type(self.allocation).__name__} is made on a network: take what it returns for one")
        return self.allocation

    def _reasons(self, plan: Plan, keep: list[Keep], scores: Scores) -> dict[str, str]:
        at_once = isinstance(self.schedule, OneShot | Progressive)
        return reasons(plan.groups, keep, scores if at_once else None) if isinstance(plan, ChannelPlan) else {}

    def _checked(self, model: nn.Module, data: Any) -> Traced:
        traced = floating(model, data)
        if not isinstance(self.schedule, OneShot | Progressive) and self.recover is None:
            raise PreconditionError(f"{type(self.schedule).__name__} pruning happens while training: pass fine_tune=Fit(...)")
        return traced

    def _carried_out(self, plan: Plan, target: Target, traced: Traced, amount: float, keep: list[Keep],
                     data: Any) -> tuple[Traced, list[Keep]]:
        if isinstance(self.schedule, OneShot | Progressive) or self.recover is None:
            small = plan.apply(keep, traced)
            if self.recover is None:
                return recalibrated(small, data), keep
            return self._fit(small, data, self.recover.fit, (*self.recover.hooks, *self._held(plan, keep)), "recover"), keep
        if not isinstance(self.schedule, Gradual | Soft):
            trained, keep = self.schedule.carry_out(traced, self._under_way(plan, target, amount, keep, data, self.recover))
            return recalibrated(trained, data), keep

        def amounts(scores: Scores) -> float:
            # What a share of the channels saves depends on which they are, and that changes; a share of the weights is one.
            moving = not isinstance(plan, ElementPlan) and target.structural(plan)
            return meet(plan, scores, self.shares, target, traced)[0] if moving else amount

        hook = TightenMasks(plan, self.criterion, self.shares, amounts, self.schedule, self.compensate)
        trained = self._fit(traced, data, self.recover.fit, (*self.recover.hooks, hook), "recover")
        scores = plan.scores(self.criterion, gather(trained, data, self.criterion.needs), trained)
        keep = meet(plan, scores, self.shares, target, trained)[1]
        # What soft pruning zeroes at the very end was still there when batch norms took their statistics.
        return recalibrated(plan.apply(keep, trained), data), keep

    def _compensated(self, traced: Traced, plan: Plan, keep: list[Keep], stats: Stats) -> Traced:
        """What stays makes up for what goes at once; what goes while training is made up for then."""
        if self.compensate is None or not isinstance(self.schedule, OneShot | Progressive):
            return traced
        traced = copy.deepcopy(traced)
        change_weights_(traced, self.compensate(traced, stats, plan.masks(keep)))
        return traced

    def _under_way(self, plan: Plan, target: Target, amount: float, keep: list[Keep], data: Any, recover: FineTune) -> Pruning:
        def train(model: Traced, config: Fit, hooks: tuple[Hook, ...], phase: str) -> Traced:
            return self._fit(model, data, config, (*recover.hooks, *hooks), phase)

        return Pruning(plan=plan, criterion=self.criterion, allocation=self.shares, target=target, amount=amount, keep=keep, data=data,
                       fit=recover.fit, train=train)

    def _held(self, plan: Plan, keep: list[Keep]) -> tuple[Hook, ...]:
        return (HoldMasks(plan.masks(keep)),) if isinstance(self.unit, Element) else ()

    def _fit(self, model: Traced, data: Any, config: Fit, hooks: tuple[Hook, ...], phase: str) -> Traced:
        checkpoint = None if self.checkpoint is None else self.checkpoint.with_suffix(f".{phase}{self.checkpoint.suffix}")
        return fitted(model, data, config, hooks, checkpoint)
