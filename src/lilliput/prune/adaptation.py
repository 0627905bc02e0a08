"""Adaptation: one group narrower at a time, the one that costs the least accuracy for the same saving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lilliput.core.errors import BudgetError, PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.during import Pruning
from lilliput.prune.latency_aware import Tabulated
from lilliput.prune.latency_table import LatencyTable
from lilliput.prune.statistics import gather
from lilliput.prune.units import ChannelPlan, Scores
from lilliput.train import Fit, evaluate, fit, loss_of, recalibrate_batchnorm
from lilliput.train.evaluate import mean_loss
from lilliput.train.progress import Bar

_Candidate = tuple[list[Keep], list[Keep], float]
_HALVINGS = 10
_NEAR = 0.01


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Each group in turn as wide as the table allows for a step down in cost; the best network goes on. (yang2018netadapt)

    Step `i` is `first * decay^i` of the whole network's cost by the table, at most what is still too much. Each candidate is
    trained as `short` says (None: its batch norms are estimated anew) and judged on `samples` of the validation split: by accuracy,
    or by the loss where there are no classes. What the networks then measure corrects the table's steps by one factor. Where no
    group alone saves the step, or all would end below the budget by more than a hundredth of it, the step is halved, which the
    paper does not do. At the end the network is trained by the recovery's settings. Short trainings leave no checkpoints.
    """

    first: float = 0.05
    decay: float = 0.96
    short: Fit | None = None
    samples: int = 2000

    def __post_init__(self) -> None:
        if not 0 < self.first < 1 or not 0 < self.decay <= 1 or self.samples < 1:
            raise RecipeError("first and decay are shares up to 1 and samples a number from 1, not "
                              f"{self.first}, {self.decay} and {self.samples}")

    def carry_out(self, traced: Traced, pruning: Pruning) -> tuple[Traced, list[Keep]]:
        """All steps, then the long training."""
        if not isinstance(pruning.plan, ChannelPlan) or not isinstance(pruning.allocation, Tabulated):
            raise PreconditionError("adaptation narrows channels by a table: pass unit=Channels() and allocation=ByTable(...)")
        way = _Way(self, pruning, pruning.plan, pruning.allocation.table)
        descent = Descent(first=self.first, decay=self.decay, pruning=pruning, resource=way.table.resource,
                          predict=lambda keep: way.table.predict_of(way.plan, keep), narrowed=way.narrowed)
        network, keep = descent.gone(traced)
        return pruning.train(network, pruning.fit, (), "recover"), keep


@dataclass(frozen=True, kw_only=True)
class Descent:
    """From one network to the budget: step `i` takes `first * decay^i` of the whole network's cost, at most what is still too much.

    `predict` says what a choice costs, and what the networks then measure corrects it by one factor. `narrowed` takes a network, what it
    keeps of the first, the fall that is asked for, and how far the network is above the budget; both in the units of `predict`.
    """

    first: float
    decay: float
    pruning: Pruning
    resource: str
    predict: Callable[[list[Keep]], float]
    narrowed: Callable[[Traced, list[Keep], float, float], tuple[Traced, list[Keep]]]

    def gone(self, network: Traced) -> tuple[Traced, list[Keep]]:
        """The network that meets the budget, and what it keeps of the one given."""
        plan, target = self.pruning.plan, self.pruning.target
        keep, factor, limit = plan.everything(), 1.0, target.limits[self.resource]
        whole, costs = self.predict(keep), target.cost(plan, keep, lambda: network)
        begun, step = costs[self.resource], self.first * whole
        with Bar(total=100) as bar:
            while not target.met(costs):
                over = costs[self.resource] - limit
                fall = min(step, over) if over > 0 else step
                network, keep = self.narrowed(network, keep, fall / factor, over / factor)
                costs, step = target.cost(plan, keep, lambda: network), step * self.decay  # noqa: B023
                if target.met(costs) and not target.structural(plan):  # one lucky reading is not enough to stop
                    again = target.cost(plan, keep, lambda: network)  # noqa: B023
                    costs = {name: (cost + again[name]) / 2 for name, cost in costs.items()}
                predicted = whole - self.predict(keep)
                factor = float(np.clip((begun - costs[self.resource]) / predicted, 0.25, 4.0)) if predicted > 0 else 1.0
                bar.update(int(np.clip(100 * (begun - costs[self.resource]) / (begun - limit), 0, 100)), "narrowing groups")
        return network, keep


@dataclass(frozen=True)
class _Way:
    """The candidates of each step."""

    settings: Adaptation
    pruning: Pruning
    plan: ChannelPlan
    table: LatencyTable

    def narrowed(self, network: Traced, keep: list[Keep], fall: float, over: float) -> tuple[Traced, list[Keep]]:
        """The best of the networks with one group narrower, their cost less by `fall`, and with it of the original."""
        plan = self.plan.unit.plan(network)
        assert isinstance(plan, ChannelPlan)
        scores = plan.scores(self.pruning.criterion, gather(network, self.pruning.data, self.pruning.criterion.needs), network)
        room = _NEAR * (self.table.predict_of(self.plan, keep) - over)
        most = over + room if over > 0 else np.inf
        beyond: list[_Candidate] = []
        for least in [*(fall / 2**halved for halved in range(_HALVINGS)), -np.inf]:
            found = [c for group in range(len(keep)) if (c := self._candidate(plan, scores, keep, group, least)) is not None]
            near, beyond = [c for c in found if c[2] <= most], beyond or found
            if near:
                break
        else:
            if not beyond:
                raise BudgetError(f"no group can be narrower, and the {self.table.resource} is still {over:.6g} above what the "
                                  "budget allows; ask for more, or exclude fewer layers")
            near = [c for c in beyond if c[2] <= min(fall for _, _, fall in beyond) + room]
        networks = [(self._trained(plan.apply(small, network)), whole) for small, whole, _ in near]
        return networks[0] if len(networks) == 1 else max(networks, key=lambda pair: self._judged(pair[0]))

    def _candidate(self, plan: ChannelPlan, scores: Scores, keep: list[Keep], group: int, least: float) -> _Candidate | None:
        """The widest choice of a group by which the cost falls by `least`: of the network, of the original, and the fall."""
        places = {g.name: place for place, g in enumerate(plan.groups)}  # what has one unit left is no group any more
        if self.table.groups[group] not in places:
            return None
        before, count = self.table.predict_of(self.plan, keep), int(keep[group].sum())
        for width in reversed([width for width in self.table.counts[group] if width < count]):
            sparsity = np.zeros(len(scores))
            sparsity[places[self.table.groups[group]]] = 1 - width / count
            small = plan.keep(scores, sparsity)
            whole = [_within(kept, small[places[name]]) if name in places else kept
                     for name, kept in zip(self.table.groups, keep, strict=True)]
            fall = before - self.table.predict_of(self.plan, whole)
            if fall >= least and int(whole[group].sum()) < count:
                return small, whole, fall
        return None

    def _trained(self, network: Traced) -> Traced:
        data, short = self.pruning.data, self.settings.short
        found = recalibrate_batchnorm(network, data.train) if short is None else fit(network, data, short, progress=False).model
        assert isinstance(found, Traced)
        return found

    def _judged(self, network: Traced) -> float:
        data = self.pruning.data
        split = data.val.head(self.settings.samples)
        return evaluate(network, split) if data.num_classes else -mean_loss(network, split, loss_of(data))[0]


def _within(kept: Keep, part: Keep) -> Keep:
    """The units of the original that stay, where `part` says which do of those kept so far."""
    found = np.zeros_like(kept)
    found[np.flatnonzero(kept)[part]] = True
    return found
