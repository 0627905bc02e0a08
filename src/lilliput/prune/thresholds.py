"""A magnitude threshold for every layer, in standard deviations, found by an agent that is rewarded after each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lilliput.core.errors import RecipeError
from lilliput.graph import Traced
from lilliput.prune.allocation import Allocation, Scores
from lilliput.prune.fitting import Target
from lilliput.prune.trials import Along, Score, Trials, saved
from lilliput.prune.units import Plan
from lilliput.train.agents import DQN, QNetwork
from lilliput.train.progress import Bar

_MULTIPLES = tuple(i / 10 for i in range(23))


@dataclass(frozen=True, kw_only=True)
class DeviationThresholds:
    """In every layer what lies under a multiple of its standard deviation goes; a DQN agent picks the `multiples`. (gupta2020purl)

    Before layer `t` of `T` it sees `(t / T, A / A_0, P)`: the accuracy so far over that of the whole network, and what is saved of what has
    to be saved (`saved`). After each layer it earns `-weight (max(1 - A / A_0, 0) + max(1 - P, 0))`: what is lost against two targets, at
    once and not at the end of the episode. Accuracy is of the network pruned so far, on `samples` validation samples, without training;
    for data without classes it is the inverse of the loss. What an episode chose is then fitted to the budget (`Trials.fitted`); the choice
    of least loss is taken, and the same share of every layer is the first to be scored, so that it is not below that on these samples.

    The deviation is that of the scores about zero, so of weights whose mean is zero. The paper's network is trained after its layers have been pruned, and
    whether also in between, the sizes of its agent, and its `weight` we do not know for sure.
    """

    agent: DQN = field(default_factory=DQN)
    multiples: tuple[float, ...] = _MULTIPLES
    weight: float = 5.0
    episodes: int = 50
    samples: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.multiples) < 2 or min(self.multiples) < 0 or self.weight <= 0:
            raise RecipeError(f"an agent picks among several multiples from 0 on, and its reward has a positive weight: {self!r}")
        if min(self.episodes, self.samples) < 1:
            raise RecipeError(f"episodes and samples are whole numbers from 1, not {self.episodes!r} and {self.samples!r}")

    def under(self, target: Target, plan: Plan, scores: Scores, traced: Traced, data: Any, /) -> Allocation:
        """Searches; raises `PreconditionError` without data, and `BudgetError` where no choice meets the limits."""
        trials, table = Trials.of(plan, scores, target, traced, data, samples=self.samples), shares_under(scores, self.multiples)
        best = trials.fitted([0.5] * len(scores))
        least = trials.score(trials.kept(best)).loss
        original = trials.score(plan.everything())
        network = QNetwork(self.agent, 3, len(self.multiples), self.seed)
        with Bar(total=self.episodes) as bar:
            for episode in range(self.episodes):
                shares = trials.fitted(self._play(network, trials, table, original))
                loss = trials.score(trials.kept(shares)).loss
                best, least = (shares, loss) if loss < least else (best, least)
                bar.update(episode + 1, f"episode {episode + 1}, least loss {least:.4f}")
        note = f"the best of {self.episodes} episodes and equal shares on {self.samples} validation samples at most: loss {least:.4f}"
        return Along(tuple(best), (note,))

    def _play(self, network: QNetwork, trials: Trials, table: NDArray[np.float64], original: Score) -> list[float]:
        """One episode, learnt from."""
        whole = trials.plan.cost(trials.plan.everything())
        shares, states, actions, rewards = [0.0] * len(table), [], list[int](), list[float]()
        accuracy, progress = 1.0, 0.0
        for layer in range(len(table)):
            states.append(torch.tensor([layer / len(table), accuracy, progress]))
            actions.append(network.act(states[-1]))
            shares[layer] = float(table[layer, actions[-1]])
            keep = trials.kept(shares)
            accuracy, progress = kept_accuracy(trials.score(keep), original, trials.classes), saved(whole, trials.plan.cost(keep), trials.target)
            rewards.append(dense_reward(accuracy, progress, self.weight))
        network.remember(torch.stack(states), actions, rewards)
        network.improve(len(actions))
        return shares


def shares_under(scores: Scores, multiples: Sequence[float]) -> NDArray[np.float64]:
    """The share of each group's scores below each multiple of their deviation about zero, `(groups, multiples)`."""
    deviations = [math.sqrt(float(np.mean(np.square(s)))) for s in scores]
    return np.array([[float(np.mean(np.asarray(s) < m * d)) for m in multiples] for s, d in zip(scores, deviations, strict=True)])


def kept_accuracy(score: Score, original: Score, classes: bool) -> float:
    """Accuracy over that of the whole network, or without classes the loss of that over the loss."""
    if classes:
        return (1 - score.error) / max(1 - original.error, 1e-12)
    return original.loss / max(score.loss, 1e-12)


def dense_reward(accuracy: float, progress: float, weight: float) -> float:
    """`-weight (max(1 - accuracy, 0) + max(1 - progress, 0))`, both as shares of their targets. (gupta2020purl)"""
    return -weight * (max(1 - accuracy, 0.0) + max(1 - progress, 0.0))
