"""The optimal brain surgeon on a layer: one weight after the other goes, the others make up for it, exactly."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.graph.columns import inverse_factor
from lilliput.prune.patterns import Pattern, Pool, shares
from lilliput.prune.solvers import check_damping

_ROOM = 2**27  # numbers that the steps of outputs that compete may take
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ExactOBS:
    """The weight with the least `w_q^2 / (2 [H^-1]_qq)` goes, `w -= w_q / [H^-1]_qq H^-1 e_q`, with `H` that of what is left.

    Of the squared error of a layer's outputs the Hessian has a block to every output, `H = 2 X X'`, the same for all, so the rows
    only compete (hassibi1993obs, frantar2022obc). After each step `H^-1 -= H^-1 e_q e_q' H^-1 / [H^-1]_qq`; here steps are kept,
    and the column of each weight that goes is worked out when its turn comes: `inputs k` products for step `k`, and not
    `inputs^2`. Departs from the papers: where the steps of all outputs take more than a gigabyte, outputs compete in parts.
    `H` is damped by `damping` of its mean diagonal.
    """

    damping: float = 1e-4

    def __post_init__(self) -> None:
        check_damping(self.damping)

    def __call__(self, rows: Tensor, hessian: Tensor, pattern: Pattern, drop: int, /) -> tuple[Tensor, Tensor]:
        """Rows and what is kept."""
        factor = inverse_factor(hessian, self.damping)
        inverse = (factor.transpose(1, 2) @ factor).numpy()
        outputs, weights = rows.shape[1], rows.flatten(0, 1).numpy()
        found, kept = np.empty_like(weights), np.empty(weights.shape, dtype=np.bool_)
        for pool in pattern.pools(len(weights), drop):
            for members, count in _parts(pool, weights.shape[1]):
                traces = [_Trace(weights[i], inverse[i // outputs], pattern) for i in members]
                _compete(traces, count)
                for i, trace in zip(members, traces, strict=True):
                    found[i], kept[i] = trace.weights, trace.kept
        return torch.from_numpy(found).reshape(rows.shape), torch.from_numpy(kept).reshape(rows.shape)


def _parts(pool: Pool, inputs: int) -> list[Pool]:
    """Outputs that compete, in parts whose steps there is room for."""
    members, drop = pool
    size = max(_ROOM * len(members) // max(2 * inputs * drop, 1), 1)
    count = -(-len(members) // size)
    ends = [0, *np.cumsum(shares(len(members), count)).tolist()]
    return [(members[start:end], drop * end // len(members) - drop * start // len(members))
            for start, end in pairwise(ends)]


def _compete(traces: list[_Trace], count: int) -> None:
    """Take `count` weights, each the cheapest of all outputs by then."""
    heap = [(*trace.cheapest(), i) for i, trace in enumerate(traces)]
    heapq.heapify(heap)
    for _ in range(count):
        _, place, i = heap[0]
        traces[i].remove(place)
        heapq.heapreplace(heap, (*traces[i].cheapest(), i))


class _Trace:
    """The weights of one output while they go: `H^-1` of what is left is `inverse - steps' steps`."""

    def __init__(self, weights: Floats, inverse: Floats, pattern: Pattern) -> None:
        self.weights, self.inverse, self.pattern = weights.copy(), inverse, pattern
        self.diagonal = inverse.diagonal().copy()
        self.least = 1e-12 * self.diagonal  # rounding errors may bring what has next to no freedom left below zero
        self.kept = np.ones(len(weights), dtype=np.bool_)
        self.steps, self.count = np.empty((8, len(weights))), 0

    def cheapest(self) -> tuple[float, int]:
        """What the cheapest weight costs, infinity where none may go, and its place."""
        costs = np.where(self.pattern.eligible(self.kept), self.weights**2 / self.diagonal, np.inf)
        place = int(costs.argmin())
        return float(costs[place]), place

    def remove(self, place: int) -> None:
        """Take one weight, and let the others make up for it."""
        done = self.steps[: self.count]
        column = np.where(self.kept, self.inverse[place] - done[:, place] @ done, 0.0)
        pivot = self.diagonal[place]
        self.weights -= self.weights[place] / pivot * column
        if self.count == len(self.steps):
            self.steps = np.concatenate([self.steps, np.empty_like(self.steps)])
        self.steps[self.count] = column / np.sqrt(pivot)
        self.kept[place] = False
        self.weights[place] = 0.0
        self.diagonal = np.maximum(self.diagonal - self.steps[self.count] ** 2, self.least)
        self.count += 1
