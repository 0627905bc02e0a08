"""The least arena for a fixed order of steps, by branch and bound.

A placement that cannot be lowered anywhere is given by the sequence of its items in ascending offset: each starts at the least offset
that its distances to those before it allow. The search extends such sequences. It leaves out an item while another one still fits
entirely below it (as Giffler and Thompson do for machine schedules), bounds what is left at every step from below, and remembers which
sets of items it has placed before no worse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lilliput.deploy.c.plan.demand import Demand, load
from lilliput.deploy.c.plan.fit import by_rule, first_fit
from lilliput.deploy.c.plan.limit import Limit

_LARGEST, _NODES, _REMEMBERED = 80, 2000, 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Offsets of all items, the words they take, and how few words were shown to be possible."""

    demand: Demand
    offsets: list[int]
    bound: int

    @property
    def height(self) -> int:
        """Words of the arena."""
        return self.demand.height(self.offsets)


def place(demand: Demand, limit: Limit, below: int | None = None) -> Placement:
    """The least placement that is found within a limit; where `below` is given, only placements of fewer words are looked for."""
    found, bound = by_rule(demand), demand.bound
    best = demand.height(found)
    target = best if below is None else min(best, below)
    if bound >= target:
        return Placement(demand=demand, offsets=found, bound=bound)
    kept, dropped = _reduced(demand, bound)
    if len(kept) > _LARGEST:
        parts = first_fit(demand, dropped[::-1], in_parts(demand, kept, limit))
        return Placement(demand=demand, offsets=min(found, parts, key=demand.height), bound=bound)
    search = Search(demand, kept, limit, target, bound)
    search.extend(dict.fromkeys(kept, 0), 0, 0, {})
    if search.found is not None:
        found = first_fit(demand, dropped[::-1], search.found)
    return Placement(demand=demand, offsets=found, bound=bound if search.stopped else max(bound, search.least))


def _reduced(demand: Demand, least: int) -> tuple[list[int], list[int]]:
    """Items that the search has to place, and those that find a place in `least` words wherever the others are; the latter in this order."""
    kept, dropped = set(range(len(demand.items))), []
    changed = True
    while changed:
        changed = False
        for i in sorted(kept):
            blocked = sum(d + demand.apart[j][i] - 1 for j, d in demand.apart[i].items() if j in kept)
            if blocked <= least - demand.sizes[i]:
                kept.remove(i)
                dropped.append(i)
                changed = True
    return sorted(kept), dropped


