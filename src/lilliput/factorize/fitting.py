"""Meeting a budget: the least amount of factorization that costs no more than allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lilliput.core import Budget, BudgetError, PreconditionError
from lilliput.factorize.lowrank import Count, Decomposed
from lilliput.factorize.ranks import Allocation, Chosen

Measure = Mapping[str, Callable[[nn.Module], float]]
_EXACT_STEPS = 40
_MEASURED_STEPS = 7


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a choice of ranks costs; `original` holds `params` and `macs` of the whole network to be factorized."""

    layers: Sequence[Decomposed]
    original: Mapping[str, float]
    biases: bool

    def __call__(self, chosen: Chosen) -> dict[str, float]:
        """Parameters and multiply-accumulates of the network with these ranks."""
        total = dict(self.original)
        for layer, ranks in zip(self.layers, chosen, strict=True):
            if ranks is not None:
                total["params"] += float(layer.params(ranks)) - layer.layer.params
                total["params"] += layer.layer.shape[0] if self.biases and layer.layer.bias is None else 0
                total["macs"] += float(layer.macs(ranks)) - layer.layer.macs
        return total

    def price(self, names: Sequence[str]) -> Callable[[Decomposed, tuple[Count, ...] | None], NDArray[np.float64]]:
        """Shares of the network's costs of these names, summed; infinite where factors save nothing of either kind."""
        weights = {name: 1 / self.original[name] for name in names}

        def price(layer: Decomposed, ranks: tuple[Count, ...] | None) -> NDArray[np.float64]:
            whole = {"params": layer.layer.params, "macs": layer.layer.macs}
            if ranks is None:
                return np.asarray(sum(share * whole[name] for name, share in weights.items()), dtype=np.float64)
            found = {"params": np.asarray(layer.params(ranks)), "macs": np.asarray(layer.macs(ranks))}
            total = np.asarray(sum(share * found[name] for name, share in weights.items()), dtype=np.float64)
            return np.where((found["params"] < whole["params"]) & (found["macs"] < whole["macs"]), total, np.inf)

        return price


@dataclass(frozen=True, kw_only=True)
class Target:
    """Absolute limits, and how to measure those that structure does not tell (size, latency)."""

    limits: Mapping[str, float]
    measure: Measure

    @staticmethod
    def of(budget: Budget, original: Mapping[str, float], network: nn.Module, measure: Measure | None) -> Target:
        """Limits of a budget, given the network and its costs; raises `PreconditionError` for one that nobody can measure."""
        measure, original = measure or {}, dict(original)
        if not budget.costs():
            raise PreconditionError("the budget limits no cost: give one, such as Budget(macs=0.5)")
        for name in budget.costs():
            if name not in original:
                if name not in measure:
                    raise PreconditionError(f"a {name} budget needs a measurement: pass measure={{{name!r}: model -> value}}, or "
                                            "run it through `lilliput compress`, which measures in ONNX Runtime")
                original[name] = measure[name](network)
        limits = budget.targets(original)
        for name, limit in limits.items():
            if limit > original[name]:
                raise BudgetError(f"the network is within {name} <= {limit:.6g} already ({original[name]:.6g}): nothing to factorize")
        return Target(limits=limits, measure=measure)

    @property
    def structural(self) -> tuple[str, ...]:
        """The costs to save: parameters where they or a size are limited, multiply-accumulates for anything else."""
        return tuple(dict.fromkeys("params" if name in ("params", "size") else "macs" for name in self.limits))

    def cost(self, costs: Mapping[str, float], network: Callable[[], nn.Module]) -> dict[str, float]:
        """Every limited cost; `network` makes what is measured, and is called only where it must be."""
        missing = [name for name in self.limits if name not in costs]
        small = network() if missing else None
        return {name: costs[name] if small is None or name in costs else self.measure[name](small) for name in self.limits}

    def met(self, costs: Mapping[str, float]) -> bool:
        """Whether no limit is exceeded."""
        return all(costs[name] <= limit for name, limit in self.limits.items())


def meet(costs: Costs, allocation: Allocation, target: Target, build: Callable[[Chosen], nn.Module]) -> Chosen:
    """The ranks of the least amount that meets the target.

    Raises `BudgetError`, saying what could be met, when even the lowest ranks cost too much.
    """
    path = allocation(costs.layers, costs.price(target.structural))

    def at(amount: float) -> tuple[Chosen, dict[str, float]]:
        chosen = path(amount)
        return chosen, target.cost(costs(chosen), lambda: build(chosen))

    best, least = at(1.0)
    if not target.met(least):
        worst = max(target.limits, key=lambda name: least[name] / target.limits[name])
        raise BudgetError(f"{worst} <= {target.limits[worst]:.6g} cannot be met: the least this factorization allows is "
                          f"{least[worst]:.6g}; ask for at least that, exclude fewer layers, or prune channels as well")
    low, high = 0.0, 1.0
    for _ in range(_EXACT_STEPS if all(name in costs.original for name in target.limits) else _MEASURED_STEPS):
        middle = (low + high) / 2
        chosen, found = at(middle)
        if target.met(found):
            high, best = middle, chosen
        else:
            low = middle
    return best
