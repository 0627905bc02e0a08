"""What whole branches are worth: by the loss without them, and by how much they change what passes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.graph.branches import Residuals
from lilliput.prune.branches import BRANCH
from lilliput.prune.criteria import Criterion, Layer
from lilliput.prune.maps import Keeper, Tapped
from lilliput.prune.statistics import Batches, Statistic, Stats, Tensors
from lilliput.train import Dataset, loss_of


@dataclass(frozen=True, kw_only=True)
class LossWithout(Batches):
    """`E_b[L_b(without the branch) - L_b]` of each residual branch alone, by its name: one pass forward to each, and nothing is trained."""

    def __call__(self, traced: Traced, data: Dataset, seed: int) -> Tensors:
        """A pass to each branch and batch."""
        model, loss = copy.deepcopy(traced).eval(), loss_of(data)
        nodes, branches = {node.name: node for node in model.graph.nodes}, Residuals(traced).found
        rises, count = {branch.name: torch.zeros((), dtype=torch.float64) for branch in branches}, 0
        with torch.no_grad():
            for inputs, targets in self.drawn(data, seed):
                base = loss(model(inputs), targets).double()
                for branch in branches:
                    outputs = Tapped(model, given={nodes[branch.output]: torch.zeros_like}).outputs(inputs)
                    rises[branch.name] += loss(outputs, targets).double() - base
                count += 1
        return {name: rise / count for name, rise in rises.items()}


@dataclass(frozen=True, kw_only=True)
class Cosine(Batches):
    """`E[cos(x, y)]` of a branch's shortcut `x` and the sum `y = x + f(x)`, by the branch's name, over samples, or tokens where there are any."""

    def __call__(self, traced: Traced, data: Dataset, seed: int) -> Tensors:
        """One pass to each batch."""
        model = copy.deepcopy(traced).eval()
        nodes, branches = {node.name: node for node in model.graph.nodes}, Residuals(traced).found
        pairs = {b.name: (nodes[b.addition].args[b.kept], nodes[b.addition]) for b in branches}
        total: dict[str, Tensor] = {}
        count = 0
        with torch.no_grad():
            for inputs, _ in self.drawn(data, seed):
                keeper = Keeper()
                Tapped(model, given={node: keeper.tap(node) for pair in pairs.values() for node in pair}).outputs(inputs)
                for name, (x, y) in pairs.items():
                    similar = F.cosine_similarity(_vectors(keeper.kept[x]), _vectors(keeper.kept[y]), dim=-1).double().mean()
                    total[name] = total.get(name, 0) + similar
                count += 1
        return {name: value / count for name, value in total.items()}


def _vectors(value: Tensor) -> Tensor:
    """Tokens `(N, T, d)` as they are, maps as one vector to a sample."""
    return value if value.ndim == 3 else value.flatten(1)


@dataclass(frozen=True, kw_only=True)
class RemovalLoss:
    """How much the task's loss rises when this branch alone goes."""

    statistic: LossWithout = field(default_factory=LossWithout)
    roles: ClassVar[frozenset[str]] = frozenset({BRANCH})

    @property
    def needs(self) -> frozenset[Statistic]:
        """The rises."""
        return frozenset({self.statistic})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """A score; larger matters more. Raises `PreconditionError` for what is no branch."""
        return _of_branch(self, layer, stats[self.statistic])


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """`1 - cos` of what goes into a block and what comes out: one that changes little matters little. (men2024shortgpt)

    The paper removes whole layers of decoders, attention and feed-forward together; here each of the two is a branch.
    """

    statistic: Cosine = field(default_factory=Cosine)
    roles: ClassVar[frozenset[str]] = frozenset({BRANCH})

    @property
    def needs(self) -> frozenset[Statistic]:
        """The cosines."""
        return frozenset({self.statistic})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """A score in [0, 2]; larger matters more. Raises `PreconditionError` for what is no branch."""
        return 1 - _of_branch(self, layer, stats[self.statistic])


def _of_branch(criterion: Criterion, layer: Layer, found: Tensors) -> Tensor:
    if layer.role != BRANCH:
        raise PreconditionError(f"{type(criterion).__name__} scores whole branches: pass unit=Branches()")
    return found[layer.name]


@dataclass(frozen=True, kw_only=True)
class Apart:
    """One criterion for channels, another for whole branches."""

    channels: Criterion
    branches: Criterion

    @property
    def roles(self) -> frozenset[str]:
        """Those of both."""
        return self.channels.roles | self.branches.roles

    @property
    def needs(self) -> frozenset[Statistic]:
        """Those of both."""
        return self.channels.needs | self.branches.needs

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """What the criterion for such a layer says."""
        return (self.branches if layer.role == BRANCH else self.channels)(layer, stats)
