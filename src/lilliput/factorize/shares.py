"""Shares of a number of bits: one strength for all layers, so that a bit buys the same everywhere, or the same bits for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lilliput.core.errors import BudgetError, RecipeError
from lilliput.factorize.coded import Coded, total_bits
from lilliput.factorize.sensitivity import Metric

# Halvings of the interval of strengths before and after bases are chosen, and how far it opens again to either side.
_ROUNDS = ((10, 0.0), (9, 2.0))


class Source(Protocol):
    """One weight, ready to be coded at any strength; more of it means fewer bits."""

    shape: tuple[int, ...]

    def coded(self, strength: float) -> Coded:
        """The weight at this strength."""
        ...

    def settle_(self, strength: float) -> None:
        """Choose what does not change with every strength (bases, centroids), for strengths near this one."""
        ...


class Coder(Protocol):
    """`(weight, metric) -> Source`."""

    slopes: ClassVar[tuple[float, float]]

    def __call__(self, weight: Any, metric: Metric) -> Source:
        """Prepare one weight."""
        ...


class Sharing(Protocol):
    """`(sources, interval of strengths) -> Coded` for each, by name."""

    def __call__(self, sources: Mapping[str, Source], ends: tuple[float, float]) -> dict[str, Coded]:
        """Code every weight; raises `BudgetError` where the bits do not even pay for the tables."""
        ...


@dataclass(frozen=True, kw_only=True)
class Average:
    """`bits` for each weight on average over all layers, tables and side information included; one strength for all."""

    bits: float = 3.0

    def __post_init__(self) -> None:
        _check(self.bits)

    def __call__(self, sources: Mapping[str, Source], ends: tuple[float, float]) -> dict[str, Coded]:
        """The largest rate that is not above the limit."""
        names, all_sources = list(sources), list(sources.values())
        limit = self.bits * sum(_count(s) for s in all_sources)
        return dict(zip(names, _fitted(all_sources, limit, ends, "the network"), strict=True))


@dataclass(frozen=True, kw_only=True)
class Each:
    """`bits` for each weight in every layer, tables and side information included, and `row_bits` for each output on top.

    With 16 of the latter a layer has what rounding to `bits` with one scale for each output channel takes.
    """

    bits: float = 3.0
    row_bits: float = 0.0

    def __post_init__(self) -> None:
        _check(self.bits)

    def __call__(self, sources: Mapping[str, Source], ends: tuple[float, float]) -> dict[str, Coded]:
        """For every layer the largest rate that is not above its limit."""
        return {name: _fitted([source], self.bits * _count(source) + self.row_bits * source.shape[0], ends, name)[0]
                for name, source in sources.items()}


def _count(source: Source) -> int:
    out = 1
    for side in source.shape:
        out *= side
    return out


def _fitted(sources: Sequence[Source], limit: float, ends: tuple[float, float], name: str) -> list[Coded]:
    """Bisection on the strength; rates fall with it but for small wiggles, so what was within the limit is kept."""
    search = _Search(sources, limit)
    low, high = ends
    for index, (halvings, reach) in enumerate(_ROUNDS):
        if index:
            for source in sources:
                source.settle_(high)
            low, high = max(high - reach, ends[0]), min(high + reach, ends[1])
        low, high = search.halved(low, high, halvings)
    if search.best is None:
        least = sum(total_bits(s.coded(ends[1])) for s in sources)
        raise BudgetError(f"{limit:.0f} bits are too few for {name}, whose tables alone take {least:.0f}: ask for more, or exclude layers")
    return search.best


class _Search:
    """What is known of one number of bits."""

    def __init__(self, sources: Sequence[Source], limit: float) -> None:
        self._sources, self._limit = sources, limit
        self.best: list[Coded] | None = None
        self._nearest = -1.0

    def halved(self, low: float, high: float, times: int) -> tuple[float, float]:
        """A smaller interval of strengths with the limit in it; what was found before it counts no more."""
        self._nearest = -1.0
        if not self._within(high):
            return low, high
        for _ in range(times):
            middle = (low + high) / 2
            low, high = (low, middle) if self._within(middle) else (middle, high)
        return low, high

    def _within(self, strength: float) -> bool:
        coded = [source.coded(strength) for source in self._sources]
        bits = sum(total_bits(c) for c in coded)
        if bits <= self._limit and bits > self._nearest:
            self.best, self._nearest = coded, bits
        return bits <= self._limit


def _check(bits: float) -> None:
    if not 0 < bits <= 16:
        raise RecipeError(f"bits for each weight lie above 0 and up to 16, not {bits!r}")
