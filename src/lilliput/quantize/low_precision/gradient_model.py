"""The distribution of a gradient's coordinates, as few numbers describe it: a mixture of truncated normals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from lilliput.core.errors import PreconditionError

Array = NDArray[np.float64]
# Buckets whose coordinates are all alike still have a width.
_NARROWEST = 1e-9


@dataclass(frozen=True, eq=False)
class Mixture:
    """Coordinates `r = g / |g|` in [-1, 1]: `sum_n weight_n N(mean_n, deviation_n^2)`, each cut to [-1, 1]; arrays `(buckets,)`.

    Mean and deviation are those of the coordinates themselves, uncorrected for the cut, as the authors' programs have
    them. What is asked is of magnitudes `|r|`, since levels come in pairs of both signs. (faghri2020alq)
    """

    means: Array
    deviations: Array
    weights: Array

    @staticmethod
    def of(statistics: Array, *, by_norm: bool) -> Mixture:
        """From rows `(mean, deviation, norm)`; `by_norm` weighs a bucket with its squared norm, its part in the error.

        Raises `PreconditionError` when no row has a positive, finite norm.
        """
        rows = statistics[np.isfinite(statistics).all(1) & (statistics[:, 2] > 0)].astype(np.float64)
        if not len(rows):
            raise PreconditionError("all gradients are zero or not finite, so that levels cannot follow them: check the loss")
        weights = (rows[:, 2] / rows[:, 2].max()) ** 2 if by_norm else np.ones(len(rows))
        return Mixture(rows[:, 0], np.maximum(rows[:, 1], _NARROWEST), weights / weights.sum())

    @cached_property
    def _shares(self) -> Array:
        """Weights over what the cut leaves of each normal."""
        return self.weights / self._normal_mass(-1.0, 1.0, self.means)

    def mass(self, low: float, high: float) -> float:
        """`P(low <= |r| <= high)`."""
        return float(self._shares @ (self._normal_mass(low, high, self.means) + self._normal_mass(low, high, -self.means)))

    def moments(self, low: float, high: float) -> tuple[float, float, float]:
        """`integral over low <= |r| <= high of |r|^k dF` for k = 0, 1, 2."""
        below, above = self._signed(low, high, self.means), self._signed(low, high, -self.means)
        zero, one, two = (float(self._shares @ (a + b)) for a, b in zip(below, above, strict=True))
        return zero, one, two

    def _normal_mass(self, low: float, high: float, means: Array) -> Array:
        """The part of normal densities, not cut, over `low <= r <= high`."""
        a, b = (low - means) / self.deviations, (high - means) / self.deviations
        # Differences of the smaller tail, which does not cancel where the larger one is nearly one.
        mass: Array = np.where(a > 0, ndtr(-a) - ndtr(-b), ndtr(b) - ndtr(a))
        return mass

    def _signed(self, low: float, high: float, means: Array) -> tuple[Array, Array, Array]:
        """The three integrals over `low <= r <= high` of normal densities that are not cut."""
        s, mass = self.deviations, self._normal_mass(low, high, means)
        a, b = (low - means) / s, (high - means) / s
        at_low, at_high = (np.exp(-0.5 * np.minimum(z * z, 1400.0)) / math.sqrt(2 * math.pi) for z in (a, b))
        first = means * mass - s * (at_high - at_low)
        second = (means**2 + s**2) * mass - s * ((high + means) * at_high - (low + means) * at_low)
        return mass, first, second

    def variance(self, points: Array) -> float:
        """`E (Q(r) - r)^2` of unbiased rounding between neighbours, for ascending magnitudes `points` up to 1.

        The first point is zero where zero is a level; else values below it are rounded to it with either sign.
        """
        total, lower = 0.0, 0.0 if points[0] == 0 else -float(points[0])
        for upper in points[1:] if points[0] == 0 else points:
            zero, one, two = self.moments(max(lower, 0.0), float(upper))
            total += -two + (lower + float(upper)) * one - lower * float(upper) * zero
            lower = float(upper)
        return total
