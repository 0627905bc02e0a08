"""Training through gates: the schedule whose masks are those of gates, and the hook that sets them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.allocation import Allocation
from lilliput.prune.during import Pruning
from lilliput.prune.gates import Rule, gated, gates, settled
from lilliput.prune.schedules import Gradual
from lilliput.prune.units import ElementPlan, Scores
from lilliput.train import Hook, State


@dataclass(frozen=True, kw_only=True)
class Gated:
    """Weights pass gates while the network trains; every `interval` steps those with the lowest scores are masked anew.

    How many follows `ramp`, and the gates' own measure of time is how far that has come. What is masked may come back as far as
    the rule lets it learn. In the end the gates' scores meet the budget, the gates go, and what they made of the weights stays.
    """

    rule: Rule
    ramp: Gradual = field(default_factory=Gradual)
    interval: int = 1

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise RecipeError(f"interval is a number of steps from 1, not {self.interval!r}")

    def carry_out(self, traced: Traced, pruning: Pruning) -> tuple[Traced, list[Keep]]:
        """Train with gates, and settle them."""
        plan = pruning.elements()
        hook = SetGates(plan, pruning.allocation, pruning.amount, self)
        trained = pruning.train(gated(traced, plan.names, self.rule), pruning.fit, (hook,), "recover")
        scores = _scores(plan, trained)
        _choose_(plan, trained, pruning.kept(_arrays(scores), settled(trained)), scores)
        small = settled(trained)
        return small, plan.present(small)


class SetGates(Hook):
    """Tells gates which weights pass, and how late it is."""

    def __init__(self, plan: ElementPlan, allocation: Allocation, amount: float, schedule: Gated) -> None:
        self.plan, self.allocation, self.amount, self.schedule = plan, allocation, amount, schedule

    def __repr__(self) -> str:
        return f"SetGates(amount={self.amount!r}, allocation={self.allocation!r}, schedule={self.schedule!r})"

    def start(self, state: State) -> None:
        """The first masks."""
        self._set(state, 0.0, choose=True)

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:  # noqa: ARG002
        """Add what the gates cost."""
        costs = [cost for gate in gates(state.model).values() if (cost := gate.rule.penalty(gate)) is not None]
        return loss + torch.stack(costs).sum() if costs else loss

    def step(self, state: State) -> None:
        """Masks by what the weights are now."""
        self._set(state, state.progress, choose=(state.step + 1) % self.schedule.interval == 0)

    def _set(self, state: State, t: float, *, choose: bool) -> None:
        assert isinstance(state.model, Traced)
        for gate in gates(state.model).values():
            gate.time.fill_(self.schedule.ramp.position(t))
        if choose:
            scores = _scores(self.plan, state.model)
            arrays = _arrays(scores)
            shares = self.allocation(arrays, self.amount * self.schedule.ramp.fraction(t))
            _choose_(self.plan, state.model, self.plan.keep(arrays, np.clip(shares, 0.0, 1.0)), scores)


def _scores(plan: ElementPlan, traced: Traced) -> dict[str, Tensor]:
    found = gates(traced)
    return {name: found[name].scores(traced.tensor(name)) for name in plan.names}


def _arrays(scores: dict[str, Tensor]) -> Scores:
    return [values.double().cpu().numpy() for values in scores.values()]


def _choose_(plan: ElementPlan, traced: Traced, keep: list[Keep], scores: dict[str, Tensor]) -> None:
    found = gates(traced)
    for name, mask in plan.masks(keep).items():
        found[name].choose_(mask, scores[name])
