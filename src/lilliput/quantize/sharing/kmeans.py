"""k-means: clusters of least squared error, of numbers exactly and of vectors by Lloyd's iteration, errors weighed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.core.errors import PreconditionError, RecipeError

# Distances held at once.
_CHUNK = 2**22


class Clusters(NamedTuple):
    """`table` `(K, d)`, float64, of which every entry is used, and `codes` `(n,)`, int64."""

    table: Tensor
    codes: Tensor


class Initial(Protocol):
    """Where the centroids start."""

    def __call__(self, vectors: Tensor, weights: Tensor | None, count: int, generator: torch.Generator) -> Tensor:
        """`(count, d)` for vectors `(n, d)`, `n >= count`, and weights `(n, d)`."""


class Solver(Protocol):
    """Puts vectors `(n, d)` into at most `count` clusters so that `sum_ij weights_ij (vectors_ij - table[codes_i]_j)^2` is small.

    `weights` are `(n, d)`, positive or zero; None for ones.
    """

    def __call__(self, vectors: Tensor, count: int, weights: Tensor | None = None) -> Clusters:
        """The clusters; fewer than `count` where there are fewer different vectors."""


def _numbers(vectors: Tensor, name: str) -> Tensor:
    if vectors.shape[1] != 1:
        raise RecipeError(f"{name} is for single weights, not for blocks of {vectors.shape[1]}: use PlusPlus() or Random()")
    return vectors[:, 0]


@dataclass(frozen=True)
class Linear:
    """Evenly spaced from the least to the largest number: large weights, few as they are, have centroids near. (han2016deep)"""

    def __call__(self, vectors: Tensor, weights: Tensor | None, count: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """The points."""
        values = _numbers(vectors, "Linear()")
        return torch.linspace(float(values.min()), float(values.max()), count, dtype=values.dtype)[:, None]


@dataclass(frozen=True)
class Density:
    """Evenly spaced along the cumulative distribution, at `(i + 1/2) / count`. (han2016deep)"""

    def __call__(self, vectors: Tensor, weights: Tensor | None, count: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """The quantiles."""
        values = _numbers(vectors, "Density()").sort().values
        at = ((torch.arange(count, dtype=torch.float64) + 0.5) / count * len(values)).long()
        return values[at][:, None]


@dataclass(frozen=True)
class Random:
    """Vectors drawn without replacement. (han2016deep)"""

    def __call__(self, vectors: Tensor, weights: Tensor | None, count: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """The draw."""
        return vectors[torch.randperm(len(vectors), generator=generator)[:count]]


@dataclass(frozen=True)
class PlusPlus:
    """Vectors drawn one after the other in proportion to their squared distance from those drawn before. (arthur2007kmeans)"""

    def __call__(self, vectors: Tensor, weights: Tensor | None, count: int, generator: torch.Generator) -> Tensor:
        """The draw; plainly at random once every vector is a centroid."""
        first = int(torch.randint(len(vectors), (1,), generator=generator))
        chosen, nearest = [first], _errors(vectors, vectors[first], weights)
        for _ in range(count - 1):
            below = nearest.cumsum(0)
            if not float(below[-1]) > 0:
                chosen.append(int(torch.randint(len(vectors), (1,), generator=generator)))
                continue
            at = torch.rand(1, generator=generator, dtype=torch.float64) * below[-1]
            chosen.append(min(int(torch.searchsorted(below, at, right=True)), len(vectors) - 1))
            nearest = torch.minimum(nearest, _errors(vectors, vectors[chosen[-1]], weights))
        return vectors[torch.tensor(chosen)]


def _errors(vectors: Tensor, centres: Tensor, weights: Tensor | None) -> Tensor:
    squares = (vectors - centres).square()
    return (squares if weights is None else squares * weights).sum(1)


@dataclass(frozen=True, kw_only=True)
class Lloyd:
    """Assign every vector to the nearest centroid, move centroids to the means, until nothing changes. (lloyd1982pcm)

    A centroid that nobody is nearest to moves to the vector with the largest error. Deterministic for a `seed`.
    """

    initial: Initial = field(default_factory=PlusPlus)
    iterations: int = 50
    seed: int = 0

    def __call__(self, vectors: Tensor, count: int, weights: Tensor | None = None) -> Clusters:
        """The clusters."""
        vectors, weights = _checked(vectors, weights)
        generator = torch.Generator().manual_seed(self.seed)
        start = self.initial(vectors, weights, min(count, len(vectors)), generator)
        return iterate(vectors, start, weights, self.iterations)


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The clusters of least error of all, for single numbers, by dynamic programming over the sorted values. (wang2011ckmeans)

    Beyond `points` different values it is exact for their means in as many equal bins, and Lloyd's iteration goes on from there.
    """

    points: int = 1024

    def __call__(self, vectors: Tensor, count: int, weights: Tensor | None = None) -> Clusters:
        """The clusters."""
        vectors, weights = _checked(vectors, weights)
        values = _numbers(vectors, "Exact()").numpy()
        masses = np.ones(len(values)) if weights is None else weights[:, 0].numpy()
        table = optimal(values, count, masses, self.points)
        return iterate(vectors, torch.from_numpy(table)[:, None], weights, 50)


