"""Allocations that look into a latency table: importance within a limit, and importance less what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.core.knapsack import choose
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.allocation import Scores, global_threshold
from lilliput.prune.fitting import Target
from lilliput.prune.latency_table import LatencyTable, Tabulation
from lilliput.prune.units import ChannelPlan, Plan

Floats = NDArray[np.float64]
_NOISE = 1.02
_REFUSALS = 4  # networks measured, and found too slow, before no more is given back


class Policy(Protocol):
    """What share of each group goes, by scores, a table, and how much there is to go."""

    def __call__(self, table: LatencyTable, scores: Scores, amount: float, /) -> Floats:
        """Shares of the groups; `amount` from 0, nothing, to 1, as much as there is."""
        ...


@dataclass(frozen=True)
class Knapsack:
    """The most important units that fit in what `amount` leaves of the table's savings. (shen2022halp)

    `max sum_g sum_(p <= n_g) I_g(p)` subject to `sum_g c_g(n_g) <= (1 - amount) sum_g c_g(all)`, `I_g(p)` the importance of the
    `p`-th best unit of a group and `c_g(n)` the table's cost of its `n` best beyond that of its narrowest width. The widths of a group
    are one row of a multiple-choice knapsack, solved exactly: less important units of a group go before more important ones by
    construction. The paper augments a 0-1 knapsack by that precedence.
    """

    def __call__(self, table: LatencyTable, scores: Scores, amount: float) -> Floats:
        """Shares of the groups."""
        longest = max(len(row) for row in table.counts)
        lost, costs = np.zeros((len(scores), longest)), np.zeros((len(scores), longest))
        for group, (values, counts) in enumerate(zip(scores, table.counts, strict=True)):
            below = np.concatenate([[0.0], np.cumsum(np.sort(values))])  # of the units that go
            places = np.minimum(np.arange(longest), len(counts) - 1)
            lost[group] = below[len(values) - np.asarray(counts)][places]
            costs[group] = (np.asarray(table.costs[group]) - table.costs[group][0])[places]
        limit = (1 - amount) * float(costs.max(1).sum())
        picked = choose(lost, {table.resource: costs}, {table.resource: limit})
        return np.array([1 - table.counts[group][min(at, len(table.counts[group]) - 1)] / len(scores[group])
                         for group, at in enumerate(picked)])


@dataclass(frozen=True)
class LessCost:
    """One threshold for `I(u) - strength * c(u)`, `c(u)` what a unit adds to the table's cost. (yang2023nvit)

    Both are shares of their sums over the network, so that the strength has no unit: ours, the paper sets one for importance and
    milliseconds as they come.
    """

    strength: float = 0.5

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise RecipeError(f"what a unit costs counts against it, with a strength from 0, not {self.strength}")

    def __call__(self, table: LatencyTable, scores: Scores, amount: float) -> Floats:
        """Shares of the groups."""
        added = []
        for group, values in enumerate(scores):
            rank = np.argsort(np.argsort(-values, kind="stable"), kind="stable")
            added.append(table.contributions(group)[rank])
        importance, cost = (max(float(sum(np.sum(part) for part in parts)), 1e-300) for parts in (scores, added))
        net = [values / importance - self.strength * more / cost for values, more in zip(scores, added, strict=True)]
        return global_threshold(net, amount)


@dataclass(frozen=True, kw_only=True)
class Tabulated:
    """A policy with the table of the network that it was made on."""

    table: LatencyTable
    policy: Policy

    def __call__(self, scores: Scores, amount: float, /) -> Floats:
        """Shares of the groups."""
        return self.policy(self.table, scores, amount)

    def filled(self, plan: Plan, scores: Scores, keep: list[Keep], cost: Callable[[list[Keep]], Mapping[str, float]],
               limits: Mapping[str, float], /) -> list[Keep]:
        """One group after the other a width wider, the most important units for their cost first, while the limits hold.

        A wider choice is looked at where it fits by the table as it is, and scaled up by what the present one costs over what the
        table says of that. One that is not within a fiftieth of the limits when it is measured once more was let in by noise: then
        nothing is given back.
        """
        start, now, refused = keep, cost(keep), 0
        while refused < _REFUSALS:
            scale = max(now[self.table.resource] / self.table.predict_of(plan, keep), 1.0)
            for wider in self._wider(plan, scores, keep):
                if scale * self.table.predict_of(plan, wider) <= limits[self.table.resource]:
                    found = cost(wider)
                    if all(found[name] <= limit for name, limit in limits.items()):
                        keep, now = wider, found
                        break
                    refused += 1
                    if refused == _REFUSALS:
                        break
            else:
                break
        again = cost(keep)
        return keep if all(again[name] <= _NOISE * limit for name, limit in limits.items()) else start

    def _wider(self, plan: Plan, scores: Scores, keep: list[Keep]) -> list[list[Keep]]:
        """Choices with one group at the next width of the table, by the importance that this brings for what it costs."""
        found: list[tuple[float, list[Keep]]] = []
        before = self.table.predict_of(plan, keep)
        for group, counts in enumerate(self.table.counts):
            now = int(keep[group].sum())
            width = next((width for width in counts if width > now), None)
            if width is None:
                continue
            order = np.argsort(-np.where(keep[group], np.inf, scores[group]), kind="stable")
            wider = keep[group].copy()
            wider[order[:width]] = True
            choice = [wider if i == group else kept for i, kept in enumerate(keep)]
            gain = float(scores[group][wider & ~keep[group]].sum())
            found.append((gain / max(self.table.predict_of(plan, choice) - before, 1e-12 * self.table.whole), choice))
        return [choice for _, choice in sorted(found, key=lambda pair: -pair[0])]

    def told(self, plan: Plan, keep: Sequence[Keep]) -> tuple[str, ...]:
        """What the table says of a choice, for the report."""
        return (f"by its table the {self.table.resource} is {self.table.predict_of(plan, keep):.6g} of {self.table.whole:.6g}",)


@dataclass(frozen=True, kw_only=True)
class ByTable:
    """Shares of groups by a policy and a table of what the budget limits: of latency where that is, or else of the first.

    `table` is one made before (`LatencyTable.from_json`), or how to make it when this meets a network. The sum over groups counts layers
    between two narrower groups twice: so how much is asked of the policy is found by what the resulting networks cost, not by the table.
    """

    policy: Policy = field(default_factory=Knapsack)
    table: LatencyTable | Tabulation = field(default_factory=Tabulation)

    def under(self, target: Target, plan: Plan, scores: Scores, traced: Traced, data: Any, /) -> Tabulated:  # noqa: ARG002
        """Measures, where it must; raises `PreconditionError` for units other than channels, and for a table of another network."""
        if not isinstance(plan, ChannelPlan):
            raise PreconditionError("single weights save no time that a table could tell: pass unit=Channels()")
        resource = "latency" if "latency" in target.limits else next(iter(target.limits))
        if isinstance(self.table, LatencyTable):
            self.table.check(plan, resource)
            return Tabulated(table=self.table, policy=self.policy)
        return Tabulated(table=self.table(plan, list(scores), traced, resource, target.measure), policy=self.policy)
