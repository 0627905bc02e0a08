"""Rate and distortion: how sparse each group may be, by what the network's output loses, at the optimum."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.prune.allocation import Allocation, Scores
from lilliput.prune.sensitivity import masked_
from lilliput.prune.units import Plan
from lilliput.train import evaluating

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def least_distortion(curves: Sequence[Floats]) -> Ints:
    """For every number of quanta in all, how many go from each group at the least sum of distortions: `(quanta + 1, groups)`.

    `curves[g][j]` is the distortion of `j` quanta gone from group `g`. Dynamic programming over groups:
    `best_g(q) = min_j best_(g-1)(q - j) + curves[g][j]`. (xu2023rd)
    """
    best, picks = np.zeros(1), []
    for curve in curves:
        total = np.full(len(best) + len(curve) - 1, np.inf)
        pick = np.zeros(len(total), dtype=np.int64)
        for j, distortion in enumerate(curve):
            reached = total[j:j + len(best)]
            better = best + distortion < reached
            reached[better] = (best + distortion)[better]
            pick[j:j + len(best)][better] = j
        best = total
        picks.append(pick)
    found = np.zeros((len(best), len(curves)), dtype=np.int64)
    left = np.arange(len(best))
    for group in reversed(range(len(curves))):
        found[:, group] = picks[group][left]
        left = left - found[:, group]
    return found


@dataclass(frozen=True, kw_only=True)
class RateDistortion:
    """The sparsities with the least sum, over groups, of what pruning each alone does to the network's output. (xu2023rd)

    Distortion `E |f(x) - f'(x)|^2` is measured on `samples` of the training split at `levels` sparsities of each group, others whole, and
    lies on straight lines in between; sparsity is counted in `quanta` of the whole. The paper adds distortions up by a first-order
    argument. Where an amount falls between two counts, so do the sparsities. Measured once: scores that change later do not change it.
    """

    samples: int = 128
    levels: int = 16
    quanta: int = 1000

    def __post_init__(self) -> None:
        if min(self.samples, self.levels, self.quanta) < 1:
            raise RecipeError(f"samples, levels and quanta are positive, not {self.samples}, {self.levels} and {self.quanta}")

    def on(self, plan: Plan, scores: Scores, traced: Traced, data: Any, /) -> Allocation:
        """Measures on a copy; raises `PreconditionError` without data."""
        if data is None:
            raise PreconditionError("rate and distortion are measured on data: pass data=")
        sizes = np.array([np.size(s) for s in scores])
        counts = np.maximum(np.round(sizes / sizes.sum() * self.quanta).astype(np.int64), 1)
        positions = np.linspace(0, 1, self.levels + 1)
        curves = [np.interp(np.linspace(0, 1, count + 1), positions, curve)
                  for count, curve in zip(counts, self.distortions(plan, scores, traced, data), strict=True)]
        table = least_distortion(curves) / counts

        def shares(scores: Scores, amount: float) -> Floats:  # noqa: ARG001
            place = min(max(amount, 0.0), 1.0) * (len(table) - 1)
            low = min(int(place), len(table) - 2)
            found: Floats = table[low] + (place - low) * (table[low + 1] - table[low])
            return found

        return shares

    def distortions(self, plan: Plan, scores: Scores, traced: Traced, data: Any) -> Floats:
        """`(groups, levels + 1)`, from nothing removed to all that may go."""
        inputs, _ = next(data.train.batches(self.samples, seed=0))
        model, whole = copy.deepcopy(traced), plan.everything()
        found = np.zeros((len(scores), self.levels + 1))
        with torch.no_grad(), evaluating(model):
            reference: Tensor = model(inputs)
            for group in range(len(scores)):
                for level in range(1, self.levels + 1):
                    sparsity = np.zeros(len(scores))
                    sparsity[group] = level / self.levels
                    chosen = plan.keep(list(scores), sparsity)
                    with masked_(model, plan.masks([chosen[i] if i == group else kept for i, kept in enumerate(whole)])):
                        found[group, level] = float((model(inputs) - reference).double().square().flatten(1).sum(1).mean())
        return found
