"""Pruning while the network runs: a policy, trained by Q-learning in turns with the network, computes fewer channels for easier samples."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core import Budget, BudgetError, Entry, PreconditionError, RecipeError, Report, Result, describe
from lilliput.data.drawing import labelled_batches
from lilliput.graph import Traced
from lilliput.prune.criteria import Criterion, Magnitude
from lilliput.prune.decision import Policy, Site, flattened, kept_by, policed, policy_of, sites
from lilliput.prune.fitting import Target
from lilliput.prune.statistics import gather
from lilliput.prune.step import FineTune, fitted, floating, recalibrated
from lilliput.prune.units import ChannelPlan, Channels
from lilliput.train import Batch, Hook, State, evaluating, loss_of
from lilliput.train.evaluate import device_of

_STEPS = 60
_CLOSE = 0.995  # of the limit: near enough to end the bisection
_BATCH = 256
_FARTHEST = 2.0**20  # a bias that outweighs any value


class Turn(Enum):
    """Who learns: the network under random choices, the policy, or the network under the policy's."""

    RANDOM = auto()
    POLICY = auto()
    NETWORK = auto()


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How policy and network learn in turns. (lin2017rnp)

    For the first `random` share of training the network learns under random choices; what is left is cut into `rounds`, in the first half of
    each of which the policy learns and in the second the network. The last layer's decision earns `-scale * loss`, each decision
    `-penalty` for every zone after the first; values learn `r + discount * max_a Q(s', a)`, by Adam of step size `lr` whatever the
    network is trained by. A share `explore` of decisions is random while the policy learns. The paper's settings are not known to us for sure.
    """

    random: float = 0.3
    rounds: int = 4
    explore: float = 0.2
    lr: float = 3e-3
    penalty: float = 0.02
    scale: float = 1.0
    discount: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.random < 1 and self.rounds >= 1 and 0 <= self.explore <= 1 and 0 <= self.discount <= 1 and min(self.scale, self.lr) > 0):
            raise RecipeError(f"shares and the discount lie between 0 and 1, rounds, scale and step size are positive: {self!r}")

    def turn(self, progress: float) -> Turn:
        """Whose turn it is after a share of training."""
        if progress < self.random:
            return Turn.RANDOM
        place = (progress - self.random) / (1 - self.random) * self.rounds
        return Turn.POLICY if place % 1 < 0.5 else Turn.NETWORK

    def targets(self, seen: Sequence[tuple[Tensor, Tensor]], losses: Tensor) -> list[Tensor]:
        """What the value of every decision should be, `(samples,)` each, for values `(samples, zones)`, choices and losses of a batch."""
        found = []
        for step, (_, choice) in enumerate(seen):
            earned = -self.penalty * choice
            after = -self.scale * losses if step + 1 == len(seen) else self.discount * seen[step + 1][0].detach().amax(1)
            found.append(earned + after)
        return found


class Averages:
    """Multiplications of one sample on average, given what was chosen."""

    def __init__(self, plan: ChannelPlan, where: Sequence[Site], policy: Policy) -> None:
        self.plan, self.where, self.own = plan, where, policy.macs
        self._known: dict[tuple[int, ...], float] = {}

    def cost(self, choice: Sequence[int]) -> float:
        """Of one choice of zones to a layer, the policy's own included."""
        key = tuple(choice)
        if key not in self._known:
            self._known[key] = float(self.plan.cost(kept_by(self.plan, self.where, key))["macs"]) + self.own
        return self._known[key]

    def __call__(self, choices: Tensor) -> float:
        """Of choices `(samples, layers)`."""
        counted = Counter(map(tuple, choices.tolist()))
        return sum(count * self.cost(choice) for choice, count in counted.items()) / len(choices)