def in_parts(demand: Demand, kept: list[int], limit: Limit) -> dict[int, int]:
    """Offsets of the items of a long program: what lives longest at the bottom, then every group of items that live together by itself.

    Groups of equal sizes and distances, as patches are, are searched once.
    """
    long = max(len(demand.live) // 4, 3)
    base = [i for i in kept if demand.spans[i][1] - demand.spans[i][0] >= long]
    placed = dict(zip(range(len(demand.items)), first_fit(demand, base + [i for i in range(len(demand.items)) if i not in base]), strict=True))
    found = {i: placed[i] for i in base}
    known: dict[Any, list[int]] = {}
    for group in _groups(demand, [i for i in kept if i not in found]):
        starts = {i: max((found[j] + demand.apart[j][i] for j in base if j in demand.apart[i]), default=0) for i in group}
        key = tuple((starts[i], demand.sizes[i], tuple((group.index(j), d) for j, d in demand.apart[i].items() if j in starts)) for i in group)
        if key not in known:
            search = Search(demand, group, limit.part(0.2, _NODES), max(placed[i] + demand.sizes[i] for i in group) + 1, demand.bound)
            search.extend(starts, 0, 0, {})
            known[key] = [(search.found or placed)[i] for i in group]
        found |= dict(zip(group, known[key], strict=True))
    return found


def _groups(demand: Demand, items: list[int]) -> list[list[int]]:
    """Connected items, each group in order."""
    left, found = set(items), []
    while left:
        group, open_items = set(), [min(left)]
        while open_items:
            i = open_items.pop()
            if i not in group:
                group.add(i)
                open_items += [j for j in demand.apart[i] if j in left]
        left -= group
        found.append(sorted(group))
    return found


@dataclass(eq=False)
class Search:
    """The state of a search: `least` words so far, found at `found`; it ends early where `enough` words are reached."""

    demand: Demand
    kept: list[int]
    limit: Limit
    least: int
    enough: int = 0
    found: dict[int, int] | None = None
    stopped: bool = False
    seen: dict[frozenset[int], list[tuple[int, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inside = set(self.kept)
        self.near = {i: {j: d for j, d in self.demand.apart[i].items() if j in inside} for i in self.kept}
        self.steps = self._steps(inside)

    def _steps(self, inside: set[int]) -> list[tuple[tuple[int, ...], tuple[int, tuple[int, ...]] | None]]:
        """What lives at each step; steps at which no more lives than at another are left out."""
        found: dict[tuple[frozenset[int], tuple[int, tuple[int, ...]] | None], None] = {}
        for live, pair in zip(self.demand.live, self.demand.shared, strict=True):
            here = frozenset(live) & inside
            inputs = tuple(i for i in pair[1] if i in here) if pair is not None and pair[0] in here else ()
            found[here, (pair[0], inputs) if pair is not None and inputs else None] = None
        plain = [live for live, pair in found if pair is None]
        return [(tuple(sorted(live)), pair) for live, pair in found if live and (pair is not None or not any(live < other for other in plain))]

    def _bound(self, starts: dict[int, int], last: int) -> int:
        """Words that the items not yet placed reach at least: `starts` are their least offsets, none under `last`."""
        most, sizes, apart = 0, self.demand.sizes, self.demand.apart
        for live, pair in self.steps:
            rest = [i for i in live if i in starts]
            if not rest:
                continue
            lowest = max(min(starts[i] for i in rest), last)
            total = sum(sizes[i] for i in rest)
            if pair is not None and pair[0] in starts:
                inputs = [i for i in pair[1] if i in starts]
                others = total - sizes[pair[0]] - sum(sizes[i] for i in inputs)
                total = load(others, sizes[pair[0]], [(sizes[i], apart[pair[0]][i]) for i in inputs])
            most = max(most, lowest + total)
        return max([most, *(max(start, last) + sizes[i] for i, start in starts.items())])

    def _known(self, starts: dict[int, int], last: int, top: int) -> bool:
        """Whether these items were left before with none of them, nor the top, any higher."""
        key, state = frozenset(starts), (top, *(max(start, last) for start in starts.values()))
        known = self.seen.setdefault(key, [])
        if any(all(a <= b for a, b in zip(other, state, strict=True)) for other in known):
            return True
        if len(self.seen) < _REMEMBERED and len(known) < 16:
            known.append(state)
        return False

    def extend(self, starts: dict[int, int], last: int, top: int, placed: dict[int, int]) -> None:
        """Place the items of `starts`, whose values are their least offsets, behind those placed, the highest start of which is `last`."""
        if not starts:
            self.least, self.found = top, dict(placed)
            return
        if self.limit.spent():
            self.stopped = True
        if self.stopped or self.least <= self.enough or max(top, self._bound(starts, last)) >= self.least or self._known(starts, last, top):
            return
        sizes = self.demand.sizes
        reach = {i: max((d for j, d in self.near[i].items() if j in starts), default=0) for i in starts}
        free = next((i for i in starts if not any(j in starts for j in self.near[i])), None)
        chosen = [free] if free is not None else [
            i for i, start in starts.items() if start >= last and not any(
                j != i and starts[j] + reach[j] <= start and starts[j] < start for j in starts)]
        for i in sorted(chosen, key=lambda i: (starts[i], -sizes[i], i)):
            start = starts[i]
            later = {j: max(other, start + self.near[i][j]) if j in self.near[i] else other for j, other in starts.items() if j != i}
            self.extend(later, last if free is not None else start, max(top, start + sizes[i]), placed | {i: start})
            if self.stopped or max(top, self._bound(starts, last)) >= self.least:
                return
