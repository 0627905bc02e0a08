"""Two agents, one above the other: the first sets a layer's average width, the second the width of every output channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lilliput.core.errors import BudgetError, RecipeError
from lilliput.quantize.mixed.episodes import max_uniform
from lilliput.quantize.mixed.evaluator import Evaluator, Score
from lilliput.quantize.mixed.features import features
from lilliput.quantize.mixed.sensitivity import at_least_one
from lilliput.quantize.mixed.task import Layer, Task
from lilliput.quantize.mixed.written import Finding, FineSearch, Written
from lilliput.quantize.ranges import channel_bounds
from lilliput.train.agents import DDPG, ActorCritic

_CHANNEL_FEATURES = 3


@dataclass(frozen=True, kw_only=True)
class Hierarchical(FineSearch):
    """A high-level controller gives each layer a goal, its average width, and a low-level one each channel a width near it.

    Both are DDPG agents. The high-level one earns `log(accuracy / original accuracy)`, the low-level one `(1 - z) (-|goal -
    average| / widest) + z log(accuracy / original accuracy)`, where `z` grows linearly from 0 to 1 with the episodes, first
    to follow goals, then to care for the network. Actions of the low-level one are offsets from the goal, by `reach` of the
    range of widths at most, so that goals are nearly followed from the start. Departs from the paper in groups that are
    output channels instead of pairs of input and output channel, since only those have scales of their own; in acting on all
    channels of a layer at once; in meeting the budget as `Episodes` does, channel by channel; in activations of one width;
    and in no training between the episodes. How the paper weighs the two parts of the low-level reward is not certain. As in
    `Episodes`, the choice of least loss is taken, and uniform widths are the first. (lou2020autoq)
    """

    high: DDPG = field(default_factory=lambda: DDPG(hidden=(128, 128)))
    low: DDPG = field(default_factory=lambda: DDPG(hidden=(128, 128), memory=2048))
    reach: float = 0.25
    episodes: int = 100
    samples: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.reach <= 1:
            raise RecipeError(f"reach is a share of the range of widths above 0 and up to 1, not {self.reach!r}")
        at_least_one("episodes", self.episodes)
        at_least_one("samples", self.samples)

    def __call__(self, task: Task) -> Finding:
        """The best widths of all channels."""
        evaluate, groups = Evaluator.of(task.network, task.data, self.samples), [_Group(task, layer) for layer in task.layers]
        seen = torch.from_numpy(features(task).table).float()
        original = evaluate({})
        best = fitted(task, groups, [torch.full((g.channels,), max_uniform(task)) for g in groups])
        least = evaluate(_values(groups, best))
        high = ActorCritic(self.high, seen.shape[1] + 2, self.seed)
        low = ActorCritic(self.low, seen.shape[1] + 1 + _CHANNEL_FEATURES, self.seed + 1)
        for episode in range(self.episodes):
            play = _Play(task, groups, seen, (high, low), self.reach)
            options = fitted(task, groups, play.options)
            score = evaluate(_values(groups, options))
            play.learn(_kept(score, original), episode / max(self.episodes - 1, 1))
            if score.loss < least.loss:
                best, least = options, score
        expected = {"search_loss": least.loss} | ({"search_accuracy": least.accuracy} if evaluate.classes else {})
        written = {g.name: g.written(options) for g, options in zip(groups, best, strict=True)}
        bits = {g.layer.name: float(g.widths[options].double().mean()) for g, options in zip(groups, best, strict=True)}
        return Finding(weights=written, bits=bits, expected=expected)


def _kept(score: Score, original: Score) -> float:
    """Logarithm of the share of accuracy that is kept, or without classes of the loss; not below -3."""
    lossy = math.isnan(score.accuracy)
    share = original.loss / max(score.loss, 1e-30) if lossy else score.accuracy / max(original.accuracy, 1e-9)
    return max(math.log(max(share, 1e-9)), -3.0)


class _Group:
    """A layer's weight, its values at every width, `(widths, ...)`, and what an agent sees of its channels."""

    def __init__(self, task: Task, layer: Layer) -> None:
        if len(layer.tensors) > 1 or next(iter(layer.tensors.values())).axis is None:
            raise RecipeError(f"{layer.name} has no scale to each output channel: use a grid with an axis, or exclude the layer")
        self.layer, (self.name, self.grid) = layer, next(iter(layer.tensors.items()))
        self.axis = self.grid.axis or 0
        self.widths, self.ranges = torch.tensor(task.widths.weights), task.ranges
        self.weight = task.network.tensor(self.name).detach().cpu()
        self.channels, self.size = self.weight.shape[self.axis], self.weight.numel() // self.weight.shape[self.axis]
        values = [task.quantized(layer, width)[self.name] for width in task.widths.weights]
        self.stack = torch.stack(values).cpu().movedim(self.axis + 1, 1)
        rows = self.weight.movedim(self.axis, 0).flatten(1)
        spread, most = rows.std(1, unbiased=False), rows.abs().amax(1)
        self.features = torch.stack([spread / spread.max().clamp(min=1e-12), most / most.max().clamp(min=1e-12),
                                     torch.arange(self.channels) / self.channels], 1)

    def values(self, options: Tensor) -> Tensor:
        """Every channel at its own width."""
        return self.stack[options, torch.arange(self.channels)].movedim(0, self.axis)

    def written(self, options: Tensor) -> Written:
        """The values on the grid of the widest channel, each with the scale of its own width."""
        scale = torch.zeros(self.channels)
        for option in set(options.tolist()):
            grid = self.grid.at(int(self.widths[option]))
            scale = torch.where(options == option, grid.parameters(*channel_bounds(self.ranges, self.weight, grid)).scale, scale)
        grid = self.grid.at(int(self.widths[options].max()))
        parameters = grid.parameters(*channel_bounds(self.ranges, self.weight, grid))
        return Written(self.values(options), grid, parameters._replace(scale=scale))


