"""One ranking of all units that fills a budget up, however large its units are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lilliput.graph.coupling import Keep
from lilliput.prune.allocation import Scores, global_threshold
from lilliput.prune.units import Plan


@dataclass(frozen=True)
class Ranking:
    """One threshold for all scores; what the last unit under it saved too much, others come back for, the highest score first.

    With `groups` units of the first so many groups alone come back.
    """

    groups: int | None = None

    def __call__(self, scores: Scores, amount: float) -> NDArray[np.float64]:
        """The share of each group among the lowest `amount` of all scores."""
        return global_threshold(scores, amount)

    def filled(self, plan: Plan, scores: Scores, keep: list[Keep], cost: Callable[[list[Keep]], Mapping[str, float]],  # noqa: ARG002
               limits: Mapping[str, float], /) -> list[Keep]:
        """The choice with every unit that fits within the limits."""
        found = [kept.copy() for kept in keep]
        gone = [(float(np.ravel(values)[i]), group, int(i)) for group, values in enumerate(scores[:self.groups])
                for i in np.flatnonzero(~keep[group])]
        for _, group, unit in sorted(gone, reverse=True):
            found[group][unit] = True
            costs = cost(found)
            found[group][unit] = all(costs[name] <= limit for name, limit in limits.items())
        return found
