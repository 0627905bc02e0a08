"""Rank allocation: `(layers, price) -> (amount -> ranks)`, more of the amount meaning lower ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import RecipeError
from lilliput.factorize.lowrank import Count, Decomposed, Ranks
from lilliput.factorize.vbmf import vbmf_rank

Array = NDArray[np.float64]
# Ranks for every layer; None leaves it whole.
Chosen = list[Ranks | None]
Path = Callable[[float], Chosen]
# Cost of one layer at some ranks, or whole, in shares of what the budget limits.
Price = Callable[[Decomposed, tuple[Count, ...] | None], Array]


class Allocation(Protocol):
    """How ranks are chosen; amounts lie between 0 and 1, and `amount` is the one taken where no budget decides."""

    @property
    def amount(self) -> float | None:
        """The amount without a budget; `None` where there must be one."""
        ...

    def __call__(self, layers: Sequence[Decomposed], price: Price) -> Path:
        """Ranks for every layer as a function of the amount; a layer that would get no cheaper is left whole."""
        ...


@dataclass(frozen=True, kw_only=True)
class Share:
    """The same share of every full rank, at least one."""

    share: float = 0.5

    def __post_init__(self) -> None:
        _check(self.share)

    @property
    def amount(self) -> float:
        """What is left out."""
        return 1 - self.share

    def __call__(self, layers: Sequence[Decomposed], price: Price) -> Path:
        """`round((1 - amount) n)` of `n`."""
        return _scaled(layers, [tuple(len(s.values) for s in layer.spectra) for layer in layers], price)


@dataclass(frozen=True, kw_only=True)
class Energy:
    """The least ranks that keep this share of the squared singular values of every unfolding."""

    share: float = 0.95

    def __post_init__(self) -> None:
        _check(self.share)

    @property
    def amount(self) -> float:
        """The energy left out."""
        return 1 - self.share

    def __call__(self, layers: Sequence[Decomposed], price: Price) -> Path:
        """The least `r` with `kept[r] >= 1 - amount`."""
        kept = [[s.kept for s in layer.spectra] for layer in layers]

        def at(amount: float) -> Chosen:
            # A share of one asks for all that is there, less what rounding makes of the sum.
            ranks = [tuple(max(1, int((k[:-1] < 1 - amount - 1e-12).sum())) for k in spectra) for spectra in kept]
            return _worthwhile(layers, ranks, price)

        return at


@dataclass(frozen=True)
class Vbmf:
    """The ranks that variational Bayes finds in each unfolding; under a budget the same share of them all.

    Where it finds none in some unfolding, so that the whole weight passes for noise, the layer is left whole; a budget that
    cannot be met otherwise takes it from its full rank, like the others from theirs. (nakajima2013vbmf)
    """

    @property
    def amount(self) -> float:
        """All of what it finds."""
        return 0.0

    def __call__(self, layers: Sequence[Decomposed], price: Price) -> Path:
        """`round((1 - amount) r)`, at least one."""
        found = [tuple(vbmf_rank(s.values, s.rows, s.columns) for s in layer.spectra) for layer in layers]
        full = [tuple(len(s.values) for s in layer.spectra) for layer in layers]
        return _scaled(layers, [ranks if all(ranks) else whole for ranks, whole in zip(found, full, strict=True)], price)


@dataclass(frozen=True)
class EqualSlope:
    """Ranks that maximise the product of kept energies under a budget: layers at equal slope of `-log energy` over cost.

    Each layer's choices are the lower convex hull of loss over cost, the whole layer among them; the steps along all hulls
    are taken in the order of their slopes, and the amount is the share of steps taken. Zhang removes one eigenvalue after
    the other by the same measure, the loss `dE / E` over the cost saved; that does not step over the ranks at which
    a pair of layers costs more than the layer it replaces. Several unfoldings of a layer count as factors of the product.
    (zhang2015gsvd)
    """

    @property
    def amount(self) -> None:
        """There is none without a budget."""
        return

    def __call__(self, layers: Sequence[Decomposed], price: Price) -> Path:
        """All steps up to a share."""
        hulls = [_hull(layer, price) for layer in layers]
        steps = sorted((slope, index, at) for index, hull in enumerate(hulls) for at, (_, slope) in enumerate(hull))

        def at(amount: float) -> Chosen:
            chosen: Chosen = [None] * len(layers)
            for _, index, position in steps[: round(amount * len(steps))]:
                chosen[index] = hulls[index][position][0]
            return chosen

        return at


def _scaled(layers: Sequence[Decomposed], full: Sequence[Ranks], price: Price) -> Path:
    def at(amount: float) -> Chosen:
        return _worthwhile(layers, [tuple(max(1, round((1 - amount) * r)) for r in ranks) for ranks in full], price)

    return at


def _hull(layer: Decomposed, price: Price) -> list[tuple[Ranks, float]]:
    """Ranks along the lower convex hull, cheaper and cheaper, each with the slope of the step to it."""
    grid = np.meshgrid(*[np.arange(1, len(s.values) + 1) for s in layer.spectra], indexing="ij")
    ranks = tuple(g.ravel() for g in grid)
    with np.errstate(divide="ignore"):
        loss = -np.sum([np.log(s.kept[r]) for s, r in zip(layer.spectra, ranks, strict=True)], axis=0)
    cost, whole = price(layer, ranks), float(price(layer, None))
    order = np.lexsort((loss, -cost))
    order = order[(cost[order] < whole) & np.isfinite(loss[order])]
    # Of choices that cost no more and lose no more than another, that other is none.
    best = np.minimum.accumulate(loss[order][::-1])[::-1]
    order = order[loss[order] <= best]
    points: list[tuple[float, float, int]] = [(whole, 0.0, -1)]
    for i in order:
        point = (float(cost[i]), float(loss[i]), int(i))
        if point[0] == points[-1][0]:
            continue
        while len(points) > 1 and _slope(points[-2], points[-1]) >= _slope(points[-1], point):
            points.pop()
        points.append(point)
    return [(tuple(int(r[p[2]]) for r in ranks), _slope(before, p)) for before, p in pairwise(points)]


def _slope(a: tuple[float, float, int], b: tuple[float, float, int]) -> float:
    return (b[1] - a[1]) / (a[0] - b[0])


def _worthwhile(layers: Sequence[Decomposed], ranks: Sequence[Ranks], price: Price) -> Chosen:
    return [r if float(price(layer, r)) < float(price(layer, None)) else None for layer, r in zip(layers, ranks, strict=True)]


def _check(share: float) -> None:
    if not 0 < share <= 1:
        raise RecipeError(f"a share lies above 0 and up to 1, not {share!r}")
