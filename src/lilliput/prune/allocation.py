"""Allocation: how one amount of sparsity is shared among groups, `(scores, amount) -> sparsity per group`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError

if TYPE_CHECKING:
    from lilliput.graph import Traced
    from lilliput.graph.coupling import Keep
    from lilliput.prune.fitting import Target
    from lilliput.prune.units import Plan

Scores = Sequence[NDArray[np.float64]]
Allocation = Callable[[Scores, float], NDArray[np.float64]]


@runtime_checkable
class FromNetwork(Protocol):
    """What makes an allocation of a network and its data, once, before any sparsity is asked for."""

    def on(self, plan: Plan, scores: Scores, traced: Traced, data: Any, /) -> Allocation:
        """The allocation for this network; `data` may be None."""
        ...


@runtime_checkable
class FromBudget(Protocol):
    """What makes an allocation of a network, its data and the limits that it has to meet, once, before any sparsity is asked for."""

    def under(self, target: Target, plan: Plan, scores: Scores, traced: Traced, data: Any, /) -> Allocation:
        """The allocation for this network and these limits; `data` may be None."""
        ...


@runtime_checkable
class Filling(Protocol):
    """An allocation that knows what to give back where the budget leaves room."""

    def filled(self, plan: Plan, scores: Scores, keep: list[Keep], cost: Callable[[list[Keep]], Mapping[str, float]],
               limits: Mapping[str, float], /) -> list[Keep]:
        """A choice within the limits that keeps what the one given does, and more; `cost` may take a measurement."""
        ...


def filled(allocation: Allocation, plan: Plan, scores: Scores, keep: list[Keep], cost: Callable[[list[Keep]], Mapping[str, float]],
           limits: Mapping[str, float]) -> list[Keep]:
    """A choice with what its allocation gives back, where it knows what."""
    return allocation.filled(plan, scores, keep, cost, limits) if isinstance(allocation, Filling) else keep


@runtime_checkable
class Telling(Protocol):
    """An allocation that knows more of a choice than its share."""

    def told(self, plan: Plan, keep: Sequence[Keep], /) -> tuple[str, ...]:
        """Notes for the report."""
        ...


def told(allocation: Allocation, plan: Plan, keep: Sequence[Keep]) -> tuple[str, ...]:
    """What an allocation says of a choice."""
    return allocation.told(plan, keep) if isinstance(allocation, Telling) else ()


def resolved(allocation: Allocation | FromNetwork | FromBudget, plan: Plan, scores: Scores, traced: Traced, data: Any,
             target: Target | None = None) -> Allocation:
    """The allocation itself, or what it becomes on a network; raises `PreconditionError` for one that needs limits where there are none."""
    if isinstance(allocation, FromBudget):
        if target is None:
            raise PreconditionError(f"{type(allocation).__name__} is made for a budget: pass target=")
        return allocation.under(target, plan, scores, traced, data)
    return allocation.on(plan, scores, traced, data) if isinstance(allocation, FromNetwork) else allocation


def uniform(scores: Scores, amount: float) -> NDArray[np.float64]:
    """The same share of every group."""
    return np.full(len(scores), amount)


def global_threshold(scores: Scores, amount: float) -> NDArray[np.float64]:
    """One threshold for all: the share of each group that lies among the lowest `amount` of all scores."""
    if amount <= 0:
        return np.zeros(len(scores))
    everything = np.concatenate([np.asarray(s).ravel() for s in scores])
    rank = min(round(amount * len(everything)), len(everything)) - 1
    if rank < 0:
        return np.zeros(len(scores))
    threshold = np.partition(everything, rank)[rank]
    return np.array([float(np.mean(np.asarray(s) <= threshold)) for s in scores])


def erdos_renyi_kernel(scores: Scores, amount: float) -> NDArray[np.float64]:
    """Densities in proportion to `sum(shape) / prod(shape)`, at most 1: small layers stay denser (Evci 2020, `evci2020rigl`).

    The factor makes the whole network's density `1 - amount`. For scores laid out as weights are, of two dimensions and more;
    raises `PreconditionError` for others.
    """
    if any(np.ndim(s) < 2 for s in scores):
        raise PreconditionError("ERK looks at the shapes of weights, and channels have none: pass unit=Element()")
    sizes = np.array([np.size(s) for s in scores], dtype=np.float64)
    raw = np.array([sum(np.shape(s)) for s in scores]) / sizes
    dense = np.zeros(len(scores), dtype=np.bool_)
    density = np.ones(len(scores))
    while not dense.all():
        room = (1 - amount) * sizes.sum() - sizes[dense].sum()
        density = np.where(dense, 1.0, raw * room / (raw * sizes)[~dense].sum())
        if not (density > 1).any():
            break
        dense |= density > 1
    return 1 - np.minimum(density, 1.0)


def deviations(scores: Scores, amount: float) -> NDArray[np.float64]:
    """Thresholds `mean + c * standard deviation` of each group's scores, with one `c` for all (Guo 2016, `guo2016dns`)."""
    return global_threshold([(s - np.mean(s)) / (np.std(s) or 1.0) for s in scores], amount)
