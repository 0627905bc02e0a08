"""Trials: choices of what to keep, fitted to a budget and scored as they are, without training."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.core.errors import DataError, PreconditionError
from lilliput.data.drawing import labelled_batches
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.allocation import Scores
from lilliput.prune.fitting import Target, meet
from lilliput.prune.sensitivity import masked_
from lilliput.prune.units import Plan
from lilliput.train import Loss, loss_of
from lilliput.train.evaluate import device_of
from lilliput.train.recalibrate import batch_statistics_

Floats = NDArray[np.float64]
_BATCH = 128
_WORST = 1e30  # in place of what is no number, so that scores can be compared


class Score(NamedTuple):
    """Mean loss of the task, and the share of samples that are taken for another class; of data without classes the loss again."""

    loss: float
    error: float


@dataclass(frozen=True)
class Along:
    """From nothing over these shares `s`, the whole's sparsity being their mean `m`, to all that may go.

    `s a / m` up to an amount `a = m`, then `s + (1 - s) (a - m) / (1 - m)`; means count units. Equal shares give every amount as it is.
    """

    shares: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def __call__(self, scores: Scores, amount: float) -> Floats:
        """Shares at an amount."""
        middle = np.asarray(self.shares, dtype=np.float64)
        mean = mean_share(scores, self.shares)
        if amount <= mean:
            return middle * (amount / mean) if mean > 0 else np.zeros_like(middle)
        return middle + (1 - middle) * ((amount - mean) / (1 - mean))

    def told(self, plan: Plan, keep: Sequence[Keep]) -> tuple[str, ...]:  # noqa: ARG002
        """The notes."""
        return self.notes


@dataclass(frozen=True)
class Exactly(Along):
    """These shares at every amount from their mean on, but all that may go at 1: a budget above what they cost is left unused."""

    def __call__(self, scores: Scores, amount: float) -> Floats:
        """Shares at an amount."""
        chosen = np.asarray(self.shares, dtype=np.float64)
        return chosen * float(amount >= mean_share(scores, self.shares)) if amount < 1 else np.ones_like(chosen)


def mean_share(scores: Scores, shares: Sequence[float]) -> float:
    """The share of all units that these shares of groups are."""
    sizes = [np.size(s) for s in scores]
    return float(np.dot(sizes, shares)) / sum(sizes)


@dataclass(frozen=True)
class Trials:
    """A network whose units are silenced, on samples that are read once; batch norms take their statistics from each batch of them.

    Statistics are estimated anew at the end of pruning, or by training: a choice that looks bad only by the old ones is not.
    """

    plan: Plan
    scores: Scores
    target: Target
    network: Traced
    batches: list[tuple[Tensor, Tensor]]
    loss: Loss
    classes: bool

    @staticmethod
    def of(plan: Plan, scores: Scores, target: Target, traced: Traced, data: Any, *, samples: int) -> Trials:
        """On up to `samples` samples of `data.val`; raises `PreconditionError` without data."""
        if data is None:
            raise PreconditionError("choices are scored on validation samples: pass data=")
        device = device_of(traced)
        batches = [(x.to(device), y.to(device)) for x, y in labelled_batches(data.val, samples, _BATCH) if len(x) > 1]
        if not batches:
            raise DataError("choices are scored on batches of at least two samples: pass data with a larger validation split")
        network = copy.deepcopy(traced)
        batch_statistics_(network)
        return Trials(plan, scores, target, network, batches, loss_of(data), bool(data.num_classes))

    def kept(self, shares: Sequence[float]) -> list[Keep]:
        """What these shares keep, as they are."""
        return self.plan.keep(list(self.scores), np.clip(np.asarray(shares, dtype=np.float64), 0.0, 1.0))

    def fitted(self, shares: Sequence[float]) -> list[float]:
        """Those `Along` these shares that just meet the budget, then with units given back, from the first group on, as long as it is met.

        Raises `BudgetError` where nothing meets it. Budgets that have to be measured get no units back.
        """
        keep = meet(self.plan, list(self.scores), Along(tuple(shares)), self.target, self.network)[1]
        found = [1 - float(kept.mean()) for kept in keep]
        if self.target.structural(self.plan):
            for group, kept in enumerate(keep):
                found[group] = self._given_back(found, group, int((~kept).sum()), len(kept))
        return found

    def _given_back(self, shares: list[float], group: int, removed: int, units: int) -> float:
        """The least share of one group with which the budget is met; as it is where that is none."""
        low, high = -1, removed
        while high - low > 1:
            middle = (low + high) // 2
            if self.met(self.kept([*shares[:group], middle / units, *shares[group + 1:]])):
                high = middle
            else:
                low = middle
        return high / units

    def met(self, keep: list[Keep]) -> bool:
        """Whether a choice is within the budget; what structure does not tell is measured."""
        return self.target.met(self.target.cost(self.plan, keep, lambda: self.plan.apply(keep, self.network)))

    def score(self, keep: Sequence[Keep]) -> Score:
        """Of the network with all else silenced and the weights as they are."""
        total, wrong, count, samples = 0.0, 0, 0, 0
        with torch.no_grad(), masked_(self.network, self.plan.masks(keep)):
            for inputs, targets in self.batches:
                outputs: Tensor = self.network(inputs)
                total, samples = total + float(self.loss(outputs, targets)) * len(targets), samples + len(targets)
                if self.classes:
                    wrong, count = wrong + int((outputs.argmax(-1) != targets).sum()), count + targets.numel()
        loss = total / samples if math.isfinite(total) else _WORST
        return Score(loss, wrong / count if self.classes else loss)


def saved(whole: dict[str, float], cost: dict[str, float], target: Target) -> float:
    """Of what has to be saved to meet the budget, the share that is, where the least is; at most 1."""
    return min(min((whole[name] - cost[name]) / max(whole[name] - limit, 1e-12), 1.0) for name, limit in target.limits.items())