class Alternate(Hook):
    """Policy and network learn in turns; the policy's bias follows the budget on the way."""

    def __init__(self, turns: Turns, averages: Averages, limit: float) -> None:
        self.turns, self.averages, self.limit = turns, averages, limit

    def __repr__(self) -> str:
        return f"Alternate(turns={self.turns!r}, limit={self.limit!r})"

    def start(self, state: State) -> None:
        """Watch what is chosen."""
        policy = policy_of(state.model)
        policy.watched = True
        self.steps = torch.optim.Adam(policy.parameters(), lr=self.turns.lr)

    def batch(self, state: State, batch: Batch) -> Batch:
        """Set how much is random."""
        policy, turn = policy_of(state.model), self.turns.turn(state.progress)
        policy.taken()
        policy.explore = {Turn.RANDOM: 1.0, Turn.POLICY: self.turns.explore, Turn.NETWORK: 0.0}[turn]
        return batch

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:
        """The policy's, where it is its turn: encodings are of what the network gave, so that no gradient reaches the network."""
        policy, turn = policy_of(state.model), self.turns.turn(state.progress)
        seen = policy.taken()
        if turn is not Turn.RANDOM:
            self._steer(policy, seen)
        if turn is not Turn.POLICY:
            return loss
        single = loss_of(state.data)
        assert state.targets is not None
        with torch.no_grad():
            losses = torch.stack([single(y[None], t[None]) for y, t in zip(outputs, state.targets, strict=True)])
        pairs = zip(seen, self.turns.targets(seen, losses), strict=True)
        return torch.stack([F.smooth_l1_loss(values.gather(1, choice[:, None])[:, 0], target) for (values, choice), target in pairs]).sum()

    def _steer(self, policy: Policy, seen: Sequence[tuple[Tensor, Tensor]]) -> None:
        """By how far a batch is from the budget, in the measure of how much values differ."""
        with torch.no_grad():
            spread = torch.stack([values.amax(1) - values.amin(1) for values, _ in seen]).mean()
            chosen = torch.stack([(values + policy.bias * policy.amounts).argmax(1) for values, _ in seen], 1)
            policy.bias += 0.5 * spread * (1 - self.averages(chosen) / self.limit)

    def gradients(self, state: State) -> None:
        """The policy takes its step, and no other."""
        if self.turns.turn(state.progress) is Turn.POLICY:
            self.steps.step()
        self.steps.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What Adam keeps."""
        return {"steps": self.steps.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What Adam kept."""
        self.steps.load_state_dict(state["steps"])

    def end(self, state: State) -> None:
        """Nothing is random or watched any more."""
        policy = policy_of(state.model)
        policy.taken()
        policy.explore, policy.watched = 0.0, False


