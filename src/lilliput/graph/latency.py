"""Latency by interleaved rounds: warm-up, every candidate once a round in random order, medians with intervals.

Machines drift (turbo, neighbours, heat). Candidates that are timed one after the other each get a different machine;
candidates that take turns within a round share it, and their ratio, taken round by round, is free of the drift.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lilliput.core.errors import PreconditionError

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Median seconds of one call and its 95% interval, by order statistics over `rounds` rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def p50(self) -> float:
        """The median."""
        return self.median


@dataclass(frozen=True)
class Comparison:
    """Seconds of one call, per candidate and round; the rounds of all candidates correspond."""

    samples: Mapping[str, tuple[float, ...]]

    def __getitem__(self, name: str) -> Timing:
        if name not in self.samples:
            raise PreconditionError(f"{name!r} was not timed; there are: {', '.join(self.samples)}")
        return summarize(self.samples[name])

    @property
    def timings(self) -> dict[str, Timing]:
        """The timing of every candidate."""
        return {name: summarize(values) for name, values in self.samples.items()}

    def ratio(self, numerator: str, denominator: str) -> Timing:
        """`median_r(t_numerator(r) / t_denominator(r))` over rounds `r`, with its interval; it has no unit."""
        for name in (numerator, denominator):
            if name not in self.samples:
                raise PreconditionError(f"{name!r} was not timed; there are: {', '.join(self.samples)}")
        pairs = zip(self.samples[numerator], self.samples[denominator], strict=True)
        return summarize([a / b if b else math.inf for a, b in pairs])


def summarize(values: Sequence[float]) -> Timing:
    """Median and its 95% interval `[x_(k), x_(n-k+1)]`, `k` the largest with `P(Binomial(n, 1/2) < k) <= 2.5%`.

    Below six values no such `k` exists, and the interval is the whole range.
    """
    if not values:
        raise PreconditionError("no rounds to summarize: time at least one")
    ordered, n = sorted(values), len(values)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    tail, k = 0.0, 0
    while k < n // 2:
        tail += math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))
        if tail > 0.025:
            break
        k += 1
    low = ordered[max(k - 1, 0)]
    high = ordered[n - max(k, 1)]
    return Timing(median=middle, low=low, high=high, rounds=n)


def compare(functions: Mapping[str, Callable[[], object]], *, rounds: int = 30, warmup: int = 3,
            min_seconds: float = 1e-3, seed: int = 0, clock: Clock = time.perf_counter) -> Comparison:
    """Time every function once a round, in an order drawn anew each round.

    `warmup` calls come first and do not count. A sample lasts at least `min_seconds`: faster functions are called several
    times in a row and the time divided. Raises `PreconditionError` without functions or rounds.
    """
    if not functions or rounds < 1 or warmup < 0:
        raise PreconditionError(f"timing needs functions and rounds >= 1, not {len(functions)} functions, {rounds} rounds, {warmup} warm-ups")
    repeats = {name: _repeats(function, warmup, min_seconds, clock) for name, function in functions.items()}
    order, generator = list(functions), random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in order}
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            samples[name].append(_sample(functions[name], repeats[name], clock))
    return Comparison({name: tuple(samples[name]) for name in functions})


def _repeats(function: Callable[[], object], warmup: int, min_seconds: float, clock: Clock) -> int:
    """Calls in a row that fill `min_seconds`, judged by the fastest warm-up call."""
    fastest = min((_sample(function, 1, clock) for _ in range(warmup)), default=math.inf)
    if fastest >= min_seconds:
        return 1
    return min(math.ceil(min_seconds / fastest), 10_000) if fastest > 0 else 1


def _sample(function: Callable[[], object], repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        function()
    return (clock() - start) / repeats


@contextmanager
def pinned_threads(count: int) -> Iterator[None]:
    """Run torch with `count` threads within the block, and with as many as before after it."""
    import torch

    if count < 1:
        raise PreconditionError(f"at least one thread is needed, not {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
