"""Criteria: how much each weight, or each slice along a dimension, matters.

A criterion is `(layer, stats) -> scores`, with scores of the layer's shape (one per weight) or one per index of its
first dimension. `roles` says which tensors of a coupled group it looks at, `needs` which statistics it reads. A `Joint`
one gives a vector per index instead, and scores what those of coupled tensors say together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from lilliput.prune.statistics import SquaredProduct, Statistic, Stats


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One tensor of a network, as a criterion sees it: `weight` has the slices to score along dimension 0.

    `role` is that of its slot in the group (`Slot.role`): what makes the channels, reads them, or scales them.
    """

    name: str
    weight: Tensor
    dim: int = 0
    role: str = "out"

    def moved(self, other: Tensor) -> Tensor:
        """A tensor of the stored layout (a gradient), laid like `weight`."""
        return other.movedim(self.dim, 0)


class Criterion(Protocol):
    """`(layer, stats) -> scores`; larger means more important."""

    @property
    def roles(self) -> frozenset[str]:
        """Which tensors of a coupled group it looks at."""
        ...

    @property
    def needs(self) -> frozenset[Statistic]:
        """The statistics that it reads."""
        ...

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Score every weight of a layer, or every slice along its first dimension."""
        ...


@runtime_checkable
class Joint(Criterion, Protocol):
    """A criterion of coupled channels as a whole: it gives a vector per slice, `(slices, k)`.

    Vectors are added over the slices of a unit in a tensor, and `joined` scores what the tensors of a group say together.
    """

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """One score per unit of a group, of a matrix (units, k), float64, for each tensor that it looks at; larger matters more."""
        ...


_OUT: frozenset[str] = frozenset({"out"})
_NOTHING: frozenset[Statistic] = frozenset()


@dataclass(frozen=True)
class Magnitude:
    """`|w|^p`: with `p=1` summed over a filter its L1 norm (Li 2017, `li2017pruning`), with `p=2` its squared L2 norm."""

    p: float = 1.0
    roles: ClassVar[frozenset[str]] = _OUT
    needs: ClassVar[frozenset[Statistic]] = _NOTHING

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:  # noqa: ARG002
        """Scores; larger matters more."""
        return layer.weight.abs() if self.p == 1 else layer.weight.abs().pow_(self.p)


@dataclass(frozen=True)
class GroupMagnitude:
    """`w^2` over every coupled tensor, inputs of the next layers included (Fang 2023, `fang2023depgraph`)."""

    roles: ClassVar[frozenset[str]] = frozenset({"out", "in", "norm", "other"})
    needs: ClassVar[frozenset[Statistic]] = _NOTHING

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:  # noqa: ARG002
        """Scores; larger matters more."""
        return layer.weight.square()


@dataclass(frozen=True)
class GeometricMedian:
    """`g(F_j) = sum_k ||F_j - F_k||_2`: filters near the geometric median are redundant (He 2019, `he2019fpgm`)."""

    roles: ClassVar[frozenset[str]] = _OUT
    needs: ClassVar[frozenset[Statistic]] = _NOTHING

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:  # noqa: ARG002
        """Scores; larger matters more."""
        filters = layer.weight.flatten(1)
        return torch.cdist(filters, filters).sum(1)


@dataclass(frozen=True, kw_only=True)
class Taylor:
    """`E[(g w)^2]` per weight, averaged over batches (Molchanov 2019, `molchanov2019importance`, first order).

    A filter's score is the sum over its weights; the paper also uses gates, `E[(sum g w)^2]`, which this is not.
    """

    products: SquaredProduct = field(default_factory=SquaredProduct)
    roles: ClassVar[frozenset[str]] = _OUT

    @property
    def needs(self) -> frozenset[Statistic]:
        """Products of weights and gradients."""
        return frozenset({self.products})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores; larger matters more."""
        return layer.moved(stats[self.products][layer.name])


@dataclass(frozen=True)
class NormScale:
    """`|gamma|` of batch norms that follow the channels (Liu 2017, `liu2017slimming`)."""

    roles: ClassVar[frozenset[str]] = frozenset({"norm"})
    needs: ClassVar[frozenset[Statistic]] = _NOTHING

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:  # noqa: ARG002
        """Scores; larger matters more."""
        return layer.weight.abs()


@dataclass(frozen=True)
class Random:
    """Uniform draws: the baseline that every criterion must beat."""

    roles: ClassVar[frozenset[str]] = _OUT
    needs: ClassVar[frozenset[Statistic]] = _NOTHING

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores; larger matters more."""
        generator = torch.Generator().manual_seed(_seed(stats.seed, layer.name))
        return torch.rand(layer.weight.shape, generator=generator)


def _seed(seed: int, name: str) -> int:
    import zlib

    return (seed * 0x9E3779B1 + zlib.crc32(name.encode())) % 2**63
