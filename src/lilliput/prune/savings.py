"""Scores per saving: channels of whole networks compare by what they are worth for what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.prune.allocation import Allocation, Scores, global_threshold
from lilliput.prune.maps import layers
from lilliput.prune.units import ChannelPlan, Plan

Saving = Callable[[Plan], NDArray[np.float64]]


def map_elements(plan: Plan) -> NDArray[np.float64]:
    """Elements of the maps, of one sample, that a unit of each group takes in the layers that make it."""
    if not isinstance(plan, ChannelPlan):
        raise PreconditionError("single weights make no maps of their own: pass unit=Channels()")
    coupling, elements = plan.coupling, np.zeros(plan.coupling.count)
    for layer in layers(coupling.traced):
        shape, dims = coupling.size_of(layer), coupling.node_dims(layer)
        assert isinstance(dims, dict)
        for components in dims.values():
            np.add.at(elements, components, math.prod(shape) / shape[0] / len(components))
    return np.array([elements[group.components].mean() for group in plan.groups])


def macs(plan: Plan) -> NDArray[np.float64]:
    """Multiplications that go with the first unit of each group."""
    whole = plan.everything()
    before = plan.cost(whole)["macs"]
    found = []
    for group, kept in enumerate(whole):
        without = kept.copy()
        without[0] = False
        found.append(before - plan.cost([without if i == group else other for i, other in enumerate(whole)])["macs"])
    return np.array(found)


@dataclass(frozen=True)
class PerSaving:
    """One threshold for all scores, each over what a unit of its group saves. (liu2021gfp)"""

    saving: Saving = map_elements

    def on(self, plan: Plan, scores: Scores, traced: Traced, data: Any, /) -> Allocation:  # noqa: ARG002
        """Savings are those of the whole network."""
        saved = np.maximum(self.saving(plan), 1e-12)

        def shares(scores: Scores, amount: float) -> NDArray[np.float64]:
            return global_threshold([values / each for values, each in zip(scores, saved, strict=True)], amount)

        return shares
