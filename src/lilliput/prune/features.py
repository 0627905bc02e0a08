"""Criteria from maps alone: how much they vary over positions, and how well they tell classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.prune.criteria import Layer
from lilliput.prune.maps import by_channel, maps
from lilliput.prune.statistics import Batches, Statistic, Stats, Tensors

_OUT: frozenset[str] = frozenset({"out"})


@dataclass(frozen=True, kw_only=True)
class MapRank(Batches):
    """The mean rank, over samples, of each output channel's map as a matrix `height x width`, by the weight's name. (lin2020hrank)

    Maps of two dimensions have that rank; any other counts as one column, of rank 1 unless it is zero. Maps are taken behind the
    normalisation and the activation that directly follow the layer.
    """

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass forward to each batch."""
        total: dict[str, Tensor] = {}
        count: dict[str, int] = {}
        for _, found in maps(traced, self, data, seed):
            for name, layer, z in found:
                matrices = z if z.ndim == 4 else by_channel(layer, z)[..., None]
                total[name] = total.get(name, 0) + torch.linalg.matrix_rank(matrices).double().sum(0)
                count[name] = count.get(name, 0) + len(z)
        return {name: value / count[name] for name, value in total.items()}


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The mean rank of a channel's map. (lin2020hrank)"""

    ranks: MapRank = field(default_factory=MapRank)
    roles: ClassVar[frozenset[str]] = _OUT

    @property
    def needs(self) -> frozenset[Statistic]:
        """The ranks."""
        return frozenset({self.ranks})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores of output channels; larger matters more."""
        return _of(stats[self.ranks], layer)


@dataclass(frozen=True, kw_only=True)
class ClassScatter(Batches):
    """For each output channel `(b, w)`: scatter of its map between classes and within them, by the weight's name. (hu2023catro)

    `b = sum_k n_k |mu_k - mu|^2` and `w = sum_n |f_n - mu_(class of n)|^2` over positions of the map `f_n`, behind the normalisation and
    the activation that directly follow the layer: the channel's share of the traces of both scatter matrices.
    """

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass forward to each batch; raises `PreconditionError` for data without one class to a sample."""
        if not data.num_classes:
            raise PreconditionError("the trace ratio compares classes, and this data has none: pass data for classification")
        sums: dict[str, Tensor] = {}
        squares: dict[str, Tensor] = {}
        counts = torch.zeros(data.num_classes, dtype=torch.float64)
        for targets, found in maps(traced, self, data, seed):
            if targets.ndim != 1:
                raise PreconditionError("the trace ratio takes one class to a sample: pass data for classification of whole samples")
            member = torch.nn.functional.one_hot(targets.long().cpu(), data.num_classes).double()
            counts += member.sum(0)
            for name, layer, z in found:
                features = by_channel(layer, z).double().cpu()
                sums[name] = sums.get(name, 0) + torch.einsum("nk,ncp->kcp", member, features)
                squares[name] = squares.get(name, 0) + features.square().sum((0, 2))
        present = counts > 0
        return {name: _scatter(sums[name][present], squares[name], counts[present]) for name in sums}


def _scatter(sums: Tensor, squares: Tensor, counts: Tensor) -> Tensor:
    classes = (sums.square().sum(2) / counts[:, None]).sum(0)
    everything = sums.sum(0).square().sum(1) / counts.sum()
    return torch.stack([(classes - everything).clamp(min=0), (squares - classes).clamp(min=0)], 1)


@dataclass(frozen=True, kw_only=True)
class TraceRatio:
    """`sum b / sum w` over the channels that stay: those go first whose removal leaves the most. (hu2023catro)

    Departs from the paper, which asks for the best set of a given size and iterates on the ratio; here one channel goes after the other,
    so that one order serves every number, and scores are places in it. Channels that never vary go first: the ratio would not miss
    them. The paper's first stage, which says how many channels each layer keeps, is not part of it.
    """

    scatter: ClassScatter = field(default_factory=ClassScatter)
    roles: ClassVar[frozenset[str]] = _OUT

    @property
    def needs(self) -> frozenset[Statistic]:
        """The scatter."""
        return frozenset({self.scatter})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scatter between and within classes (slices, 2)."""
        return _of(stats[self.scatter], layer)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Scores; larger matters more."""
        totals = torch.stack(list(parts)).sum(0)
        between, within = totals.unbind(1)
        left, scores = torch.ones(len(totals), dtype=torch.bool), torch.zeros(len(totals), dtype=torch.float64)
        for place in range(len(totals)):
            ratio = (between[left].sum() - between) / (within[left].sum() - within).clamp(min=1e-30)
            ratio[totals.sum(1) <= 0] = torch.inf
            ratio[~left] = -torch.inf
            gone = int(ratio.argmax())
            left[gone] = False
            scores[gone] = (place + 1) / len(totals)
        return scores


def _of(found: Tensors, layer: Layer) -> Tensor:
    values = found.get(layer.name)
    if values is None or len(values) != len(layer.weight):
        raise PreconditionError(f"{layer.name} gives no maps of its own: exclude that layer")
    return values
