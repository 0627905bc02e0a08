"""A latency table of coupled groups: what the whole network takes with each group alone at each of a few widths."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lilliput.core.errors import CorruptFileError, PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.fitting import Measure
from lilliput.prune.units import ChannelPlan, Plan, Scores
from lilliput.train.progress import Bar

Floats = NDArray[np.float64]
_STRUCTURAL_POINTS = 64  # widths of a group that are looked at where nothing is measured


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Seconds of a whole network (or what else `resource` says) against the number of units kept of each group, others whole.

    `costs[g][k]` belongs to the `counts[g][k]` best units of group `g`; counts rise, the last is all of them, and its cost is
    that of the whole network in every group. Costs do not fall with width. A width in between costs what the next wider one does
    that was looked at. `work[g][k]` is what structure says of the same networks: their MACs, or the resource itself.
    """

    resource: str
    groups: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    costs: tuple[tuple[float, ...], ...] = field(repr=False)
    work: tuple[tuple[float, ...], ...] = field(repr=False)

    @property
    def whole(self) -> float:
        """The whole network's cost."""
        return self.costs[0][-1]

    @property
    def shadow(self) -> str:
        """What `work` counts."""
        return self.resource if self.resource in ("macs", "params") else "macs"

    def place(self, group: int, count: int) -> int:
        """Where a width stands in the table."""
        return min(int(np.searchsorted(self.counts[group], count)), len(self.counts[group]) - 1)

    def contributions(self, group: int) -> Floats:
        """What each unit adds, the best first: the same between two widths, and up to the narrowest what the next ones add."""
        counts, costs = self.counts[group], self.costs[group]
        steps = zip(pairwise(counts), pairwise(costs), strict=True)
        slopes = [(dear - cheap) / (many - few) for (few, many), (cheap, dear) in steps]
        spans = [counts[0], *(many - few for few, many in pairwise(counts))]
        return np.repeat([slopes[0] if slopes else 0.0, *slopes], spans)

    def predict(self, counts: Sequence[int], work: float) -> float:
        """Cost of a network that keeps `counts` units of the groups and whose structure costs `work`.

        `T - phi sum_g (T - T_g(n_g))`, `phi = (M - M(n)) / sum_g (M - M_g(n_g))`: savings of single groups add up in the
        proportion in which their work does, since the plain sum saves layers between two narrower groups twice. Exact for MACs.
        Overheads, and kernels that like some pairs of widths less than others, are not in it.
        """
        places = [self.place(group, count) for group, count in enumerate(counts)]
        saved = sum(self.whole - costs[at] for costs, at in zip(self.costs, places, strict=True))
        alone = sum(work_alone[-1] - work_alone[at] for work_alone, at in zip(self.work, places, strict=True))
        if alone <= 0:  # what work went is of no group
            return (self.whole - saved) * work / self.work[0][-1]
        return self.whole - saved * ((self.work[0][-1] - work) / alone)

    def predict_of(self, plan: Plan, keep: Sequence[Keep]) -> float:
        """Cost of a choice."""
        return self.predict([int(kept.sum()) for kept in keep], plan.cost(keep)[self.shadow])

    def check(self, plan: ChannelPlan, resource: str) -> None:
        """Raises `PreconditionError` for the table of another network, of other groups, or of something else than is limited."""
        if resource != self.resource:
            raise PreconditionError(f"the budget limits {resource}, and this is a table of {self.resource}: leave table= out to "
                                    "make one")
        mine = [(name, counts[-1]) for name, counts in zip(self.groups, self.counts, strict=True)]
        if mine != [(g.name, g.units) for g in plan.groups]:
            raise PreconditionError(f"this {self.resource} table is of another network or unit: leave table= out to make one")

    def to_json(self) -> str:
        """Plain data; `from_json` reads it back."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> LatencyTable:
        """What `to_json` wrote; raises `CorruptFileError` for anything else."""
        try:
            read = json.loads(text)
            counts = tuple(tuple(int(v) for v in row) for row in read["counts"])
            costs, work = (tuple(tuple(float(v) for v in row) for row in read[key]) for key in ("costs", "work"))
            table = LatencyTable(resource=str(read["resource"]), groups=tuple(map(str, read["groups"])), counts=counts,
                                 costs=costs, work=work)
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptFileError(f"this is no latency table ({error}): make it anew") from error
        if not table.groups or len({len(table.groups), len(counts), len(costs), len(work)}) > 1 or not all(
                row and len(row) == len(cost) == len(done) for row, cost, done in zip(counts, costs, work, strict=True)):
            raise CorruptFileError("the parts of this latency table do not fit each other: make it anew")
        return table


@dataclass(frozen=True, kw_only=True)
class Tabulation:
    """How a table is made: `points` widths of each group are measured, spread over multiples of `multiple` and of the unit's.

    The whole network is one of them each time, and the group's figures are scaled to what all such readings say in the middle: a
    machine that slows down between two groups does not favour one. No width costs more than a wider one did. Groups whose MACs
    and parameters are the same at every width are measured once. What structure tells is not measured, and tabulated at up to 64
    widths.
    """

    points: int = 8
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.points < 2 or self.multiple < 1:
            raise RecipeError("a table has the whole network and at least one more width of each group, in multiples from 1, not "
                              f"{self.points} in all and {self.multiple}")

    def __call__(self, plan: ChannelPlan, scores: Scores, traced: Traced, resource: str, measure: Measure) -> LatencyTable:
        """The table of a network, units ranked by `scores`; raises `PreconditionError` where nobody can measure the resource."""
        structural = resource in plan.cost(plan.everything())
        if not structural and resource not in measure:
            raise PreconditionError(f"a {resource} table needs a measurement: pass measure={{{resource!r}: model -> value}}, or "
                                    "run it through `lilliput compress`, which measures in ONNX Runtime")
        multiple, points = math.lcm(plan.unit.round_to, self.multiple), _STRUCTURAL_POINTS if structural else self.points
        counts = [widths(g.units, multiple, points) for g in plan.groups]
        choices = [[_alone(plan, scores, group, count) for count in row] for group, row in enumerate(counts)]
        known = [[plan.cost(keep) for keep in row] for row in choices]
        work = tuple(tuple(float(cost[resource if structural else "macs"]) for cost in row) for row in known)
        costs = work
        if not structural:
            alike = [tuple((count, cost["macs"], cost["params"]) for count, cost in zip(*rows, strict=True))
                     for rows in zip(counts, known, strict=True)]
            costs = calibrated(_measured(choices, alike, lambda keep: plan.apply(keep, traced), measure[resource]))
        names = tuple(g.name for g in plan.groups)
        return LatencyTable(resource=resource, groups=names, counts=tuple(counts), costs=costs, work=work)


def widths(units: int, multiple: int, points: int) -> tuple[int, ...]:
    """Up to `points` multiples, evenly spread, from the first to all units."""
    allowed = np.unique([*range(multiple, units, multiple), units])
    picked = np.unique(np.round(np.linspace(0, len(allowed) - 1, min(points, len(allowed)))).astype(np.int64))
    return tuple(int(allowed[i]) for i in picked)


def _alone(plan: ChannelPlan, scores: Scores, group: int, count: int) -> list[Keep]:
    """The best `count` units of one group, and all others."""
    sparsity = np.zeros(len(scores))
    sparsity[group] = 1 - count / len(scores[group])
    return plan.keep(scores, sparsity)


def _measured(choices: Sequence[Sequence[list[Keep]]], alike: Sequence[object], network: Callable[[list[Keep]], Traced],
              measure: Callable[[nn.Module], float]) -> list[list[float]]:
    """The cost of every choice, the same for groups that are alike."""
    found: dict[object, list[float]] = {}
    total, done = sum(len(row) for row in dict(zip(alike, choices, strict=True)).values()), 0
    with Bar(total=total) as bar:
        for key, row in zip(alike, choices, strict=True):
            if key in found:
                continue
            found[key] = []
            for keep in row:
                found[key].append(float(measure(network(keep))))
                done += 1
                bar.update(done, "measuring widths")
    return [found[key] for key in alike]


def calibrated(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Rows that do not fall and all end in the same: each scaled to the median of what the whole network took.

    What it took at a row is the (lower) median of the readings at the end of that row, the one before and the one after, so that one
    reading which something else disturbed does not count.
    """
    ends = [row[-1] for row in rows]
    windows = [sorted(ends[max(at - 1, 0):at + 2]) for at in range(len(rows))]
    then = [window[(len(window) - 1) // 2] for window in windows]
    whole = float(np.median(then)) if rows else 0.0
    return tuple(tuple(float(v) * whole / end for v in rising([*row[:-1], end])) for row, end in zip(rows, then, strict=True))


def rising(values: Sequence[float]) -> Floats:
    """Each the least of itself and what comes after it: a wider network that is faster shows that the narrower one was disturbed."""
    least: Floats = np.minimum.accumulate(np.asarray(values, dtype=np.float64)[::-1])[::-1]
    return least
