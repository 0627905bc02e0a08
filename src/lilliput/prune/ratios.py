"""A ratio for every layer, found by an agent that goes from layer to layer under the budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.graph import Traced
from lilliput.prune.allocation import Allocation, Scores
from lilliput.prune.fitting import Target
from lilliput.prune.observation import looks
from lilliput.prune.trials import Along, Exactly, Trials
from lilliput.prune.units import Plan
from lilliput.train.agents import DDPG, ActorCritic
from lilliput.train.progress import Bar

_STEPS = 14  # of bisection: a ratio to 1 in 16,000


class Reward(Protocol):
    """What an episode earns, of the error (a share of 1) and of what the pruned network costs."""

    fills: ClassVar[bool]

    def __call__(self, error: float, cost: Mapping[str, float], /) -> float:
        """The reward."""
        ...


@dataclass(frozen=True)
class Exact:
    """`-error`; what an episode leaves of the budget is given back to its layers. (he2018amc)"""

    fills: ClassVar[bool] = True

    def __call__(self, error: float, cost: Mapping[str, float]) -> float:  # noqa: ARG002
        """The reward."""
        return -error


@dataclass(frozen=True)
class AccuracyGuaranteed:
    """`-error log(MACs)`: saves as long as it costs little accuracy, beyond what the budget asks for. (he2018amc)"""

    fills: ClassVar[bool] = False

    def __call__(self, error: float, cost: Mapping[str, float]) -> float:
        """The reward."""
        return -error * math.log(max(cost["macs"], 1.0))


@dataclass(frozen=True, kw_only=True)
class LayerRatios:
    """The shares of best reward among those that a DDPG agent tries in so many episodes. (he2018amc)

    Before group `t` the agent sees `(t, n, c, h, w, stride, k, cost[t], reduced, rest, a[t-1])`: `looks`, what could be saved in the group
    alone, what earlier groups have saved, what the following could save, and its last action. Its action is the share to remove, up to
    `most`, and no less than what keeps the budget in reach were the following groups to lose `most` each (`bounded`, Algorithm 1).
    Every step earns what the whole episode does. Candidates are scored on `samples` validation samples without training, and the same share
    of every group is the first, so that the choice is not below it there; of equal rewards the one of less loss.

    Departs from the paper in that steps are groups of coupled channels, not layers; in that costs are those of the network with both inputs
    and outputs gone, which do not add up, so that bounds are found by bisection (budgets that have to be measured bound nothing); in that
    candidates are then fitted to the budget (`Trials.fitted`); and in that batch norms take their statistics from the samples, while weights
    are not reconstructed, before a candidate is scored. The paper takes 400 episodes, 100 of them at random.
    """

    agent: DDPG = field(default_factory=lambda: DDPG(hidden=(300, 300), warmup=25, decay=0.97, memory=2000))
    reward: Reward = field(default_factory=Exact)
    most: float = 0.8
    episodes: int = 100
    samples: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.most <= 1:
            raise RecipeError(f"most is the largest share of a group that may go, above 0 and up to 1, not {self.most!r}")
        if min(self.episodes, self.samples) < 1:
            raise RecipeError(f"episodes and samples are whole numbers from 1, not {self.episodes!r} and {self.samples!r}")

    def under(self, target: Target, plan: Plan, scores: Scores, traced: Traced, data: Any, /) -> Allocation:
        """Searches; raises `PreconditionError` without data, and `BudgetError` where no choice meets the limits."""
        trials = Trials.of(plan, scores, target, traced, data, samples=self.samples)
        world = World(trials, looks(plan, traced), self.most)
        best, value = self._rated(trials, [0.5] * len(scores), fit=True)
        networks = ActorCritic(self.agent, world.size, self.seed)
        with Bar(total=self.episodes) as bar:
            for episode in range(self.episodes):
                states, shares = self._play(networks, world)
                chosen, found = self._rated(trials, shares)
                networks.remember(states, torch.tensor(shares, dtype=torch.float32) / self.most, torch.full((len(shares),), found[0]))
                networks.improve(len(shares))
                best, value = (chosen, found) if found > value else (best, value)
                bar.update(episode + 1, f"episode {episode + 1}, best reward {value[0]:.4f}")
        note = f"the best of {self.episodes} episodes and equal shares on {self.samples} validation samples at most: reward {value[0]:.4f}, loss {-value[1]:.4f}"
        return (Along if self.reward.fills else Exactly)(tuple(best), (note,))

    def _play(self, networks: ActorCritic, world: World) -> tuple[Tensor, list[float]]:
        states, shares = [], list[float]()
        for _ in world.trials.scores:
            states.append(world.state(shares))
            wanted = float(networks.actions(states[-1][None])) * self.most
            shares.append(world.bounded(shares, wanted))
        return torch.stack(states), shares

    def _rated(self, trials: Trials, shares: list[float], *, fit: bool = False) -> tuple[list[float], tuple[float, float]]:
        """The shares, brought to the budget where they do not keep to it; the reward, and minus the loss."""
        if fit or self.reward.fills or not trials.met(trials.kept(shares)):
            shares = trials.fitted(shares)
        keep = trials.kept(shares)
        score = trials.score(keep)
        return shares, (self.reward(score.error, trials.plan.cost(keep)), -score.loss)


class World:
    """What an agent sees and may do."""

    def __init__(self, trials: Trials, table: np.ndarray[Any, np.dtype[np.float64]], most: float) -> None:
        self.trials, self.most, self.groups = trials, most, len(trials.scores)
        limited = next(iter(trials.target.limits))
        whole = trials.plan.cost(trials.plan.everything())
        self.counted = limited if limited in whole else "macs"
        self.whole = whole[self.counted]
        self.table = table / np.maximum(table.max(0), 1e-12)
        self.alone = np.array([1 - self.cost([float(i == t) for i in range(self.groups)]) for t in range(self.groups)])
        self.size = table.shape[1] + 5

    def cost(self, shares: Sequence[float]) -> float:
        """What is left of the cost that the agent sees, as a share; groups without a share stay whole."""
        rest = [0.0] * (self.groups - len(shares))
        return self.trials.plan.cost(self.trials.kept([*shares, *rest]))[self.counted] / self.whole

    def state(self, shares: Sequence[float]) -> Tensor:
        """What is seen before the next group, `(size,)`."""
        t = len(shares)
        seen = [t / self.groups, *self.table[t], self.alone[t], 1 - self.cost(shares), float(self.alone[t + 1:].sum()), shares[-1] if t else 0.0]
        return torch.tensor(seen, dtype=torch.float32)

    def bounded(self, shares: Sequence[float], wanted: float) -> float:
        """The least share from `wanted` on with which the budget is met if all following groups lose `most`; `most` where there is none.

        Where costs add up: `max(wanted, (duty - most * following) / own)`, with `duty` what is still to be saved, `own` and `following` what
        this group and the following cost.
        """
        rest = [self.most] * (self.groups - len(shares) - 1)

        def reachable(share: float) -> bool:
            return self.trials.met(self.trials.kept([*shares, share, *rest]))

        if not self.trials.target.structural(self.trials.plan) or reachable(wanted):
            return wanted
        low, high = wanted, self.most
        for _ in range(_STEPS if reachable(high) else 0):
            middle = (low + high) / 2
            low, high = (low, middle) if reachable(middle) else (middle, high)
        return high
