"""Timing with a clock that the functions themselves move, so that every figure is known beforehand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lilliput.core.errors import PreconditionError
from lilliput.graph.latency import Comparison, compare, pinned_threads, summarize


class World:
    """A clock, and work that takes a known time of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slowdown = 1.0
        self.calls: list[str] = []

    def clock(self) -> float:
        return self.now

    def work(self, name: str, seconds: float):
        def call() -> None:
            self.calls.append(name)
            self.now += seconds * self.slowdown

        return call


def test_known_times_come_out() -> None:
    world = World()
    result = compare({"a": world.work("a", 0.5), "b": world.work("b", 0.25)}, rounds=9, warmup=2, clock=world.clock)
    assert result["a"].median == pytest.approx(0.5)
    assert result.timings["b"].p50 == pytest.approx(0.25)
    assert result["a"].rounds == 9
    assert result.ratio("b", "a").median == pytest.approx(0.5)
    assert world.calls.count("a") == 11


def test_warm_up_does_not_count() -> None:
    world = World()

    def call() -> None:
        world.calls.append("x")
        world.now += 100.0 if len(world.calls) <= 3 else 1.0

    result = compare({"x": call}, rounds=5, warmup=3, clock=world.clock)
    assert result["x"].high == pytest.approx(1.0)


def test_drift_cancels_in_the_ratio() -> None:
    world = World()

    def drifting(name: str, seconds: float):
        work = world.work(name, seconds)

        def call() -> None:
            work()
            world.slowdown *= 1.02

        return call

    result = compare({"a": drifting("a", 0.3), "b": drifting("b", 0.1)}, rounds=40, warmup=1, clock=world.clock)
    ratio = result.ratio("a", "b")
    assert ratio.median == pytest.approx(3.0, rel=0.025)
    assert ratio.low <= 3.0 <= ratio.high
    assert result["a"].high / result["a"].low > 1.15, "the drift itself must be visible in the plain interval"


def test_each_round_has_everyone_and_orders_vary() -> None:
    world = World()
    compare({name: world.work(name, 0.01) for name in "abc"}, rounds=20, warmup=0, clock=world.clock)
    rounds = [tuple(world.calls[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 3


def test_fast_functions_are_repeated() -> None:
    world = World()
    result = compare({"fast": world.work("fast", 1e-5)}, rounds=4, warmup=1, min_seconds=1e-3, clock=world.clock)
    assert len(world.calls) == pytest.approx(1 + 4 * 100, abs=4)
    assert result["fast"].median == pytest.approx(1e-5)


def test_interval_of_the_median_is_the_textbook_one() -> None:
    # n = 10: P(X <= 1) = 11/1024 and P(X <= 2) = 56/1024, so the interval is [x_(2), x_(9)].
    timing = summarize([float(i) for i in range(1, 11)])
    assert (timing.low, timing.median, timing.high) == (2.0, 5.5, 9.0)
    # n = 25: the textbook interval is [x_(8), x_(18)].
    timing = summarize([float(i) for i in range(1, 26)])
    assert (timing.low, timing.median, timing.high) == (8.0, 13.0, 18.0)
    assert (summarize([3.0]).low, summarize([3.0]).high) == (3.0, 3.0)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200))
def test_the_median_lies_in_its_interval(values: list[float]) -> None:
    timing = summarize(values)
    assert min(values) <= timing.low <= timing.median <= timing.high <= max(values)


@given(st.integers(6, 300))
def test_the_interval_covers_at_least_95_percent_and_barely(n: int) -> None:
    timing = summarize([float(i) for i in range(1, n + 1)])
    k = int(timing.low)
    below = sum(math.comb(n, i) for i in range(k)) / 2**n
    assert below <= 0.025
    assert below + math.comb(n, k) / 2**n > 0.025
    assert timing.high == n - k + 1


def test_bad_requests_name_the_remedy() -> None:
    with pytest.raises(PreconditionError, match="functions"):
        compare({})
    with pytest.raises(PreconditionError, match="rounds"):
        compare({"a": lambda: None}, rounds=0)
    with pytest.raises(PreconditionError, match="there are: a"):
        Comparison({"a": (1.0,)}).ratio("a", "b")
    with pytest.raises(PreconditionError, match="at least one"):
        summarize([])


def test_pinned_threads_restores_even_after_errors() -> None:
    before = torch.get_num_threads()
    with pinned_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before

    def fails() -> None:
        with pinned_threads(1):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails()
    assert torch.get_num_threads() == before


def test_random_order_is_a_function_of_the_seed() -> None:
    orders = []
    for _ in range(2):
        world = World()
        compare({name: world.work(name, 0.01) for name in "abcd"}, rounds=5, warmup=0, seed=7, clock=world.clock)
        orders.append(world.calls)
    assert all(a == b for a, b in pairwise(orders))
