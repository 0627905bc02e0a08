"""Evaluation of many candidates: the float network with other weights, on samples that are read once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lilliput.data.drawing import labelled_batches
from lilliput.train.evaluate import device_of
from lilliput.train.losses import Loss, loss_of

_BATCH = 128


class Score(NamedTuple):
    """Mean loss of the task, and top-1 accuracy in percent (NaN for data without classes)."""

    loss: float
    accuracy: float


def batches_of(split: Any, samples: int, *, size: int = _BATCH,
               device: torch.device | None = None) -> list[tuple[Tensor, Tensor]]:
    """`samples` samples from all over a split, on `device`; raises `DataError` where there are none."""
    return [(inputs.to(device), targets.to(device)) for inputs, targets in labelled_batches(split, samples, size)]


@dataclass(frozen=True)
class Evaluator:
    """Runs a network with some parameters replaced; activations, the same for all candidates, stay in floating point."""

    network: nn.Module
    batches: list[tuple[Tensor, Tensor]]
    loss: Loss
    classes: bool

    @staticmethod
    def of(network: nn.Module, data: Any, samples: int) -> Evaluator:
        """On up to `samples` samples of `data.val`, where choices are made."""
        return Evaluator(network, batches_of(data.val, samples), loss_of(data), bool(data.num_classes))

    def outputs(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        """The network's outputs with `weights`, by name, in place of its own, batch by batch."""
        device = device_of(self.network)
        with torch.no_grad():
            moved = {name: weight.to(device) for name, weight in weights.items()}
            return [functional_call(self.network, moved, (inputs.to(device),)) for inputs, _ in self.batches]

    def __call__(self, weights: Mapping[str, Tensor]) -> Score:
        """Loss and accuracy with `weights`, by name, in place of the network's own."""
        total, hits, count, samples = 0.0, 0, 0, 0
        for outputs, (_, targets) in zip(self.outputs(weights), self.batches, strict=True):
            targets = targets.to(outputs.device)
            total, samples = total + float(self.loss(outputs, targets)) * len(targets), samples + len(targets)
            if self.classes:
                hits, count = hits + int((outputs.argmax(-1) == targets).sum()), count + targets.numel()
        return Score(total / samples, 100 * hits / count if self.classes else math.nan)
