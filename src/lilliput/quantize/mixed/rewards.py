"""What an episode of choosing widths earns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from lilliput.quantize.mixed.evaluator import Score
from lilliput.quantize.mixed.features import Features
from lilliput.quantize.mixed.task import Task


@dataclass(frozen=True)
class Outcome:
    """What an episode came to: the score, that of the float network, and the bits of every layer."""

    score: Score
    original: Score
    bits: tuple[int, ...]
    task: Task
    features: Features

    @property
    def kept(self) -> float:
        """Accuracy as a share of the original's; without classes the original's loss over this one's, at most 1."""
        if self.score.accuracy == self.score.accuracy:
            return self.score.accuracy / max(self.original.accuracy, 1e-9)
        return min(1.0, self.original.loss / max(self.score.loss, 1e-30))


class Reward(ABC):
    """What an episode earns."""

    @abstractmethod
    def __call__(self, outcome: Outcome) -> float:
        """The reward."""


@dataclass(frozen=True, kw_only=True)
class AccuracyKept(Reward):
    """`factor (accuracy - original accuracy)`, in points; without classes the share of the loss kept, times 100.

    (wang2019haq)
    """

    factor: float = 0.1

    def __call__(self, outcome: Outcome) -> float:
        """The reward."""
        if outcome.score.accuracy == outcome.score.accuracy:
            return self.factor * (outcome.score.accuracy - outcome.original.accuracy)
        return self.factor * 100 * (outcome.kept - 1)


@dataclass(frozen=True, kw_only=True)
class ShapedReward(Reward):
    """`(1 - q^a) max(s, t)^(b / max(s, t))`, or -1 where `s` falls below the threshold `t`.

    `s` is the share of the original accuracy that is kept, `q` the cost of the bits as a share of the widest's: weights
    fetched, each costing `memory` times an operation, and multiply-accumulates. Constants as remembered from the paper; the
    ratio of the energies of a memory access and of an operation is the least certain of them. (elthakeb2018releq)
    """

    a: float = 0.2
    b: float = 0.4
    threshold: float = 0.4
    memory: float = 120.0

    def __call__(self, outcome: Outcome) -> float:
        """The reward."""
        kept = outcome.kept
        if kept < self.threshold:
            return -1.0
        work = np.array([layer.count for layer in outcome.task.layers]) * self.memory + outcome.features.macs
        share = float((work * np.array(outcome.bits)).sum() / (work.sum() * outcome.task.widths.weights[-1]))
        return float((1 - share**self.a) * kept ** (self.b / kept))
