"""Allocation: how one amount of sparsity is shared among groups, `(scores, amount) -> sparsity per group`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = Sequence[NDArray[np.float64]]
Allocation = Callable[[Scores, float], NDArray[np.float64]]


def uniform(scores: Scores, amount: float) -> NDArray[np.float64]:
    """The same share of every group."""
    return np.full(len(scores), amount)


def global_threshold(scores: Scores, amount: float) -> NDArray[np.float64]:
    """One threshold for all: the share of each group that lies among the lowest `amount` of all scores."""
    if amount <= 0:
        return np.zeros(len(scores))
    everything = np.concatenate([np.asarray(s).ravel() for s in scores])
    rank = min(round(amount * len(everything)), len(everything)) - 1
    if rank < 0:
        return np.zeros(len(scores))
    threshold = np.partition(everything, rank)[rank]
    return np.array([float(np.mean(np.asarray(s) <= threshold)) for s in scores])
