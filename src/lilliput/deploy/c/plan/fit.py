"""Placements by rule: one item after the other at the lowest place that is free, in several orders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lilliput.deploy.c.plan.demand import Demand
from lilliput.deploy.c.plan.lifetimes import Plan
from lilliput.deploy.c.plan.overlap import apart
from lilliput.deploy.c.program import Program

# Improvements tried, fewer for more items than so many.
_ROUNDS, _SMALL = 200, 60


def first_fit(demand: Demand, order: Sequence[int], offsets: dict[int, int] | None = None) -> list[int]:
    """Offsets in words of all items, each in its turn at the lowest place that its distances to those before it allow."""
    placed = dict(offsets or {})
    for item in order:
        # Between these, the item would start too close above another, or too close below it.
        blocked = sorted((placed[other] - below, placed[other] + demand.apart[other][item]) for other, below in demand.apart[item].items()
                         if other in placed)
        start = 0
        for low, high in blocked:
            if low >= start:
                break
            start = max(start, high)
        placed[item] = start
    return [placed[i] for i in range(len(demand.items))]


def orders(demand: Demand) -> Iterator[list[int]]:
    """Orders in which first fit does well: by size, by size times life, along time and against it, each with what lives longest first or not."""
    count = len(demand.items)
    size, span = demand.sizes, demand.spans
    peak = set(demand.live[demand.peak])
    by_size = sorted(range(count), key=lambda i: (-size[i], span[i]))
    backwards = sorted(range(count), key=lambda i: (-span[i][1], -span[i][0], -size[i]))
    yield by_size
    yield backwards
    yield sorted(by_size, key=lambda i: i not in peak)
    yield sorted(backwards, key=lambda i: i not in peak)
    yield sorted(range(count), key=lambda i: -size[i] * (span[i][1] - span[i][0] + 1))
    yield sorted(by_size, key=lambda i: span[i][0])
    long = max(len(demand.live) // 4, 3)
    yield sorted(by_size, key=lambda i: span[i][1] - span[i][0] < long)
    yield sorted(backwards, key=lambda i: span[i][1] - span[i][0] < long)


def by_rule(demand: Demand) -> list[int]:
    """The best of several orders, improved by moving items that end on top forward; the same every time."""
    bound = demand.bound
    height, best, kept = min(((demand.height(found), found, order) for order, found in ((o, first_fit(demand, o)) for o in orders(demand))),
                             key=lambda found: found[0])
    random = np.random.default_rng(0)
    for _ in range(min(_ROUNDS, _ROUNDS * _SMALL // max(len(kept), 1)) if len(kept) > 2 else 0):
        if height == bound:
            break
        item = int(random.choice([i for i in kept if best[i] + demand.sizes[i] == height]))
        order = [i for i in kept if i != item]
        order.insert(order.index(int(random.choice(list(demand.apart[item])))) if demand.apart[item] else 0, item)
        if random.random() < 0.5:
            a, b = random.integers(len(order), size=2)
            order[a], order[b] = order[b], order[a]
        found = first_fit(demand, order)
        if (reached := demand.height(found)) <= height:
            height, best, kept = reached, found, order
    return best


def greedy(program: Program) -> Plan:
    """Largest buffers first, each at the lowest offset that is free all its life, no two that live at a time overlapping."""
    demand = Demand.of(program, apart)
    order = sorted(range(len(demand.items)), key=lambda i: (-demand.sizes[i], demand.spans[i]))
    return demand.plan(first_fit(demand, order), demand.bound)
