"""Range batch normalisation: a batch norm that divides by the range of the values instead of their deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.low_precision.casts import Cast, Unchanged, cast_both_ways


def range_deviation(x: Tensor, factor: float = 1.0) -> Tensor:
    """`factor * C(n) * (max x - min x)` for each row of `(rows, n)`, with `C(n) = 1 / sqrt(2 ln n)`. (banner2018int8)

    Of independent normal values the range is about `2 sigma sqrt(2 ln n)`, so that the factor 1/2 estimates `sigma`.
    """
    return factor / math.sqrt(2 * math.log(x.shape[1])) * (x.amax(1) - x.amin(1))


@dataclass(frozen=True, kw_only=True)
class RangeNorm:
    """`y = gain (x - m) / sqrt(d^2 + eps) + shift`, per channel, with `d` of `range_deviation`.

    The paper has `factor=1`, by which a normal input leaves with half the deviation of a batch norm; the default is 1/2, so
    that a network trained with batch norms keeps its function. `eps` stands under the root, and the running mean of `d^2` in
    place of the running variance, so that in evaluation this is an ordinary batch norm, which the trained network keeps.
    `activation` casts the input, `error` the error that comes back. (banner2018int8)
    """

    factor: float = 0.5
    activation: Cast = field(default_factory=Unchanged)
    error: Cast = field(default_factory=Unchanged)

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise RecipeError(f"factor is positive, not {self.factor!r}")


class RangeBatchNorm(nn.Module):
    """Stands in for a batch-norm node: takes its input and tensors, and writes the running statistics in place."""

    def __init__(self, name: str, settings: RangeNorm, momentum: float, eps: float) -> None:
        super().__init__()
        self.name, self.settings, self.momentum, self.eps = name, settings, momentum, eps

    def forward(self, x: Tensor, gain: Tensor | None, shift: Tensor | None, mean: Tensor, variance: Tensor) -> Tensor:
        """`(N, C, ...)`, normalised; raises `PreconditionError` for a training batch of one value a channel."""
        settings = self.settings
        x = cast_both_ways(x, settings.activation if self.training else settings.activation.nearest(), Unchanged())
        if self.training:
            rows = x.transpose(0, 1).flatten(1)
            if rows.shape[1] < 2:
                raise PreconditionError(f"{self.name} has one value a channel in this batch, and so no range: use a larger batch_size")
            center, squared = rows.mean(1), range_deviation(rows, settings.factor).square()
            with torch.no_grad():
                mean.lerp_(center.to(mean.dtype), self.momentum)
                variance.lerp_(squared.to(variance.dtype), self.momentum)
        else:
            center, squared = mean, variance
        shape = [-1 if dim == 1 else 1 for dim in range(x.ndim)]
        y = (x - center.reshape(shape)) * (squared + self.eps).rsqrt().reshape(shape)
        y = y if gain is None else y * gain.reshape(shape)
        y = y if shift is None else y + shift.reshape(shape)
        return cast_both_ways(y, Unchanged(), settings.error)
