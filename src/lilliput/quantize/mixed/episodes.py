"""One loop for all agents: choose every layer's width in turn, make the choice fit, evaluate it, learn from the reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lilliput.core.errors import BudgetError
from lilliput.quantize.mixed.evaluator import Evaluator, Score
from lilliput.quantize.mixed.features import Features, features
from lilliput.quantize.mixed.rewards import Outcome, Reward
from lilliput.quantize.mixed.sensitivity import at_least_one
from lilliput.quantize.mixed.step import Chosen, Search
from lilliput.quantize.mixed.task import Task
from lilliput.train.agents import Agent, Player


@dataclass(frozen=True, kw_only=True)
class Episodes(Search):
    """A search by an agent: the choice of least loss among so many episodes.

    Before a layer the agent sees its features, the option taken for the layer before, and the average width so far. A choice
    that exceeds the budget has its widths lowered, from the last layer to the first and again from the last, until it fits
    (Wang 2019); what is left of the budget then goes to the first layers, which the paper leaves unused. Choices are scored
    with weights rounded to nearest on `samples` samples of `data.val`, without training in between, which the papers do; the
    best is that of least loss, since accuracies on so few samples tie and mislead; and the widest uniform width that fits is
    the first to be scored, so that the search never ends below it on those samples.
    """

    agent: Agent
    reward: Reward
    episodes: int = 100
    samples: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_one("episodes", self.episodes)
        at_least_one("samples", self.samples)

    def __call__(self, task: Task) -> Chosen:
        """The choice of least loss."""
        evaluate, seen = Evaluator.of(task.network, task.data, self.samples), features(task)
        original = evaluate({})
        known: dict[tuple[int, ...], Score] = {}

        def score(options: tuple[int, ...]) -> Score:
            if options not in known:
                known[options] = evaluate(task.weights(options))
            return known[options]

        best = within(task, [max_uniform(task)] * len(task.layers))
        score(best)
        player = self.agent.player(seen.table.shape[1] + 2, len(task.widths.weights), self.seed)
        for _ in range(self.episodes):
            options = filled(task, within(task, self._play(player, task, seen)))
            bits = tuple(task.widths.weights[c] for c in options)
            player.learn(self.reward(Outcome(score(options), original, bits, task, seen)))
            best = min(best, options, key=lambda choice: known[choice].loss)
        found = known[best]
        expected = {"search_loss": found.loss} | ({"search_accuracy": found.accuracy} if evaluate.classes else {})
        note = f"{len(known)} different choices scored in {self.episodes} episodes"
        return Chosen(options=best, expected=expected, notes=(note,))

    def _play(self, player: Player, task: Task, seen: Features) -> list[int]:
        widths, options = task.widths.weights, list[int]()
        spent = count = 0.0
        for row, layer in zip(seen.table, task.layers, strict=True):
            last = widths[options[-1]] / widths[-1] if options else 1.0
            average = spent / count / widths[-1] if count else 1.0
            options.append(player.act(torch.tensor([*row, last, average], dtype=torch.float32)))
            spent, count = spent + layer.count * widths[options[-1]], count + layer.count
        return options


def max_uniform(task: Task) -> int:
    """The option of the widest width that all layers together can have; the narrowest where none fits."""
    fits = [c for c in range(len(task.widths.weights)) if task.met([c] * len(task.layers))]
    return max(fits, default=0)


def within(task: Task, options: Sequence[int]) -> tuple[int, ...]:
    """The choice with widths lowered, from the last layer to the first and again, until every limit is met. (wang2019haq)

    Raises `BudgetError` where the narrowest widths exceed a limit.
    """
    lowered = list(options)
    while not task.met(lowered):
        if not any(lowered):
            raise BudgetError("the budget cannot be met by the narrowest widths: allow narrower ones or more of what is limited")
        for i in reversed(range(len(lowered))):
            if lowered[i] > 0:
                lowered[i] -= 1
                if task.met(lowered):
                    break
    return tuple(lowered)


def filled(task: Task, options: Sequence[int]) -> tuple[int, ...]:
    """The choice with widths raised, from the first layer to the last and again, wherever every limit is still met."""
    raised, grew = list(options), True
    while grew:
        grew = False
        for i in range(len(raised)):
            if raised[i] + 1 < len(task.widths.weights) and task.met([*raised[:i], raised[i] + 1, *raised[i + 1 :]]):
                raised[i], grew = raised[i] + 1, True
    return tuple(raised)