def _values(groups: Sequence[_Group], options: Sequence[Tensor]) -> dict[str, Tensor]:
    return {group.name: group.values(chosen) for group, chosen in zip(groups, options, strict=True)}


def fitted(task: Task, groups: Sequence[_Group], options: Sequence[Tensor]) -> list[Tensor]:
    """Channels lowered by one width each, from the last of the last layer on and again, until the bits fit; then raised
    by one each, from the first, and again, as long as they do.

    Raises `BudgetError` where the narrowest widths exceed the limit.
    """
    lowered = [chosen.clone() for chosen in options]
    over = sum(float(g.widths[o].sum()) * g.size for g, o in zip(groups, lowered, strict=True)) - task.limits["bits"]
    while over > 0:
        if not any(bool(o.any()) for o in lowered):
            raise BudgetError("the budget cannot be met by the narrowest widths: allow narrower ones or more bits")
        for group, chosen in reversed(list(zip(groups, lowered, strict=True))):
            for channel in reversed(chosen.nonzero().flatten().tolist()):
                if over <= 0:
                    break
                over -= float(group.widths[chosen[channel]] - group.widths[chosen[channel] - 1]) * group.size
                chosen[channel] -= 1
    grew = True
    while grew:
        grew = False
        for group, chosen in zip(groups, lowered, strict=True):
            for channel, option in enumerate(chosen.tolist()):
                if option + 1 == len(group.widths):
                    continue
                more = float(group.widths[option + 1] - group.widths[option]) * group.size
                if over + more <= 0:
                    over, chosen[channel], grew = over + more, option + 1, True
    return lowered


class _Play:
    """One episode: goals, actions, and the steps to learn from."""

    def __init__(self, task: Task, groups: Sequence[_Group], seen: Tensor, agents: tuple[ActorCritic, ActorCritic],
                 reach: float) -> None:
        (self.high, self.low), self.widest = agents, float(task.widths.weights[-1])
        self.options: list[Tensor] = []
        self.goals: list[tuple[Tensor, Tensor]] = []
        self.steps: list[tuple[Tensor, Tensor, float]] = []
        goal, spent, count = torch.ones(1), 0.0, 0
        for row, group in zip(seen, groups, strict=True):
            average = spent / count / self.widest if count else 1.0
            state = torch.cat([row, goal, torch.tensor([average])])
            goal = self.high.actions(state[None])
            states = torch.cat([row.expand(group.channels, -1), goal.expand(group.channels, 1), group.features], 1)
            actions = self.low.actions(states)
            chosen = ((goal + reach * (2 * actions - 1)).clamp(0, 1) * len(group.widths)).long().clamp(max=len(group.widths) - 1)
            mean = float(group.widths[chosen].float().mean())
            self.options.append(chosen)
            self.goals.append((state, goal))
            self.steps.append((states, actions, abs(float(goal) - mean / self.widest)))
            spent, count = spent + mean * group.layer.count, count + group.layer.count

    def learn(self, earned: float, share: float) -> None:
        """Reward both agents; `share` is how much of the low-level reward is the network's."""
        states, actions = torch.stack([s for s, _ in self.goals]), torch.cat([a for _, a in self.goals])
        self.high.remember(states, actions, torch.full((len(states),), earned))
        for channels, acted, missed in self.steps:
            self.low.remember(channels, acted, torch.full((len(channels),), (1 - share) * -missed + share * earned))
        self.high.improve(len(self.steps))
        self.low.improve(len(self.steps))
