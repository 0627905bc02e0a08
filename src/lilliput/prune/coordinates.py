"""Coordinate descent over several layers at a time: the most accurate of many ways down by one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lilliput.core.errors import BudgetError, PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.adaptation import Descent
from lilliput.prune.during import Pruning
from lilliput.prune.latency_table import LatencyTable, Tabulation
from lilliput.prune.ordered import Dimension, OrderedDropout, SubNetworks, dimensions, kept
from lilliput.prune.structures import StructurePlan
from lilliput.prune.trials import Trials
from lilliput.prune.units import Scores
from lilliput.train import Fit

_ATTEMPTS = 8  # draws for each candidate
_HALVINGS = 5
_NEAR = 0.01


@dataclass(frozen=True, kw_only=True)
class SuperNetwork:
    """Training of a super-network by ordered dropout: each image passes a sub-network of its own. (yang2021netadaptv2)

    A group's width is one of `levels + 1`, evenly spread from none (a whole branch less) or one unit to all. Without `fit` it
    is trained as the recovery says.
    """

    fit: Fit | None = None
    levels: int = 8

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise RecipeError(f"a group of a super-network has its narrowest width and at least one more, not {self.levels}")


@dataclass(frozen=True, kw_only=True)
class CoordinateDescent:
    """Train a super-network, descend in it through several layers at a time, and train what is found. (yang2021netadaptv2)

    Step `i` takes `first * decay^i` of the whole network's cost, at most what is still too much. Each of its `candidates` makes
    up to `layers` groups narrower, drawn at random: all but the last to one of their levels, unless that takes more than the
    step, the last by as little as the step takes. The most accurate of them as part of the super-network, on up to `samples`
    validation samples and with batch norms of those, goes on; equals by the loss. Where the last step took too much, units come
    back, from the first group on. Costs that structure does not tell are by `table`, and corrected by what is measured.

    Depth and width are one dimension, as in the paper: a group inside a residual branch can have any width down to none, and at
    none the branch is gone and its input passes. Departs from the paper in how: its channel-level bypass puts single input
    channels where a layer's removed ones were, so that a layer of `C` filters and `T` bypassed channels gives `max(C, T)`; here
    what passes is the shortcut that the network has, and all of it. A network without residual branches therefore gets narrower
    only. Departs further in that it starts from a trained network, its units in the order of the criterion and not as they
    come, and trains the found one from the super-network's weights. How the paper draws its samples' layers and amounts, and
    the settings of its steps, are not known to us for sure.
    """

    supernet: SuperNetwork = field(default_factory=SuperNetwork)
    table: LatencyTable | Tabulation = field(default_factory=Tabulation)
    first: float = 0.05
    decay: float = 0.98
    candidates: int = 24
    layers: int = 4
    samples: int = 1024

    def __post_init__(self) -> None:
        if not 0 < self.first < 1 or not 0 < self.decay <= 1 or min(self.candidates, self.layers, self.samples) < 1:
            raise RecipeError("first and decay are shares up to 1, and candidates, layers and samples numbers from 1, not "
                              f"{self.first}, {self.decay}, {self.candidates}, {self.layers} and {self.samples}")

    def carry_out(self, traced: Traced, pruning: Pruning) -> tuple[Traced, list[Keep]]:
        """The super-network, the search, and the last training; raises `PreconditionError` for another unit."""
        plan = pruning.plan
        if not isinstance(plan, StructurePlan):
            raise PreconditionError("depth and width are searched together: pass unit=Structures(...)")
        scores, sizes = pruning.scores(traced), dimensions(plan)
        resource = "latency" if "latency" in pruning.target.limits else next(iter(pruning.target.limits))
        table = self._table(plan, scores, traced, resource, pruning)
        dropout = OrderedDropout(plan, SubNetworks(plan, scores, sizes), self.supernet.levels)
        network = pruning.train(traced, self.supernet.fit or pruning.fit, (dropout,), "supernet")
        trials = Trials.of(plan, scores, pruning.target, network, pruning.data, samples=self.samples)
        search = Search(settings=self, trials=trials, sizes=sizes, cost=Costs(plan, resource, table), seed=pruning.fit.seed)
        descent = Descent(first=self.first, decay=self.decay, pruning=pruning, resource=resource, predict=search.cost,
                          narrowed=lambda _, keep, fall, over: search.narrowed(network, keep, fall, over))
        _, keep = descent.gone(network)
        if pruning.target.structural(plan):
            keep = search.widened()
        return pruning.train(plan.apply(keep, network), pruning.fit, (), "recover"), keep

    def _table(self, plan: StructurePlan, scores: Scores, traced: Traced, resource: str, pruning: Pruning) -> LatencyTable | None:
        """Of channels alone: without a branch the rest costs less by the work that goes with it."""
        if resource in plan.cost(plan.everything()):
            return None
        if isinstance(self.table, LatencyTable):
            self.table.check(plan.channels, resource)
            return self.table
        return self.table(plan.channels, plan.parted(scores)[0], traced, resource, pruning.target.measure)


@dataclass(frozen=True)
class Costs:
    """What a choice costs, by structure where that tells, else by a table."""

    plan: StructurePlan
    resource: str
    table: LatencyTable | None

    def __call__(self, keep: Sequence[Keep]) -> float:
        """In units of the resource."""
        known = self.plan.cost(keep)
        if self.table is None:
            return float(known[self.resource])
        return self.table.predict([int(units.sum()) for units in self.plan.parted(keep)[0]], known[self.table.shadow])


class Search:
    """The candidates of each step, as widths of dimensions."""

    def __init__(self, *, settings: CoordinateDescent, trials: Trials, sizes: Sequence[Dimension], cost: Costs,
                 seed: int) -> None:
        self.settings, self.trials, self.sizes, self.cost = settings, trials, list(sizes), cost
        self.widths = [dimension.units for dimension in self.sizes]
        self._structural = trials.target.structural(trials.plan)
        self._random = np.random.default_rng(seed)

    def keep(self, widths: Sequence[int]) -> list[Keep]:
        """What these widths keep."""
        plan = self.trials.plan
        assert isinstance(plan, StructurePlan)
        return kept(plan, list(self.trials.scores), self.sizes, widths)

    def narrowed(self, network: Traced, keep: list[Keep], fall: float, over: float) -> tuple[Traced, list[Keep]]:
        """The most accurate candidate whose cost is less by `fall`; the step is halved while all end far below the budget.

        Far is more than a hundredth of it. The network is the smaller one only where something must be measured. Raises
        `BudgetError` where nothing can be narrower.
        """
        before = self.cost(keep)
        room = _NEAR * max(before - max(over, fall), fall)
        bound = over + room if over > 0 else np.inf
        for halved in range(_HALVINGS):
            found = self._candidates(before, fall / 2**halved, bound)
            if found:
                break
        else:
            found = self._least(before, room)
        self.widths = min(found, key=self._judged)
        keep = self.keep(self.widths)
        return (network if self._structural else self.trials.plan.apply(keep, network)), keep

    def _least(self, before: float, room: float) -> list[list[int]]:
        """What of single groups that are narrower takes least: units so large that no draw came near."""
        falls = []
        for place, width in enumerate(self.widths):
            for narrower in range(width - 1, self.sizes[place].least - 1, -1):
                widths = [*self.widths[:place], narrower, *self.widths[place + 1:]]
                if (fall := before - self.cost(self.keep(widths))) > 0:
                    falls.append((fall, widths))
                    break
        if not falls:
            raise BudgetError(f"nothing can be narrower, and the {self.cost.resource} is still above what the budget allows; ask "
                              "for more, or exclude fewer layers")
        return [widths for fall, widths in falls if fall <= min(falls)[0] + room]

    def widened(self) -> list[Keep]:
        """What is kept once each group has taken what the last step left of the budget, as long as it is met."""
        for place, dimension in enumerate(self.sizes):
            low, high = self.widths[place], dimension.units if self.widths[place] else 0
            while low < high:
                self.widths[place] = (low + high + 1) // 2
                fits = self.trials.met(self.keep(self.widths))
                low, high = (self.widths[place], high) if fits else (low, self.widths[place] - 1)
            self.widths[place] = low
        return self.keep(self.widths)

    def _judged(self, widths: list[int]) -> tuple[float, float]:
        score = self.trials.score(self.keep(widths))
        return score.error, score.loss

    def _candidates(self, before: float, fall: float, most: float) -> list[list[int]]:
        """Up to as many as there should be, no two alike."""
        found: dict[tuple[int, ...], None] = {}
        for _ in range(_ATTEMPTS * self.settings.candidates):
            drawn = self.candidate(before, fall, most)
            if drawn is not None:
                found[tuple(drawn)] = None
            if len(found) == self.settings.candidates:
                break
        return [list(widths) for widths in found]

    def candidate(self, before: float, fall: float, most: float) -> list[int] | None:
        """One draw: widths by which the cost falls from `before` by `fall` to `most`; None where it came to none."""
        movable = [place for place, dimension in enumerate(self.sizes) if self.widths[place] > dimension.least]
        if not movable:
            return None
        *firsts, last = self._random.permutation(movable)[:self.settings.layers].tolist()
        widths = list(self.widths)
        for place in firsts:
            levels = [int(w) for w in self.sizes[place].widths(self.settings.supernet.levels) if w < widths[place]]
            narrower = [*widths[:place], int(self._random.choice(levels)), *widths[place + 1:]]
            if before - self.cost(self.keep(narrower)) <= fall:
                widths = narrower
        low, high = self.sizes[last].least, widths[last]
        while low < high:  # the widest with which the cost falls far enough
            middle = (low + high + 1) // 2
            widths[last] = middle
            low, high = (middle, high) if before - self.cost(self.keep(widths)) >= fall else (low, middle - 1)
        widths[last] = low
        return widths if fall <= before - self.cost(self.keep(widths)) <= most else None
