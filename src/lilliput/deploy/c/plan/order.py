"""Orders of steps: the one that needs the least memory at its fullest step, and all that need less than a limit."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from lilliput.deploy.c.plan.flow import Flow
from lilliput.deploy.c.plan.limit import Limit

# Sets of steps that the beam search keeps.
_BEAM = 32


@dataclass(frozen=True, kw_only=True)
class Order:
    """Steps in order, the words of the fullest one, and how few words the fullest one has in every order."""

    steps: tuple[int, ...]
    peak: int
    bound: int


def best(flow: Flow, limit: Limit) -> Order:
    """The order with the least peak: the shortest path over sets of steps that are done, a path's length its largest step.

    A set is left once, with the least peak that leads to it. (A dynamic programme over such sets: ahn2020serenity.) When the limit
    ends the search, the least peak of the sets not yet left is the bound, and the order is the better of the given one and that of a beam
    search.
    """
    count = len(flow.needs)
    full, given = (1 << count) - 1, _follow(flow, range(count))
    came: dict[int, tuple[int, int]] = {}
    least = {0: flow.start}
    heap = [(flow.start, 0, 0, flow.start)]
    while heap:
        peak, _, done, live = heapq.heappop(heap)
        if peak > least[done]:
            continue
        if done == full:
            return Order(steps=_path(came, full), peak=peak, bound=peak) if peak < given else Order(steps=tuple(range(count)), peak=given, bound=peak)
        if limit.spent():
            order = _beam(flow)
            reached = _follow(flow, order)
            return Order(steps=order, peak=reached, bound=peak) if reached < given else Order(steps=tuple(range(count)), peak=given, bound=peak)
        for step, (needed, after) in _moves(flow, done, live, peak):
            target, reached = done | 1 << step, max(peak, needed)
            if reached < least.get(target, reached + 1):
                least[target], came[target] = reached, (done, step)
                heapq.heappush(heap, (reached, -target.bit_count(), target, after))
    raise AssertionError("a program has an order")


def _moves(flow: Flow, done: int, live: int, peak: int) -> list[tuple[int, tuple[int, int]]]:
    """Steps that can be next; one alone where it takes no more than the peak and leaves no more behind than before: it never harms."""
    found = [(step, flow.run(done, live, step)) for step in flow.ready(done)]
    harmless = [(step, cost) for step, cost in found if cost[0] <= peak and cost[1] <= live]
    return harmless[:1] or found


def _path(came: dict[int, tuple[int, int]], done: int) -> tuple[int, ...]:
    found = []
    while done:
        done, step = came[done]
        found.append(step)
    return tuple(reversed(found))


def _follow(flow: Flow, order: tuple[int, ...] | range) -> int:
    """The peak of an order."""
    done, live, peak = 0, flow.start, flow.start
    for step in order:
        needed, live = flow.run(done, live, step)
        done, peak = done | 1 << step, max(peak, needed)
    return peak


def _beam(flow: Flow) -> tuple[int, ...]:
    """An order from the sets of equally many steps that have the least peaks, and least live behind them, so many at a time."""
    states: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (flow.start, flow.start, ())}
    for _ in flow.needs:
        found: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        for done, (peak, live, order) in states.items():
            for step, (needed, after) in _moves(flow, done, live, peak):
                target, state = done | 1 << step, (max(peak, needed), after, (*order, step))
                if target not in found or state < found[target]:
                    found[target] = state
        states = dict(sorted(found.items(), key=lambda item: item[1])[:_BEAM])
    return next(iter(states.values()))[2]


def orders(flow: Flow, below: int, limit: Limit) -> Iterator[tuple[int, ...]]:
    """All orders whose peak is under so many words, as far as the limit goes."""
    full = (1 << len(flow.needs)) - 1
    dead: set[int] = set()

    def extend(done: int, live: int, order: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if done == full:
            yield order
            return
        alive = False
        for step in flow.ready(done) if not limit.spent() else ():
            needed, after = flow.run(done, live, step)
            if needed < below and done | 1 << step not in dead:
                for found in extend(done | 1 << step, after, (*order, step)):
                    alive = True
                    yield found
        if not alive:
            dead.add(done)

    yield from extend(0, flow.start, ())
