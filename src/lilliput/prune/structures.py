"""Channels and whole branches in one plan: a network that becomes narrower and shallower at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from lilliput.graph import Traced
from lilliput.graph.branches import Branch, without
from lilliput.graph.cost import Cost
from lilliput.graph.coupling import Keep
from lilliput.prune.branches import Branches, BranchPlan
from lilliput.prune.criteria import Criterion
from lilliput.prune.statistics import Stats
from lilliput.prune.units import ChannelPlan, Channels, Plan, Row, Scores

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Structures:
    """Coupled channels and heads, then residual branches: groups of both, in this order.

    Where a branch saves more than the budget asks for, channels come back. `Apart` scores the two by criteria of their own; those of one criterion
    compare across both only where its scores do.
    """

    channels: Channels = field(default_factory=Channels)
    branches: Branches = field(default_factory=Branches)

    def plan(self, traced: Traced) -> Plan:
        """Find the channels and branches of a network."""
        return StructurePlan(traced, self)


class StructurePlan:
    """Channels and branches of one network."""

    def __init__(self, traced: Traced, unit: Structures) -> None:
        self.channels, self.branches = ChannelPlan(traced, unit.channels), BranchPlan(traced, unit.branches)
        self._cost = Cost(self.channels.coupling)
        self._live: dict[tuple[str, ...], frozenset[fx.Node]] = {}

    def parted(self, items: Sequence[T]) -> tuple[list[T], list[T]]:
        """The part for channels and that for branches of a choice, or of scores."""
        groups = len(self.channels.groups)
        return list(items[:groups]), list(items[groups:])

    def joined(self, channels: Sequence[Keep], branches: Sequence[Keep]) -> list[Keep]:
        """The channels of one choice, the branches of another."""
        return self.parted(channels)[0] + self.parted(branches)[1]

    def everything(self) -> list[Keep]:
        """The choice that removes nothing."""
        return self.channels.everything() + self.branches.everything()

    def scores(self, criterion: Criterion, stats: Stats, traced: Traced) -> Scores:
        """Those of channels, then those of branches."""
        return self.channels.scores(criterion, stats, traced) + self.branches.scores(criterion, stats, traced)

    def keep(self, scores: Scores, sparsity: NDArray[np.float64]) -> list[Keep]:
        """The best channels of each group, and the best branches."""
        groups = len(self.channels.groups)
        return self.channels.keep(scores[:groups], sparsity[:groups]) + self.branches.keep(scores[groups:], sparsity[groups:])

    def cost(self, keep: Sequence[Keep]) -> dict[str, float]:
        """MACs and parameters of what is kept."""
        channels, branches = self.parted(keep)
        return self._cost(self.channels.flags(channels), self._needed(self.branches.removed(branches)))

    def _needed(self, removed: list[Branch]) -> frozenset[fx.Node]:
        names = tuple(branch.name for branch in removed)
        if names not in self._live:
            self._live[names] = self.branches.residuals.live(removed)
        return self._live[names]

    def masks(self, keep: Sequence[Keep]) -> dict[str, Tensor]:
        """Ones and zeros by tensor name; zero where either says so."""
        channels, branches = self.parted(keep)
        found = self.channels.masks(channels)
        for name, mask in self.branches.masks(branches).items():
            found[name] = found[name] & mask if name in found else mask
        return found

    def apply(self, keep: Sequence[Keep], traced: Traced) -> Traced:
        """The narrower and shallower network, with the weights of `traced`."""
        channels, branches = self.parted(keep)
        return without(self.channels.apply(channels, traced), self.branches.removed(branches))

    def rows(self, keep: Sequence[Keep], sensitivity: Sequence[float] | None = None) -> list[Row]:
        """Rows of layers, then of branches."""
        channels, branches = self.parted(keep)
        rises = list(sensitivity or ())
        return self.channels.rows(channels, rises[:len(channels)]) + self.branches.rows(branches, rises[len(channels):])

    def notes(self) -> tuple[str, ...]:
        """Those of both."""
        return self.channels.notes() + self.branches.notes()
