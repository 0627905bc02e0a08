"""Growing regularisation: what is to go is pressed to zero first, ever harder, and only then removed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.during import Pruning
from lilliput.prune.hooks import HoldMasks
from lilliput.train import State


@dataclass(frozen=True, kw_only=True)
class GrowingPenalty:
    """`strength(t) / 2 * sum w^2` over what is to go, up to `ceiling` in `updates` equal steps until `t = end`. (wang2021greg)

    What is to go is chosen once, from the network as it came, which is the first of the paper's two variants. From `end` on it
    is held at zero, and the rest of training is the fine-tuning, which the paper runs as one of its own. Of channels every
    tensor that makes or shifts them is pressed, their batch norm's scale and shift too, where the paper presses convolutions
    only: behind a batch norm those fade without an effect.
    """

    ceiling: float = 1.0
    updates: int = 100
    end: float = 0.6

    def __post_init__(self) -> None:
        if not (self.ceiling > 0 and self.updates >= 1 and 0 < self.end <= 1):
            raise RecipeError("GrowingPenalty has a ceiling over 0, updates from 1 and an end in (0, 1], "
                              f"not {self.ceiling}, {self.updates} and {self.end}")

    def strength(self, t: float) -> float:
        """The penalty's factor at the share `t` of training."""
        return self.ceiling * math.floor(min(t / self.end, 1.0) * self.updates) / self.updates

    def carry_out(self, traced: Traced, pruning: Pruning) -> tuple[Traced, list[Keep]]:
        """Press, remove, and train what is left."""
        hook = PressMasked(pruning.plan.masks(pruning.keep), self)
        trained = pruning.train(traced, pruning.fit, (hook,), "recover")
        return pruning.plan.apply(pruning.keep, trained), pruning.keep


class PressMasked(HoldMasks):
    """Adds the slope of a growing penalty to what is masked, and holds it at zero afterwards."""

    def __init__(self, masks: Mapping[str, Tensor], schedule: GrowingPenalty) -> None:
        super().__init__(masks)
        self.schedule = schedule

    def __repr__(self) -> str:
        return f"PressMasked({self.schedule!r})"

    def start(self, state: State) -> None:
        """Nothing is zero yet."""

    def gradients(self, state: State) -> None:
        """Add `strength * w`."""
        parameters = dict(state.model.named_parameters())
        strength = self.schedule.strength(state.progress)
        for name, mask in self.masks.items():
            if name in parameters and parameters[name].grad is not None:
                weight = parameters[name].detach()
                parameters[name].grad.add_(weight * ~mask.to(weight.device), alpha=strength)  # type: ignore[union-attr]

    def step(self, state: State) -> None:
        """Zero what is masked, once it has gone."""
        if state.progress >= self.schedule.end:
            super().step(state)
