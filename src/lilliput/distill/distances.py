"""Distances: a scalar loss from a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.distill.knowledge import Pair


class Distance(Protocol):
    """`pair -> scalar`, a mean over the samples."""

    def __call__(self, pair: Pair, /) -> Tensor:
        """The scalar."""
        ...


def kl_soft(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """`T^2 / N * sum_n KL(softmax(teacher_n / T) || softmax(student_n / T))` in nats, for logits (N, classes).

    The factor keeps the gradient's size as the temperature changes. Cites `hinton2015distilling`.

    >>> import torch
    >>> round(float(kl_soft(torch.zeros(1, 2), torch.log(torch.tensor([[0.75, 0.25]])), 1.0)), 4)
    0.1438
    """
    target = F.log_softmax(teacher / temperature, dim=1)
    guess = F.log_softmax(student / temperature, dim=1)
    return temperature**2 * F.kl_div(guess, target, reduction="batchmean", log_target=True)


@dataclass(frozen=True, kw_only=True)
class SoftKL:
    """Divergence of the softened class probabilities, `kl_soft` at a temperature."""

    temperature: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise RecipeError(f"temperature must be positive and finite, not {self.temperature!r}")

    def __call__(self, pair: Pair, /) -> Tensor:
        """The scalar."""
        return kl_soft(pair.teacher, pair.student, self.temperature)
