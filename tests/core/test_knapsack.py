"""The choice of one option from each row: exact against brute force, for one limit and for several; errors."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.core import BudgetError, PreconditionError
from lilliput.core.knapsack import choose, knapsack, programme


def _brute(values, costs, limits):
    best = None
    for chosen in itertools.product(range(values.shape[1]), repeat=len(values)):
        at = np.arange(len(values)), list(chosen)
        if all(costs[name][at].sum() <= limit for name, limit in limits.items()):
            value = values[at].sum()
            best = value if best is None else min(best, value)
    return best


@st.composite
def problems(draw, limits=1):
    layers, options = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    number = st.integers(-20, 60)
    values = np.array(draw(st.lists(number, min_size=layers * options, max_size=layers * options)), dtype=float).reshape(layers, options)
    cost = st.lists(st.integers(1, 30), min_size=layers * options, max_size=layers * options)
    costs = {str(k): np.array(draw(cost), dtype=float).reshape(layers, options) for k in range(limits)}
    return values, costs, {name: float(draw(st.integers(int(c.min(1).sum()), int(c.max(1).sum()) + 3))) for name, c in costs.items()}


@settings(deadline=None, max_examples=150)
@given(problems())
def test_one_limit_is_solved_exactly(problem):
    values, costs, limits = problem
    chosen = choose(values, costs, limits)
    at = np.arange(len(values)), list(chosen)
    assert costs["0"][at].sum() <= limits["0"]
    assert values[at].sum() == _brute(values, costs, limits)


@settings(deadline=None, max_examples=40)
@given(problems(limits=2))
def test_several_limits_are_solved_exactly(problem):
    values, costs, limits = problem
    best = _brute(values, costs, limits)
    if best is None:
        with pytest.raises(BudgetError, match="together"):
            choose(values, costs, limits)
        return
    chosen = choose(values, costs, limits)
    at = np.arange(len(values)), list(chosen)
    assert all(costs[name][at].sum() <= limit for name, limit in limits.items())
    assert values[at].sum() == pytest.approx(best, abs=1e-6)


def test_both_solvers_agree_on_a_deep_network():
    rng = np.random.default_rng(0)
    counts, widths = rng.integers(100, 60000, 54), np.array([2, 3, 4, 5, 6, 8])
    values = rng.lognormal(size=(54, 1)) * 4.0 ** -widths * rng.uniform(0.8, 1.2, (54, 6))
    costs = counts[:, None] * widths.astype(float)
    limit = 4.0 * counts.sum()
    one, other = knapsack(values, costs, limit), programme(values, {"bits": costs}, {"bits": limit})
    at = np.arange(54)
    assert values[at, list(one)].sum() == pytest.approx(values[at, list(other)].sum(), rel=1e-9)
    assert costs[at, list(one)].sum() <= limit
    uniform = values[:, 2].sum()
    assert values[at, list(one)].sum() < uniform


def test_budgets_that_nothing_meets_say_what_could():
    values, costs = np.zeros((2, 2)), {"bits": np.array([[2.0, 4.0], [6.0, 8.0]])}
    with pytest.raises(BudgetError, match="cheapest options take 8"):
        choose(values, costs, {"bits": 7.0})
    assert choose(values, costs, {"bits": 8.0}) == (0, 0)
    with pytest.raises(PreconditionError, match="finite"):
        choose(np.array([[np.nan]]), {"bits": np.ones((1, 1))}, {"bits": 1.0})
    with pytest.raises(PreconditionError, match="budget a limit"):
        choose(values, costs, {})
