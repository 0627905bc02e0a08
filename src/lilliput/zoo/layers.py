"""What several families share."""

from __future__ import annotations

from torch import nn

from lilliput.core.errors import PreconditionError


def head(features: int, num_classes: int) -> nn.Linear:
    """The last layer of a classifier; raises `PreconditionError` without classes."""
    if num_classes < 1:
        raise PreconditionError(f"a classifier needs at least one class, not num_classes={num_classes}; "
                                "for data without classes take the autoencoder, or a model with one output for each target")
    return nn.Linear(features, num_classes)


def divisible(channels: float, by: int = 8) -> int:
    """The multiple of `by` nearest to `channels`, at least `by`, and never below 90% of `channels` [sandler2018mobilenetv2]."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


def scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, as a multiple of 8; raises `PreconditionError` for a width that is not positive."""
    if not 0 < width <= 16:
        raise PreconditionError(f"the width multiplier must lie in 0 to 16, not {width}")
    return divisible(channels * width)


def initialise_(model: nn.Module) -> None:
    """Draw convolution weights for variance-preserving ReLU layers [he2015delving]; norms start as identity."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
