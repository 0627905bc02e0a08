"""Evaluation: top-1 accuracy, perplexity and mean squared error of a network on a split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lilliput.core.errors import DataError, PreconditionError
from lilliput.train.losses import CrossEntropy, Loss, MeanSquaredError
from lilliput.train.protocols import Split


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; on leaving every module has the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        # A traced network holds the flag in its graph, which only train() rewrites.
        model.train(modes[model])
        for module, mode in modes.items():
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Where the network's tensors are."""
    tensor = next(model.parameters(), next(model.buffers(), None))
    return torch.device("cpu") if tensor is None else tensor.device


def _outputs(model: nn.Module, split: Split, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    if len(split) == 0:
        raise DataError("the split to evaluate on is empty: choose a split with samples")
    device = device_of(model)
    with evaluating(model):
        for inputs, targets in split.batches(batch_size):
            yield model(inputs.to(device)), targets.to(device)


def _check_classes(outputs: Tensor, targets: Tensor) -> None:
    if outputs.ndim < 2 or outputs.shape[:-1] != targets.shape or targets.is_floating_point():
        raise PreconditionError("accuracy needs outputs (N, ..., classes) and integer targets (N, ...), not "
                                f"{tuple(outputs.shape)} and {tuple(targets.shape)} of {targets.dtype}: "
                                "use mean_squared_error for data without classes")
    if int(targets.max()) >= outputs.shape[-1]:
        raise PreconditionError(f"the network has {outputs.shape[-1]} outputs and the data a class {int(targets.max())}: "
                                "build the network with num_classes of the data")


def _hits(outputs: Tensor, targets: Tensor) -> int:
    _check_classes(outputs, targets)
    return int((outputs.argmax(-1) == targets).sum())


def evaluate(model: nn.Module, split: Split, *, batch_size: int = 256) -> float:
    """Top-1 accuracy in percent: `100 / N * sum(argmax f(x) == y)`, over all targets where a sample has several (tokens).

    Leaves the model's mode as it was. Raises `DataError` on an empty split, `PreconditionError` where the outputs
    are not classes, or fewer than the labels need.
    """
    hits = count = 0
    for outputs, targets in _outputs(model, split, batch_size):
        hits, count = hits + _hits(outputs, targets), count + targets.numel()
    return 100 * hits / count


def perplexity(model: nn.Module, split: Split, *, batch_size: int = 32) -> float:
    """`exp(-1/M sum log p(y | x))` over the `M` tokens of a split: that of a guess among so many equally likely ones.

    `model` gives scores `(N, T, V)`, `targets` `(N, T)` are the next token at every position. Logarithms are natural; `log2` of
    the result is in bits a token. Infinite beyond float64. Raises as `evaluate` does.
    """
    total, count = 0.0, 0
    for outputs, targets in _outputs(model, split, batch_size):
        _check_classes(outputs, targets)
        total, count = total + float(CrossEntropy()(outputs.double(), targets)) * targets.numel(), count + targets.numel()
    return float(torch.tensor(total / count, dtype=torch.float64).exp())


def mean_squared_error(model: nn.Module, split: Split, *, batch_size: int = 256) -> float:
    """Mean of `(f(x) - y)^2` over samples and elements, for data without classes."""
    return mean_loss(model, split, MeanSquaredError(), batch_size=batch_size)[0]


def mean_loss(model: nn.Module, split: Split, loss: Loss, *, batch_size: int = 256, classes: bool = False) -> tuple[float, float]:
    """Mean loss over the samples of a split, and top-1 accuracy in percent (NaN without `classes`)."""
    total, hits, count = 0.0, 0, 0
    for outputs, targets in _outputs(model, split, batch_size):
        hits += _hits(outputs, targets) if classes else 0
        count += targets.numel()
        total += float(loss(outputs, targets)) * len(targets)
    return total / len(split), 100 * hits / count if classes else float("nan")
