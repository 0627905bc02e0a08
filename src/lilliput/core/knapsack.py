"""Exact choice of one option from every row: least value within one limit, or within several."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import BudgetError, PreconditionError

Array = NDArray[np.float64]
_TIGHTENED = 5


def choose(values: Array, costs: Mapping[str, Array], limits: Mapping[str, float]) -> tuple[int, ...]:
    """One option for each row: `min sum_i v[i, c_i]` subject to `sum_i cost[i, c_i] <= limit` for every limit.

    `values` and each of `costs` are `(rows, options)`. Exact: a dynamic programme over the undominated partial choices for
    one limit (a multiple-choice knapsack), an integer programme for several.

    Raises `BudgetError` where nothing meets the limits, `PreconditionError` without limits or with values that are not finite.
    """
    if not limits:
        raise PreconditionError("there is nothing to choose within: give the budget a limit on what the options cost")
    if not np.isfinite(values).all():
        raise PreconditionError("values of options must be finite numbers: check data and network for NaN")
    for name, limit in limits.items():
        least = float(costs[name].min(1).sum())
        if least > limit:
            raise BudgetError(f"{name} <= {limit:.6g} cannot be met: the cheapest options take {least:.6g}; "
                              f"allow cheaper ones or more {name}")
    if len(limits) == 1:
        (name, limit), = limits.items()
        return knapsack(values, costs[name], limit)
    return programme(values, costs, limits)


class _Hull(NamedTuple):
    """The lower convex hulls of several layers, merged: steps in the order of their slope, and where they start."""

    cost: float
    value: float
    steps: tuple[tuple[float, float, int, int], ...]  # cost and value of the step, layer, option that it leads to

    def bound(self, capacity: Array) -> Array:
        """The least value with fractions of options allowed, for each capacity."""
        spent = np.cumsum([0.0, *(step[0] for step in self.steps)])
        gained = np.cumsum([0.0, *(step[1] for step in self.steps)])
        return np.asarray(self.value + np.interp(capacity - self.cost, spent, gained))


def _hull_of(values: Array, costs: Array) -> list[int]:
    """Options on the lower convex hull of value over cost, from the cheapest on, each worth less than the one before."""
    order = np.lexsort((values, costs))
    hull = [int(order[0])]
    for i in order[1:]:
        if values[i] >= values[hull[-1]]:
            continue
        while len(hull) > 1 and _slope(values, costs, hull[-2], hull[-1]) >= _slope(values, costs, hull[-1], int(i)):
            hull.pop()
        hull.append(int(i))
    return hull


def _slope(values: Array, costs: Array, a: int, b: int) -> float:
    return float((values[b] - values[a]) / (costs[b] - costs[a]))


def _merged(values: Array, costs: Array, first: int) -> _Hull:
    steps, cost, value = [], 0.0, 0.0
    for layer in range(first, len(values)):
        hull = _hull_of(values[layer], costs[layer])
        cost, value = cost + costs[layer, hull[0]], value + values[layer, hull[0]]
        steps += [(costs[layer, b] - costs[layer, a], values[layer, b] - values[layer, a], layer, b) for a, b in pairwise(hull)]
    steps.sort(key=lambda step: step[1] / step[0])
    return _Hull(cost, value, tuple(steps))


def _greedy(hull: _Hull, values: Array, costs: Array, limit: float) -> list[int]:
    """A choice within the limit that follows the hulls; a layer stops at its first step that does not fit."""
    chosen = [_hull_of(v, c)[0] for v, c in zip(values, costs, strict=True)]
    spent, stopped = hull.cost, set()
    for cost, _, layer, option in hull.steps:
        if layer not in stopped and spent + cost <= limit:
            spent, chosen[layer] = spent + cost, option
        else:
            stopped.add(layer)
    return chosen


def knapsack(values: Array, costs: Array, limit: float) -> tuple[int, ...]:
    """The multiple-choice knapsack, exactly, by dynamic programming.

    After each layer the partial choices are kept that no cheaper one matches in value, and whose value with the best
    completion, fractions of options allowed, does not exceed that of a choice known already. Sums of whole costs are exact up
    to 2^53.
    """
    greedy = _greedy(_merged(values, costs, 0), values, costs, limit)
    known = float(sum(v[c] for v, c in zip(values, greedy, strict=True)))
    slack = 1e-9 * (1 + np.abs(values).max(1).sum())
    spent, worth = np.zeros(1), np.zeros(1)
    trail: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for layer in range(len(values)):
        all_spent = (spent[:, None] + costs[layer]).ravel()
        all_worth = (worth[:, None] + values[layer]).ravel()
        rest = _merged(values, costs, layer + 1)
        fits = np.flatnonzero(all_spent + rest.cost <= limit)
        fits = fits[all_worth[fits] + rest.bound(limit - all_spent[fits]) <= known + slack]
        order = fits[np.lexsort((all_worth[fits], all_spent[fits]))]
        best = np.minimum.accumulate(all_worth[order])
        kept = order[np.append(True, all_worth[order][1:] < best[:-1])] if len(order) else order
        trail.append(np.divmod(kept, costs.shape[1]))
        spent, worth = all_spent[kept], all_worth[kept]
    if not len(worth):  # only where rounding errors of the costs decide
        return tuple(greedy)
    at, chosen = int(worth.argmin()), []
    for parents, options in reversed(trail):
        chosen.append(int(options[at]))
        at = int(parents[at])
    return tuple(reversed(chosen))


def programme(values: Array, costs: Mapping[str, Array], limits: Mapping[str, float]) -> tuple[int, ...]:
    """Several limits at once: an integer programme, solved to optimality by branch and bound (HiGHS through scipy)."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    layers, options = values.shape
    scale = 1e5 / max(float(np.ptp(values, axis=1).sum()), 1e-300)
    one_each = np.kron(np.eye(layers), np.ones(options))
    rows = np.stack([costs[name].ravel() / limit for name, limit in limits.items()])
    tops = np.ones(len(limits))
    for _ in range(_TIGHTENED):
        constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(rows, -np.inf, tops)]
        found = milp((values - values.min(1, keepdims=True)).ravel() * scale, integrality=np.ones(values.size),
                     bounds=Bounds(0, 1), constraints=constraints, options={"mip_rel_gap": 0.0})
        if found.x is None:
            asked = " and ".join(f"{name} <= {limit:.6g}" for name, limit in limits.items())
            raise BudgetError(f"no options meet {asked} together: allow more of one")
        chosen = found.x.reshape(layers, options).argmax(1)
        picked = np.arange(layers), chosen
        over = np.array([float(costs[name][picked].sum()) > limit for name, limit in limits.items()])
        if not over.any():
            break
        # The solver's tolerance let a limit pass by a millionth: ask for that much less.
        tops = np.where(over, tops - 2e-6, tops)
    else:
        raise BudgetError("no options meet the budget by more than the solver's tolerance: allow slightly more")
    return tuple(int(c) for c in chosen)
