"""Levels for gradients, that follow the distribution of the gradients: ALQ moves each level, AMQ one multiplier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.optimize import brentq

from lilliput.core.errors import RecipeError
from lilliput.quantize.low_precision.gradient_model import Array, Mixture


class LevelRule(Protocol):
    """Levels are given by their magnitudes, ascending up to 1, of which a first one of zero has no twin of other sign."""

    @property
    def bits(self) -> int:
        """Bits of a code: `2^bits` signed levels at most."""

    @property
    def by_norm(self) -> bool:
        """Whether buckets weigh by their squared norm."""

    def start(self) -> Array:
        """The levels before any gradient was seen."""

    def follow(self, mixture: Mixture, levels: Array) -> Array:
        """The levels for gradients of this distribution, from those in use."""


def _check(bits: int, least: int) -> None:
    if not isinstance(bits, int) or not least <= bits <= 8:
        raise RecipeError(f"these levels have {least} to 8 bits, not {bits!r}")


@dataclass(frozen=True, kw_only=True)
class UniformLevels:
    """Evenly spaced levels that stay where they are, zero among them: what the adaptive ones are compared with."""

    bits: int = 3
    by_norm: bool = True

    def __post_init__(self) -> None:
        _check(self.bits, 2)

    def start(self) -> Array:
        """`j / (2^(bits-1) - 1)`."""
        return np.linspace(0.0, 1.0, 2 ** (self.bits - 1))

    def follow(self, mixture: Mixture, levels: Array) -> Array:  # noqa: ARG002
        """The same."""
        return levels


@dataclass(frozen=True, kw_only=True)
class AdaptiveLevels:
    """ALQ: levels `0 < l_1 < ... < 1`, each in turn moved to where the expected error is least between its neighbours.

    Coordinate descent, `l_j <- F^-1(F(c) - integral_a^c (r - a) / (c - a) dF(r))` with neighbours `a < l_j < c`, for up to
    `sweeps` rounds; started from the levels in use, from evenly and from exponentially spaced ones, of which the best
    result is taken. `by_norm=False` is the paper's ALQ-N. Zero is a level, as in the paper's text; one code of `2^bits` is
    not used. (faghri2020alq)
    """

    bits: int = 3
    by_norm: bool = True
    sweeps: int = 30

    def __post_init__(self) -> None:
        _check(self.bits, 3)

    def start(self) -> Array:
        """`0, ..., 1/4, 1/2, 1`."""
        return _exponential(self.bits)

    def follow(self, mixture: Mixture, levels: Array) -> Array:
        """The levels of least expected error that the descents find."""
        starts = (levels, UniformLevels(bits=self.bits).start(), _exponential(self.bits))
        return min((descend(mixture, start, self.sweeps) for start in starts), key=mixture.variance)


def _exponential(bits: int) -> Array:
    return np.concatenate([[0.0], 0.5 ** np.arange(2 ** (bits - 1) - 2, -1.0, -1.0)])


def descend(mixture: Mixture, levels: Array, sweeps: int) -> Array:
    """Coordinate descent over the levels between the first and the last, until none moves by a thousandth."""
    levels = levels.copy()
    for _ in range(sweeps):
        before = levels.copy()
        for j in range(1, len(levels) - 1):
            levels[j] = best_between(mixture, float(levels[j - 1]), float(levels[j + 1]), float(levels[j]))
        if np.all(np.abs(levels - before) <= 1e-3 * before):
            break
    return levels


def best_between(mixture: Mixture, low: float, high: float, present: float) -> float:
    """The level `b` in `(low, high)` with `integral_b^high dF = integral_low^high (r - low) / (high - low) dF`.

    `present` where next to nothing lies between the two.
    """
    mass, first, _ = mixture.moments(low, high)
    wanted = (first - low * mass) / (high - low)
    if not 1e-30 < wanted < mass:
        return present
    level = float(brentq(lambda b: mixture.mass(b, high) - wanted, low, high, xtol=1e-9 * high, rtol=1e-6, disp=False))
    return level if low < level < high else present


@dataclass(frozen=True, kw_only=True)
class AdaptiveMultiplier:
    """AMQ: levels `p^s, ..., p^2, p, 1` of either sign with `s = 2^(bits-1) - 1`, and `p` where the expected error is least.

    Zero is no level: below `p^s` the sign is left to chance. `p` descends along the error's gradient, from several starts
    and the one in use. Departs from the paper in that it descends the logarithm of the error over that of `p`, with steps that
    halve when the error grows, so that no learning rate depends on the gradients' size. (faghri2020alq)
    """

    bits: int = 3
    by_norm: bool = True
    steps: int = 30

    def __post_init__(self) -> None:
        _check(self.bits, 2)

    def start(self) -> Array:
        """`..., 1/4, 1/2, 1`."""
        return self.levels(0.5)

    def levels(self, multiplier: float) -> Array:
        """The powers of a multiplier, ascending."""
        powers: Array = multiplier ** np.arange(2 ** (self.bits - 1) - 1, -1.0, -1.0)
        return powers

    def follow(self, mixture: Mixture, levels: Array) -> Array:
        """The levels of the best multiplier found."""
        starts = [float(levels[-2]), 0.2, 0.4, 0.6, 0.8]
        found = [self._descend(mixture, start) for start in starts]
        return self.levels(min(found, key=lambda p: mixture.variance(self.levels(p))))

    def _descend(self, mixture: Mixture, p: float) -> float:
        error, step = mixture.variance(self.levels(p)), 0.2
        for _ in range(self.steps):
            slope = multiplier_slope(mixture, p, 2 ** (self.bits - 1) - 1) * p / error
            new = float(np.clip(p * np.exp(-step * np.clip(slope, -1.0, 1.0)), 0.01, 0.99))
            reached = mixture.variance(self.levels(new))
            p, error, step = (new, reached, step) if reached < error else (p, error, step / 2)
        return p


def multiplier_slope(mixture: Mixture, p: float, s: int) -> float:
    """The derivative of `Mixture.variance` of the levels `p^s, ..., p, 1` by `p`.

    `2 s p^(2s-1) P(|r| < p^s) + sum_j integral_{p^(j+1)}^{p^j} ((j p^(j-1) + (j+1) p^j) r - (2j+1) p^(2j)) dF`. (faghri2020alq)
    """
    slope = 2 * s * p ** (2 * s - 1) * mixture.moments(0.0, p**s)[0]
    for j in range(s):
        mass, first, _ = mixture.moments(p ** (j + 1), p**j)
        slope += (j * p ** (j - 1) + (j + 1) * p**j) * first - (2 * j + 1) * p ** (2 * j) * mass
    return slope
