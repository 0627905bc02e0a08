"""Mask search: which channels the loss misses least within a budget of costs that add up, and swaps between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.core.knapsack import choose
from lilliput.graph import Traced
from lilliput.graph.coupling import Group, Keep
from lilliput.prune.allocation import Allocation, Scores
from lilliput.prune.criteria import Layer
from lilliput.prune.fisher import InputSlopes
from lilliput.prune.statistics import Statistic, Stats
from lilliput.prune.units import ChannelPlan, Plan

Floats = NDArray[np.float64]


class Rearrangement(Protocol):
    """`(plan, keep, stats, network) -> keep`: another choice of as many units of each group."""

    @property
    def needs(self) -> frozenset[Statistic]:
        """The statistics that it reads."""
        ...

    def __call__(self, plan: Plan, keep: list[Keep], stats: Stats, traced: Traced, /) -> list[Keep]:
        """What is kept instead."""
        ...


@dataclass(frozen=True, kw_only=True)
class MaskFisher:
    """`sum_n (dL_n/dm)^2 / N`, the diagonal of the Fisher information of masks `m` at 1, one to a unit, on what layers read. (kwon2022posttraining)

    Where several layers read a unit, slopes are added first, as the mask stands before them all. Units that no layer reads are worth
    infinitely much.
    """

    reading: InputSlopes = field(default_factory=InputSlopes)
    roles: ClassVar[frozenset[str]] = frozenset({"in"})

    @property
    def needs(self) -> frozenset[Statistic]:
        """The masks' slopes."""
        return frozenset({self.reading})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Slopes (slices, samples)."""
        slopes = stats[self.reading].get(layer.name) if layer.role == "in" else None
        if slopes is None or len(slopes) != len(layer.weight):
            return torch.full((len(layer.weight), 1), torch.inf)
        return slopes

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Scores; larger matters more."""
        return torch.stack(list(parts)).sum(0).square().mean(1)


@dataclass(frozen=True, kw_only=True)
class LeastRemoved:
    """How many units of each group go so that the scores of all that go add up to the least within a cost: a knapsack, solved exactly.

    It takes groups whose costs add up, no two of which share a layer: heads and hidden units of a transformer, channels inside of residual
    branches. The channels of the residual stream, on which every cost depends, stay. The groups with the fewest others in their way are
    taken first. Where all heads cost the same, and all hidden units, this is what the search over the number of heads finds in the
    paper (its Algorithm 1), but that here one unit of each group stays. An amount is a share of the `cost` that can go. (kwon2022posttraining)
    """

    cost: str = "macs"

    def on(self, plan: Plan, scores: Scores, traced: Traced, data: Any, /) -> Allocation:  # noqa: ARG002
        """Costs are those of the network; raises `PreconditionError` for a plan of single weights."""
        if not isinstance(plan, ChannelPlan):
            raise PreconditionError("heads and hidden units are channels: pass unit=Channels()")
        savings = self._savings(plan)
        groups = self._separate(plan, savings, [bool(np.isfinite(values).all()) for values in scores])
        counts = [np.array([n for n in range(1, plan.groups[g].units + 1) if n % plan.unit.round_to == 0 or n == plan.groups[g].units])
                  for g in groups]
        costs = [savings[g] * kept for g, kept in zip(groups, counts, strict=True)]
        most, least = (sum(float(rows[end]) for rows in costs) for end in (-1, 0))

        def shares(scores: Scores, amount: float) -> Floats:
            found = np.zeros(len(scores))
            if groups and amount > 0:
                losses = [np.concatenate([np.cumsum(np.sort(scores[g]))[::-1], [0.0]])[kept] for g, kept in zip(groups, counts, strict=True)]
                scale = max(float(max(rows[0] for rows in losses)), 1e-300)
                limit = most - amount * (most - least) + 1e-9 * most
                picks = choose(_table(losses) / scale, {self.cost: _table(costs)}, {self.cost: limit})
                for g, kept, pick in zip(groups, counts, picks, strict=True):
                    found[g] = 1 - kept[min(pick, len(kept) - 1)] / plan.groups[g].units
            return found

        return shares

    def _separate(self, plan: ChannelPlan, savings: Floats, usable: Sequence[bool]) -> list[int]:
        """Groups, by number, whose costs add up."""
        count, whole = len(plan.groups), plan.cost(plan.everything())[self.cost]
        shared = np.zeros((count, count), dtype=np.bool_)
        for a in range(count):
            for b in range(a):
                together = whole - plan.cost(_without(plan, (a, b)))[self.cost]
                shared[a, b] = shared[b, a] = abs(together - savings[a] - savings[b]) > 1e-9 * whole
        chosen: list[int] = []
        for group in sorted((g for g in range(count) if usable[g]), key=lambda g: (int(shared[g].sum()), -savings[g] * plan.groups[g].units)):
            if not shared[group, chosen].any() and savings[group] > 0:
                chosen.append(group)
        return sorted(chosen)

    def _savings(self, plan: ChannelPlan) -> Floats:
        """What the first unit of each group costs."""
        whole = plan.cost(plan.everything())[self.cost]
        return np.array([whole - plan.cost(_without(plan, (group,)))[self.cost] for group in range(len(plan.groups))])


