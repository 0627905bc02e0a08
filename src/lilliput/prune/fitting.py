"""Meeting a budget: the least sparsity whose result costs no more than allowed, by bisection on structure alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from lilliput.core import Budget, BudgetError, PreconditionError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.allocation import Allocation, filled
from lilliput.prune.semistructured import PatternPlan
from lilliput.prune.structures import StructurePlan
from lilliput.prune.units import Plan, Scores

Measure = Mapping[str, Callable[[nn.Module], float]]
_MEASURED_STEPS = 7
_EXACT_STEPS = 26  # one of 67 million weights


@dataclass(frozen=True, kw_only=True)
class Target:
    """Absolute limits, and how to measure those that structure alone does not tell (size, latency)."""

    limits: Mapping[str, float]
    measure: Measure

    @staticmethod
    def of(budget: Budget | None, plan: Plan, traced: Traced, measure: Measure | None) -> Target:
        """Limits of a budget on a network; raises `PreconditionError` for one that nobody can measure.

        A pattern needs none: the limit is what it leaves.
        """
        measure = measure or {}
        if budget is None and isinstance(plan, PatternPlan) and plan.names:
            return Target(limits={"params": plan.least()["params"]}, measure=measure)
        if budget is None or not budget.costs():
            raise PreconditionError("the budget limits no cost: give one, such as Budget(macs=0.5)")
        original = plan.cost(plan.everything())
        for name in budget.costs():
            if name not in original:
                if name not in measure:
                    raise PreconditionError(f"a {name} budget needs a measurement: pass measure={{{name!r}: model -> value}}, or "
                                            "run it through `lilliput compress`, which measures in ONNX Runtime")
                original[name] = measure[name](traced)
        limits = budget.targets(original)
        for name, limit in limits.items():
            if limit > original[name]:
                raise BudgetError(f"the network is within {name} <= {limit:.6g} already ({original[name]:.6g}): nothing to prune")
        return Target(limits=limits, measure=measure)

    def cost(self, plan: Plan, keep: list[Keep], network: Callable[[], nn.Module]) -> dict[str, float]:
        """Every limited cost of a choice; `network` makes what it leaves, and is called only where it must be measured."""
        costs = plan.cost(keep)
        missing = [name for name in self.limits if name not in costs]
        if missing:
            small = network()
            costs |= {name: self.measure[name](small) for name in missing}
        return {name: costs[name] for name in self.limits}

    def structural(self, plan: Plan) -> bool:
        """Whether structure alone tells every limited cost."""
        return self.limits.keys() <= plan.cost(plan.everything()).keys()

    def met(self, costs: Mapping[str, float]) -> bool:
        """Whether no limit is exceeded."""
        return all(costs[name] <= limit for name, limit in self.limits.items())


def meet(plan: Plan, scores: Scores, allocation: Allocation, target: Target, traced: Traced) -> tuple[float, list[Keep]]:
    """The least amount of sparsity that meets the target, and what it keeps.

    Raises `BudgetError`, saying what could be met, when even one unit per group costs too much.
    """

    def choose(amount: float) -> list[Keep]:
        return plan.keep(scores, np.clip(allocation(scores, amount), 0.0, 1.0))

    if not scores:
        raise BudgetError("nothing in this network can be pruned: " + "; ".join(plan.notes() or ("no layer makes free channels",)))
    def cost(keep: list[Keep]) -> dict[str, float]:
        return target.cost(plan, keep, lambda: plan.apply(keep, traced))

    least = cost(choose(1.0))
    if not target.met(least):
        worst = max(target.limits, key=lambda name: least[name] / target.limits[name])
        raise BudgetError(f"{worst} <= {target.limits[worst]:.6g} cannot be met: the least this network allows is {least[worst]:.6g}; "
                          f"ask for at least that, or exclude fewer layers")
    if isinstance(plan, PatternPlan):
        return 1.0, choose(1.0)  # where less would do, the pattern is still what was asked for
    exact = target.structural(plan)

    def fewest(choose: Callable[[float], list[Keep]]) -> tuple[float, list[Keep]]:
        low, high, best = 0.0, 1.0, choose(1.0)
        for _ in range(_EXACT_STEPS if exact else _MEASURED_STEPS):
            middle = (low + high) / 2
            kept = choose(middle)
            if target.met(cost(kept)):
                high, best = middle, kept
            else:
                low = middle
        return high, best

    amount, best = fewest(choose)
    if isinstance(plan, StructurePlan):
        # The last branch that went may have saved more than was asked: channels come back for it.
        best = fewest(lambda less: plan.joined(choose(min(less, amount)), best))[1]
    return amount, filled(allocation, plan, scores, best, cost, target.limits)
