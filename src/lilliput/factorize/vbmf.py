"""Ranks by variational Bayesian matrix factorization: how many singular values stand out of the noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Array = NDArray[np.float64]
# The constant of Nakajima's approximate threshold, `tau = 2.5129 sqrt(alpha)`.
_TAU = 2.5129


def vbmf_rank(singular: Array, rows: int, columns: int) -> int:
    """The rank of the global solution of empirical VBMF with the noise variance estimated, for a fully observed matrix.

    With `L <= M` the two sides and `alpha = L / M`, components with `s > sqrt(M v (1 + t)(1 + alpha / t))` are kept,
    `t = 2.5129 sqrt(alpha)`; `v` minimises the free energy over the interval in which the solution must lie. `singular` are
    all `min(rows, columns)` singular values, descending. (nakajima2013vbmf)

    A matrix of exactly the rank `r < L` has no noise, and `r` is returned; a matrix of zeros has rank zero.
    """
    short, long = sorted((rows, columns))
    power = singular[:short] ** 2
    if not power.any():
        return 0
    exact = int((singular > singular[0] * np.finfo(np.float32).eps * long).sum())
    if exact < short:
        return exact
    alpha = short / long
    tau = _TAU * math.sqrt(alpha)
    edge = (1 + tau) * (1 + alpha / tau)
    variance = _noise(power, short, long, edge)
    return int((power > long * variance * edge).sum())


def _noise(power: Array, short: int, long: int, edge: float) -> float:
    """The noise variance of least free energy."""
    alpha = short / long
    most = min(math.ceil(short / (1 + alpha)) - 1, short) - 1
    upper = power.sum() / (short * long)
    lower = max(power[most + 1] / (long * edge), power[most + 1:].mean() / long)
    if lower >= upper:
        return float(upper)
    # Relative to the lower end, so that the search does not depend on the scale of the matrix.
    found = minimize_scalar(lambda v: _free_energy(power / (long * lower * v), alpha, edge),
                            bounds=(1.0, upper / lower), method="bounded")
    return float(found.x * lower)


def _free_energy(x: Array, alpha: float, edge: float) -> float:
    """The free energy of all components, `(L,)`, up to constants, for `x = s^2 / (M v)`.

    `sum_lost (x - log x) + sum_kept (x - t + log((t + 1) / x) + alpha log(t / alpha + 1))`, `t` the larger root of
    `t + (1 + alpha) + alpha / t = x`. (nakajima2013vbmf)
    """
    kept, lost = x[x > edge], x[x <= edge]
    tau = 0.5 * (kept - (1 + alpha) + np.sqrt(np.maximum((kept - (1 + alpha)) ** 2 - 4 * alpha, 0.0)))
    return float((lost - np.log(lost)).sum() + (kept - tau).sum() + np.log((tau + 1) / kept).sum() + alpha * np.log1p(tau / alpha).sum())