def _without(plan: ChannelPlan, groups: Sequence[int]) -> list[Keep]:
    keep = plan.everything()
    for group in groups:
        keep[group][0] = False
    return keep


def _table(rows: Sequence[Floats]) -> Floats:
    """Rows of options, the last option repeated where a row has fewer."""
    width = max(len(row) for row in rows)
    return np.stack([np.pad(row, (0, width - len(row)), mode="edge") for row in rows])


@dataclass(frozen=True, kw_only=True)
class Swaps:
    """Within each group the units that go are those whose joint removal costs least: `(1 - m)' F (1 - m)`, `F = E u_n u_n'`, `u_n = dL_n/dm`.

    From the units of least diagonal on, each that stays, by its diagonal, joins those that go, and of these the one is taken back without
    which `E (sum u_n)^2` over the rest is least. How many go stays. Groups of which some tensor holds a part only stay as they are.
    (kwon2022posttraining)
    """

    criterion: MaskFisher = field(default_factory=MaskFisher)

    @property
    def needs(self) -> frozenset[Statistic]:
        """The masks' slopes."""
        return self.criterion.needs

    def __call__(self, plan: Plan, keep: list[Keep], stats: Stats, traced: Traced, /) -> list[Keep]:
        """What is kept instead; raises `PreconditionError` for a plan of single weights."""
        if not isinstance(plan, ChannelPlan):
            raise PreconditionError("heads and hidden units are channels: pass unit=Channels()")
        return [swapped(torch.stack(plan.parts(group, self.criterion, stats, traced)).sum(0), kept) if _in_whole(group) else kept
                for group, kept in zip(plan.groups, keep, strict=True)]


def swapped(slopes: Tensor, keep: Keep) -> Keep:
    """Flags of as many units, given slopes `(units, samples)`."""
    count = int((~keep).sum())
    if count in (0, len(keep)) or not bool(torch.isfinite(slopes).all()):
        return keep
    products = slopes @ slopes.T
    diagonal = products.diagonal()
    order = diagonal.argsort(stable=True).tolist()
    gone = order[:count]
    sums = products[:, gone].sum(1)
    for unit in order[count:]:
        gone.append(unit)
        sums = sums + products[:, unit]
        # Without unit i it is the sum over all pairs, less twice the row of i, plus its diagonal.
        back = gone.pop(int((diagonal[gone] - 2 * sums[gone]).argmin()))
        sums = sums - products[:, back]
    found = np.ones(len(keep), dtype=np.bool_)
    found[gone] = False
    return found


def _in_whole(group: Group) -> bool:
    return all(len(np.unique(slot.unit[slot.unit >= 0])) == group.units for slot in group.slots)
