"""Optimizers as data: frozen settings that build a torch optimizer for given parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from lilliput.core.errors import PreconditionError, RecipeError


class Optimizer(Protocol):
    """Settings with a learning rate that build a torch optimizer."""

    @property
    def lr(self) -> float:
        """The learning rate before the schedule's factor."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer for those parameters that need a gradient."""


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float, decay_vectors: bool) -> list[dict[str, Any]]:
    """Trainable parameters in groups with and without weight decay.

    Parameters of at most one dimension (biases, norm scales, quantizer steps, gates) decay only with `decay_vectors`:
    pulling them to zero changes the function rather than its complexity. Raises `PreconditionError` when none is trainable.
    """
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        raise PreconditionError("no parameter requires a gradient: unfreeze some with requires_grad_(True)")
    decayed = [p for p in trainable if decay_vectors or p.ndim > 1]
    kept = [p for p in trainable if not decay_vectors and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _check(lr: float, weight_decay: float) -> None:
    if not 0 < lr < float("inf"):
        raise RecipeError(f"lr must be positive and finite, not {lr!r}")
    if not 0 <= weight_decay < float("inf"):
        raise RecipeError(f"weight_decay must not be negative, not {weight_decay!r}")


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum: `v <- m v + g + wd w`, `w <- w - lr v` (Nesterov: `w - lr (g + m v)`)."""

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True
    decay_vectors: bool = False

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay)
        if not 0 <= self.momentum < 1:
            raise RecipeError(f"momentum lies in [0, 1), not {self.momentum!r}")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer; parameters that need no gradient are left out."""
        groups = parameter_groups(parameters, self.weight_decay, self.decay_vectors)
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov and self.momentum > 0)


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    decay_vectors: bool = False

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise RecipeError(f"betas are two numbers in [0, 1), not {self.betas!r}")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer; parameters that need no gradient are left out."""
        groups = parameter_groups(parameters, self.weight_decay, self.decay_vectors)
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps)