def _checked(vectors: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if not len(vectors):
        raise PreconditionError("there are no vectors to put into clusters")
    vectors = vectors.detach().cpu().double()
    return vectors, None if weights is None else weights.detach().cpu().double().expand_as(vectors)


def iterate(vectors: Tensor, table: Tensor, weights: Tensor | None, iterations: int) -> Clusters:
    """Lloyd's iteration from the centroids `table`; the error never rises."""
    codes, errors = assign(vectors, table, weights)
    for _ in range(iterations):
        table = _means(vectors, codes, weights, table)
        empty = (torch.bincount(codes, minlength=len(table)) == 0).nonzero().flatten()
        if len(empty):
            far = errors.argsort(descending=True, stable=True)[: len(empty)]
            table[empty[: len(far)]] = vectors[far]
        before = codes
        codes, errors = assign(vectors, table, weights)
        if torch.equal(codes, before):
            break
    table = _means(vectors, codes, weights, table)
    used, codes = torch.unique(codes, return_inverse=True)
    return Clusters(table[used], codes)


def assign(vectors: Tensor, table: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The nearest centroid of every vector, and its weighted squared error; of equal ones the first."""
    if vectors.shape[1] == 1:
        order = table[:, 0].argsort(stable=True)
        ranked = table[order, 0]
        codes = order[torch.searchsorted((ranked[1:] + ranked[:-1]) / 2, vectors[:, 0].contiguous())]
    else:
        parts = []
        size = max(_CHUNK // len(table), 1)
        for i in range(0, len(vectors), size):
            x = vectors[i: i + size]
            if weights is None:
                distance = table.square().sum(1) - 2 * (x @ table.T)
            else:
                w = weights[i: i + size]
                distance = w @ table.square().T - 2 * ((w * x) @ table.T)
            parts.append(distance.argmin(1))
        codes = torch.cat(parts)
    return codes, _errors(vectors, table[codes], weights)


def _means(vectors: Tensor, codes: Tensor, weights: Tensor | None, table: Tensor) -> Tensor:
    """The weighted means of the clusters; centroids without members, or without weight, stay."""
    masses = torch.ones_like(vectors) if weights is None else weights
    total = torch.zeros_like(table).index_add_(0, codes, masses * vectors)
    mass = torch.zeros_like(table).index_add_(0, codes, masses)
    return torch.where(mass > 0, total / mass.clamp(min=1e-300), table)


def optimal(values: NDArray[np.float64], count: int, masses: NDArray[np.float64], points: int = 1024) -> NDArray[np.float64]:
    """Centroids, ascending, of least `sum_i masses_i (values_i - nearest centroid)^2`, exact up to `points` different values.

    `D_k(j) = min_i D_(k-1)(i) + c(i, j)`, where `c(i, j)` is the error of the sorted values `i` to `j - 1` about their mean.
    """
    x, inverse = np.unique(values, return_inverse=True)
    w = np.bincount(inverse, masses, len(x)).astype(np.float64)
    w = w if (w > 0).any() else np.ones(len(x))
    x, w = x[w > 0], w[w > 0]
    if len(x) > points:
        at = np.minimum(((x - x[0]) / (x[-1] - x[0]) * points).astype(np.int64), points - 1)
        mass = np.bincount(at, w, points)
        x, w = (np.bincount(at, w * x, points) / np.where(mass > 0, mass, 1))[mass > 0], mass[mass > 0].astype(np.float64)
    if len(x) <= count:
        return x
    middle = np.average(x, weights=w)
    mass, first, second = (np.concatenate([[0.0], np.cumsum(w * (x - middle) ** power)]) for power in (0, 1, 2))
    total, moment = mass[None, :] - mass[:, None], first[None, :] - first[:, None]
    later = np.triu(np.ones_like(total, dtype=bool), 1)
    cost = np.where(later, np.maximum(second[None, :] - second[:, None] - moment**2 / np.where(later, total, 1.0), 0.0), np.inf)
    best, choices = cost[0], []
    for _ in range(count - 1):
        sums = best[:, None] + cost
        choices.append(sums.argmin(0))
        best = sums.min(0)
    ends, end = [], len(x)
    for choice in [*reversed(choices), None]:
        start = 0 if choice is None else int(choice[end])
        ends.append((start, end))
        end = start
    found: NDArray[np.float64] = np.array([np.average(x[start:end], weights=w[start:end]) for start, end in reversed(ends)])
    return found
