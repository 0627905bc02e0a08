"""Pruning while training: what a schedule that trains is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.allocation import Allocation
from lilliput.prune.criteria import Criterion
from lilliput.prune.fitting import Target, meet
from lilliput.prune.statistics import gather
from lilliput.prune.units import ElementPlan, Plan, Scores
from lilliput.train import Fit, Hook

Train = Callable[[Traced, Fit, tuple[Hook, ...], str], Traced]


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """One pruning under way.

    `amount` and `keep` are what meets `target` by the criterion's scores of the network as it came. `train` trains a copy of a
    network by settings and hooks, and by a name for its checkpoint, together with the hooks of the recovery; `fit` are the
    recovery's settings.
    """

    plan: Plan
    criterion: Criterion
    allocation: Allocation
    target: Target
    amount: float
    keep: list[Keep]
    data: Any
    fit: Fit
    train: Train

    def elements(self) -> ElementPlan:
        """The plan, of single weights; raises `PreconditionError` for another unit."""
        if not isinstance(self.plan, ElementPlan):
            raise PreconditionError("this schedule works on single weights: pass unit=Element(...)")
        return self.plan

    def scores(self, traced: Traced) -> Scores:
        """The criterion's scores of a network."""
        return self.plan.scores(self.criterion, gather(traced, self.data, self.criterion.needs), traced)

    def kept(self, scores: Scores, traced: Traced, target: Target | None = None) -> list[Keep]:
        """What meets a target, the budget's unless another is given, by these scores."""
        return meet(self.plan, scores, self.allocation, target or self.target, traced)[1]


class WhileTraining(Protocol):
    """A schedule that trains the network itself."""

    def carry_out(self, traced: Traced, pruning: Pruning) -> tuple[Traced, list[Keep]]:
        """The pruned network, and what was kept of the one given."""
        ...
