"""Depth, width and resolution pruned together: how much of each, by a polynomial of accuracy fitted to a few pruned networks.

Accuracy is taken for `F(d, w, r) = P(d) Q(w) R(r)` of the shares of residual branches, of channels and of the image's side that stay, and
is greatest where the cost is all that the budget allows. (wang2021three)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lilliput.core import Budget, BudgetError, Entry, PreconditionError, RecipeError, Report, Result, describe
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.graph.resolution import resized, side
from lilliput.prune.branches import Branches
from lilliput.prune.criteria import Criterion, Magnitude
from lilliput.prune.fitting import Target, meet
from lilliput.prune.polynomial import Floats, Product, regress
from lilliput.prune.ranking import Ranking
from lilliput.prune.removal import Apart, RemovalLoss
from lilliput.prune.sensitivity import sensitivity
from lilliput.prune.statistics import gather
from lilliput.prune.step import FineTune, fitted, floating, recalibrated
from lilliput.prune.structures import StructurePlan, Structures
from lilliput.prune.units import Channels, Scores
from lilliput.train import Fit, evaluate
from lilliput.train.evaluate import mean_loss
from lilliput.train.losses import loss_of

_SLACK = 0.01  # of a limit: what costs less does not use the budget


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Networks that the polynomial is fitted to: these shares in one dimension, the others whole, and all combinations of the first of each.

    The search goes no shallower than the samples do. `sides` is the number of resolutions from the whole side down to `least_side` of it
    that the search may choose, `degree` that of each factor. The paper's degree and grid are not known to us.
    """

    shares: tuple[float, ...] = (0.7, 0.5, 0.3)
    degree: int = 2
    sides: int = 5
    least_side: float = 0.5

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share < 1 for share in (*self.shares, self.least_side)) or min(self.degree, self.sides) < 1:
            raise RecipeError(f"shares lie in (0, 1), degree and sides from 1, not {self}")

    def points(self, dimensions: tuple[bool, ...]) -> Iterator[tuple[float, ...]]:
        """Shares to try, whole in the dimensions that are False."""
        first = self.shares[0]
        corners = {tuple(first if (code >> i) & 1 and free else 1.0 for i, free in enumerate(dimensions)) for code in range(1 << len(dimensions))}
        single = {tuple(share if i == axis else 1.0 for i in range(len(dimensions)))
                  for axis, free in enumerate(dimensions) if free for share in self.shares}
        yield from sorted(corners | single, reverse=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Space:
    """The networks that can be made: a plan for every resolution, scores that are those of the whole network, and the order of branches, of
    which `most` may go.
    """

    plans: Mapping[tuple[int, int], StructurePlan]
    networks: Mapping[tuple[int, int], Traced]
    scores: Scores
    order: list[int]
    most: int

    @property
    def whole(self) -> tuple[int, int]:
        """The original resolution."""
        return max(self.plans)

    def removal(self, gone: int, amount: float) -> Floats:
        """Shares that remove the first branches in order, and the same amount of every group of channels."""
        branches = np.zeros(len(self.order))
        branches[self.order[:gone]] = 1.0
        return np.concatenate([np.full(len(self.scores) - len(self.order), amount), branches])

    def shares(self, gone: int, amount: float, size: tuple[int, int]) -> tuple[float, float, float]:
        """Depth, width and resolution."""
        return 1 - gone / max(len(self.order), 1), 1 - amount, size[0] / self.whole[0]

    def nearest(self, shares: tuple[float, ...]) -> tuple[int, float, tuple[int, int]]:
        """What there is nearest to shares of depth, width and resolution."""
        size = min(self.plans, key=lambda size: abs(size[0] / self.whole[0] - shares[2]))
        return round((1 - shares[0]) * len(self.order)), 1 - shares[1], size

    def network(self, gone: int, amount: float, size: tuple[int, int]) -> Traced:
        """The pruned network."""
        plan = self.plans[size]
        return plan.apply(plan.keep(self.scores, self.removal(gone, amount)), self.networks[size])


@dataclass(frozen=True, kw_only=True)
class ThreeDimensions:
    """Fit the polynomial, maximise it where the cost meets the budget, and prune so. (wang2021three)

    The maximum is that over every number of branches and every resolution of the search, each with the one width that meets the budget
    (and single channels back where that has room), by the network's real cost, where the paper takes `d w^2 r^2` and Lagrange
    multipliers. Branches go in the order of how little the loss rises without each, channels by `criterion`, the same share of every
    group; the paper's own criterion for layers is not known to us. `collect` trains each sample (none: batch norms are estimated anew);
    each starts from the original, where the paper goes on from the one before. Accuracy is that on the validation split, or without
    classes the negative loss.

    The network that comes out takes images as before and scales them down itself (`graph.resolution.resized`); costs are counted behind
    that. One that is bound to its resolution keeps it, and the report says why.
    """

    method: str
    budget: Budget
    criterion: Criterion = field(default_factory=Magnitude)
    unit: Channels = field(default_factory=Channels)
    samples: Samples = field(default_factory=Samples)
    collect: Fit | None = None
    recover: FineTune | None = None
    checkpoint: Path | None = field(default=None, repr=False)

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """Prune a copy of `model`; raises `BudgetError` when the budget cannot be met."""
        began = time.perf_counter()
        traced = floating(model, data)
        if data is None:
            raise PreconditionError("the polynomial is fitted to accuracies: pass data=")
        space, notes = self._space(traced, data)
        target = Target.of(self.budget, space.plans[space.whole], traced, None)
        candidates = _feasible(space, target)
        product, points, values = self._fitted(space, data)
        gone, amount, size, keep = max(candidates, key=lambda c: float(product(np.array([space.shares(*c[:3])]))[0]))
        plan, large = space.plans[size], space.networks[size]
        small = plan.apply(keep, large)
        small = (recalibrated(small, data) if self.recover is None else
                 fitted(small, data, self.recover.fit, self.recover.hooks, self.checkpoint))
        found = (f"depth {len(space.order) - gone} of {len(space.order)} branches, width {1 - amount:.3f}, "
                 f"images scaled to {size[0]} x {size[1]} at the front from {space.whole[0]} x {space.whole[1]}")
        promise = float(product(np.array([space.shares(gone, amount, size)]))[0])
        fit = f"polynomial of {len(values)} networks, largest error {np.abs(product(points) - values).max():.3g}, promises {promise:.4g}"
        entry = Entry(method=self.method, recipe=describe(self), layers=tuple(plan.rows(keep, sensitivity(plan, keep, large, data))),
                      promised=dict(target.limits), measured=target.cost(plan, keep, lambda: small), notes=(found, fit, *notes, *plan.notes()),
                      seconds=time.perf_counter() - began)
        return Result(small, Report((entry,)))

    def _space(self, traced: Traced, data: Any) -> tuple[_Space, tuple[str, ...]]:
        unit, criterion = Structures(channels=self.unit, branches=Branches()), Apart(channels=self.criterion, branches=RemovalLoss())
        networks, notes = self._resolutions(traced)
        plans = {size: StructurePlan(network, unit) for size, network in networks.items()}
        plan = plans[max(plans)]
        scores = plan.scores(criterion, gather(traced, data, criterion.needs), traced)
        branches = [float(values[0]) for values in plan.parted(scores)[1]]
        order = [int(i) for i in np.argsort(branches, kind="stable")]
        most = round((1 - min(self.samples.shares)) * len(order))
        return _Space(plans=plans, networks=networks, scores=scores, order=order, most=most), notes

    def _resolutions(self, traced: Traced) -> tuple[dict[tuple[int, int], Traced], tuple[str, ...]]:
        """The network at every resolution that it takes, the whole one first."""
        try:
            height, width = side(traced)
            shares = np.linspace(1.0, self.samples.least_side, self.samples.sides)[1:]
            sizes = {(max(1, round(height * share)), max(1, round(width * share))) for share in shares} - {(height, width)}
            return {(height, width): traced} | {size: resized(traced, size) for size in sorted(sizes, reverse=True)}, ()
        except PreconditionError as error:
            shape = traced.example[0].shape[2:]
            whole = (int(shape[0]), int(shape[1])) if len(shape) == 2 else (1, 1)
            return {whole: traced}, (f"the resolution stays: {error}",)

    def _fitted(self, space: _Space, data: Any) -> tuple[Product, Floats, Floats]:
        """The polynomial, and the points and values that it is fitted to."""
        free = bool(space.order), len(space.scores) > len(space.order), len(space.plans) > 1
        chosen = list(dict.fromkeys(space.nearest(point) for point in self.samples.points(free)))
        points = np.array([space.shares(*choice) for choice in chosen])
        values = np.array([self._accuracy(space.network(*choice), data) for choice in chosen])
        return regress(points, values, self.samples.degree), points, values

    def _accuracy(self, small: Traced, data: Any) -> float:
        trained = recalibrated(small, data) if self.collect is None else fitted(small, data, self.collect, (), None)
        return evaluate(trained, data.val) if data.num_classes else -mean_loss(trained, data.val, loss_of(data))[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Width(Ranking):
    """The same amount of every group of channels, so many branches gone; single channels come back where the budget has room."""

    space: _Space
    gone: int

    def __call__(self, scores: Any, amount: float) -> Floats:  # noqa: ARG002
        """Shares to remove."""
        return self.space.removal(self.gone, amount)


def _feasible(space: _Space, target: Target) -> list[tuple[int, float, tuple[int, int], list[Keep]]]:
    """Numbers of branches gone and resolutions, with the amount of channels that meets the target; those that use the budget up.

    Raises `BudgetError` where none meets it.
    """
    found, error = [], None
    for size, plan in space.plans.items():
        for gone in range(space.most + 1):
            try:
                width = _Width(groups=len(space.scores) - len(space.order), space=space, gone=gone)
                amount, keep = meet(plan, space.scores, width, target, space.networks[size])
            except BudgetError as refused:
                error = refused
                continue
            costs = plan.cost(keep)
            found.append((max(costs[name] / limit for name, limit in target.limits.items()), gone, amount, size, keep))
    if not found and error is not None:
        raise error
    enough = min(1.0, max(row[0] for row in found)) - _SLACK
    return [row[1:] for row in found if row[0] >= enough]
