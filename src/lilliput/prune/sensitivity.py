"""Sensitivity: what each group's removal alone costs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.prune.hooks import apply_masks_
from lilliput.prune.units import Plan
from lilliput.train import Dataset, evaluating, loss_of


@contextmanager
def masked_(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Silence what masks remove, in place, and take it back afterwards."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    before = {name: tensors[name].detach().clone() for name in masks}
    apply_masks_(model, masks)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                tensors[name].copy_(value)


def sensitivity(plan: Plan, keep: Sequence[Keep], traced: Traced, data: Dataset, *, batches: int = 2) -> list[float]:
    """Rise of the mean validation loss when only one group loses what `keep` removes from it, per group.

    Cross entropy in nats for data with classes, squared error otherwise; on `batches` batches of 128 samples from all over the
    split, without recovery. Removed channels are silenced, so nothing is traced anew.
    """
    samples = list(data.val.head(batches * 128).batches(128))
    model, measure = copy.deepcopy(traced), loss_of(data)

    def loss() -> float:
        total, count = 0.0, 0
        for inputs, targets in samples:
            outputs: Tensor = model(inputs)
            total, count = total + float(measure(outputs, targets)) * len(inputs), count + len(inputs)
        return total / count

    everything, rises = plan.everything(), []
    with torch.no_grad(), evaluating(model):
        base = loss()
        for index, kept in enumerate(keep):
            if kept.all():
                rises.append(0.0)
                continue
            masks = plan.masks([kept if i == index else whole for i, whole in enumerate(everything)])
            with masked_(model, masks):
                rises.append(loss() - base)
    return rises
