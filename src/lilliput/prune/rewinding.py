"""Rounds of training and pruning, from which each goes back to the same early weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.during import Pruning
from lilliput.prune.fitting import Target
from lilliput.prune.hooks import HoldMasks
from lilliput.train import Fit, Schedule


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of a learning-rate schedule, from the share `start` of it to the share `end`."""

    schedule: Schedule
    start: float
    end: float

    def __call__(self, t: float, /) -> float:
        """The factor at the share `t` of the stretch."""
        return self.schedule(self.start + t * (self.end - self.start))


@dataclass(frozen=True, kw_only=True)
class Rewinding:
    """Train, prune, go back, `rounds` times over, and train what is left: each takes the same share of the cost that is left.

    Weights, and the statistics of batch norms, go back to what they were after `to` epochs of the first training, with `to=0`
    to the network as it came; the training from there on has the rest of the learning-rate schedule. (frankle2019lottery) Going
    back to other epochs than the first, and with it the optimizer anew, is of the same authors' later work.
    """

    rounds: int = 5
    to: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.to < 0:
            raise RecipeError(f"Rewinding has rounds from 1 and goes back to an epoch from 0, not {self.rounds} and {self.to}")

    def carry_out(self, traced: Traced, pruning: Pruning) -> tuple[Traced, list[Keep]]:
        """All rounds; each training has a checkpoint of its own."""
        plan, start = pruning.elements(), traced
        opening, rest = self._parts(pruning.fit)
        if self.to:
            start = pruning.train(traced, opening, (), "opening")
        trained = pruning.train(start, rest, (), "round0")
        whole = pruning.target.cost(plan, plan.everything(), lambda: traced)
        for number in range(1, self.rounds + 1):
            keep = pruning.kept(pruning.scores(trained), trained, self._limits(pruning.target, whole, number))
            trained = pruning.train(plan.apply(keep, start), rest, (HoldMasks(plan.masks(keep)),), f"round{number}")
        return trained, plan.present(trained)

    def _parts(self, fit: Fit) -> tuple[Fit, Fit]:
        if self.to >= fit.epochs:
            raise PreconditionError(f"there is no going back to epoch {self.to} of {fit.epochs}: train longer, or lower to=")
        if not self.to:
            return fit, fit
        share = self.to / fit.epochs
        return (replace(fit, epochs=self.to, schedule=Part(schedule=fit.schedule, start=0.0, end=share)),
                replace(fit, epochs=fit.epochs - self.to, schedule=Part(schedule=fit.schedule, start=share, end=1.0)))

    def _limits(self, target: Target, whole: dict[str, float], number: int) -> Target:
        """The target of a round, between the whole network's cost and the budget's by equal factors."""
        limits = {name: whole[name] * (limit / whole[name]) ** (number / self.rounds) for name, limit in target.limits.items()}
        return replace(target, limits=target.limits if number == self.rounds else limits)