@dataclass(frozen=True, kw_only=True)
class AtRuntime:
    """For each sample every layer computes only its first zones of channels, as many as a policy chooses. (lin2017rnp)

    Channels are ranked by `criterion` and cut into `zones`; a policy of width `hidden` (`Policy`) is trained in `turns` with the network.
    The budget is of multiplications, the policy's among them, on average over up to `samples` validation samples: a bias on the
    policy's values is found there by bisection. The result is one network that computes 0/1 masks for the channels of each sample. Dense
    runtimes multiply by what is masked all the same; what the report counts is what a runtime that skips would compute.

    The paper says the budget by the penalty alone. It has an LSTM or plain recurrence of which we are not sure, and the order of its channels
    is as they come. Layers whose channels are added to others' stay whole.
    """

    budget: Budget
    recover: FineTune = field(default_factory=FineTune)
    criterion: Criterion = field(default_factory=Magnitude)
    zones: int = 4
    hidden: int = 32
    turns: Turns = field(default_factory=Turns)
    samples: int = 1024
    unit: Channels = field(default_factory=Channels)
    checkpoint: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.zones < 2 or self.hidden < 1 or self.samples < 1:
            raise RecipeError(f"zones are 2 or more, hidden and samples 1 or more, not {self.zones!r}, {self.hidden!r}, {self.samples!r}")

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """A copy of `model` with a policy; raises `BudgetError` when the budget cannot be met."""
        began = time.perf_counter()
        if self.recover.fit.devices > 1:
            raise RecipeError("a policy and its network take turns in one process: pass Fit(devices=1)")
        traced = floating(model, data)
        plan = self.unit.plan(traced)
        assert isinstance(plan, ChannelPlan)
        target = Target.of(self.budget, plan, traced, None)
        if data is None:
            raise PreconditionError("a policy is trained and measured on data: pass data=")
        scores = plan.scores(self.criterion, gather(traced, data, self.criterion.needs), traced)
        where = sites(plan, scores, self.zones)
        if not where:
            raise BudgetError("no layer of this network alone makes channels that could be left out for a sample")
        network = policed(traced, where, zones=self.zones, hidden=self.hidden, seed=self.recover.fit.seed)
        averages = Averages(plan, where, policy_of(network))
        limit = self._limit(target, plan, averages)
        hooks = (*self.recover.hooks, Alternate(self.turns, averages, limit))
        network = recalibrated(fitted(network, data, self.recover.fit, hooks, self.checkpoint), data)
        choices = self._balance_(network, averages, limit, data)
        entry = Entry(method="prune.runtime_neural_pruning", recipe=describe(self), layers=tuple(_rows(where, choices)),
                      promised=dict(target.limits), measured={"macs": averages(choices)}, notes=self._notes(averages, choices, plan),
                      seconds=time.perf_counter() - began)
        return Result(flattened(network).train(traced.training), Report((entry,)))

    def _limit(self, target: Target, plan: ChannelPlan, averages: Averages) -> float:
        """Of multiplications; raises `BudgetError` for other limits, and where the first zones alone cost more."""
        least = {**plan.cost(plan.everything()), "macs": averages.cost([0] * len(averages.where))}
        for name, limit in target.limits.items():
            if least[name] > limit:
                raise BudgetError(f"{name} <= {limit:.6g} cannot be met: the least this network allows is {least[name]:.6g} when it decides at run "
                                  "time, which saves multiplications and no weights; ask for at least that, or prune for good")
        if "macs" not in target.limits:
            raise PreconditionError("deciding at run time saves multiplications alone: give a budget of them, Budget(macs=0.5)")
        return target.limits["macs"]

    def _balance_(self, network: Traced, averages: Averages, limit: float, data: Any) -> Tensor:
        """Set the bias with which the average meets the limit; the choices then, `(samples, layers)`."""
        policy, device = policy_of(network), device_of(network)
        inputs = [x.to(device) for x, _ in labelled_batches(data.val, self.samples, _BATCH)]

        def choices(bias: float) -> Tensor:
            policy.bias.fill_(bias)
            with evaluating(network):
                policy.watched = True
                for x in inputs:
                    network(x)
            policy.watched = False
            seen = [choice for _, choice in policy.taken()]
            layers = len(averages.where)
            return torch.cat([torch.stack(seen[i:i + layers], 1) for i in range(0, len(seen), layers)])

        reach = 1.0
        while reach < _FARTHEST and (averages(choices(-reach)) > limit or averages(choices(reach)) < _CLOSE * limit):
            reach *= 2
        low, high = -reach, reach
        for _ in range(_STEPS):
            middle = (low + high) / 2
            found = averages(choices(middle))
            low, high = (middle, high) if found <= limit else (low, middle)
            if _CLOSE * limit <= found <= limit:
                break
        return choices(low)

    def _notes(self, averages: Averages, choices: Tensor, plan: ChannelPlan) -> tuple[str, ...]:
        return (f"an average over {len(choices)} validation samples; the policy itself takes {averages.own} multiplications of each",
                "the masked channels cost nothing only where the runtime skips them: a dense one computes all, and the policy on top",
                *plan.notes())


def _rows(where: Sequence[Site], choices: Tensor) -> list[dict[str, Any]]:
    """Channels, and how many are computed on average, per layer."""
    found = []
    for index, site in enumerate(where):
        counts = torch.tensor([float((site.channels <= zone).sum()) for zone in range(int(choices.max()) + 1)])
        found.append({"layer": site.name, "channels_before": len(site.channels), "channels_on_average": float(counts[choices[:, index].cpu()].mean())})
    return found
