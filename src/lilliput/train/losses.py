"""Losses of the task itself: `(outputs, targets) -> scalar`, the mean over the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from lilliput.core.errors import PreconditionError, RecipeError


class Loss(Protocol):
    """`(outputs (N, ...), targets (N, ...)) -> scalar`, a mean over the samples."""

    def __call__(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """The scalar."""


def _check_one(outputs: object) -> None:
    if not isinstance(outputs, Tensor):
        raise PreconditionError(f"the network returns a {type(outputs).__name__}, and this loss takes one tensor: return that alone, "
                                "or pass fit a loss of your own that picks it")


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross entropy of `outputs` (N, ..., classes) with integer `targets` (N, ...), optionally with smoothed labels.

    More than one target to a sample (the next token at every position) counts each the same.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise RecipeError(f"label_smoothing lies in [0, 1), not {self.label_smoothing!r}")

    def __call__(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """The scalar."""
        _check_one(outputs)
        if outputs.ndim > 2 and outputs.shape[:-1] == targets.shape:
            outputs, targets = outputs.flatten(0, -2), targets.flatten()
        return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class MeanSquaredError:
    """Mean of `(outputs - targets)^2` over all elements; both of one shape."""

    def __call__(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """The scalar."""
        _check_one(outputs)
        return F.mse_loss(outputs, targets.to(outputs.dtype))


def loss_of(data: Any) -> Loss:
    """What training minimises unless it is told otherwise: cross entropy for data with classes, else mean squared error."""
    return CrossEntropy() if data.num_classes else MeanSquaredError()
