"""Ternary weights: a threshold, and one scale or one for each sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.estimators import mean_magnitude
from lilliput.quantize.levels import Ternary
from lilliput.quantize.op import along
from lilliput.quantize.quantizer import Quantizer, Simulation
from lilliput.quantize.simulations.base import leave_, positive, replaced


def _check(quantizer: Quantizer, tensor: Tensor | None) -> Tensor:
    if tensor is None or not isinstance(quantizer.grid, Ternary):
        raise PreconditionError(f"{quantizer.layer}: ternary estimators are for weights on the grid Ternary(), not "
                                f"{quantizer.grid}; see the scheme")
    return tensor


def ternary_scale(w: Tensor, factor: float, axis: int | None) -> tuple[Tensor, Tensor]:
    """Threshold `d = factor E|w|` and scale `a = E(|w| : |w| > d)`, each `()` or `(channels,)`.

    With `factor = 0.7` close to the scale and threshold of least squared error for normal and uniform weights. (li2016twn)
    """
    threshold = factor * mean_magnitude(w, axis)
    magnitude = w.detach().float().abs()
    kept = magnitude > along(threshold, w, -1 if axis is None else axis)
    dims = [dim for dim in range(w.ndim) if dim != axis]
    return threshold, positive((magnitude * kept).sum(dims) / kept.sum(dims).clamp(min=1)).reshape(threshold.shape)


class Thresholded(Simulation):
    """`a sign(w) [|w| > d]` with threshold and scale of `ternary_scale`, afresh in every step; the gradient passes unchanged."""

    def __init__(self, axis: int | None, factor: float) -> None:
        super().__init__()
        self.axis, self.factor = axis, factor

    def forward(self, w: Tensor) -> Tensor:
        """The three values."""
        threshold, scale = (along(t, w, -1 if self.axis is None else self.axis) for t in ternary_scale(w, self.factor, self.axis))
        kept = w.detach().abs() > threshold
        return replaced(w, w.detach().sign() * kept * scale)

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The scale of the weight as it is last."""
        assert tensor is not None
        leave_(quantizer, ternary_scale(tensor, self.factor, self.axis)[1])
        return self.forward(tensor)


@dataclass(frozen=True, kw_only=True)
class TernaryThreshold:
    """Weights become `{-a, 0, a}`: zero up to `factor E|w|`, beyond it the mean magnitude `a` of what lies there. (li2016twn)"""

    factor: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.factor < 2:
            raise RecipeError(f"factor of the mean magnitude lies between 0 and 2, not {self.factor!r}")

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install `Thresholded`."""
        _check(quantizer, tensor)
        quantizer.simulation = Thresholded(quantizer.grid.axis, self.factor)


class _TwoScales(torch.autograd.Function):
    """`p` where the code is 1, `-n` where it is -1; gradients to `p`, `n` and the weight as in the paper's equations 7 and 8."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, codes: Tensor, scales: Tensor, value: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(codes, scales)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor, None]:
        codes, scales = ctx.saved_tensors
        grad, positive_, negative = grads[0], codes > 0, codes < 0
        to_scales = torch.stack([(grad * positive_).sum(), -(grad * negative).sum()])
        return grad * torch.where(positive_, scales[0], torch.where(negative, scales[1], 1.0)), None, to_scales, None


class TwoScales(Simulation):
    """Two learned scales of a whole weight, and a threshold at the share `share` of the largest magnitude."""

    whole = False

    def __init__(self, start: Tensor, share: float) -> None:
        super().__init__()
        self.share = share
        self.scales = nn.Parameter(start)

    @property
    def limited(self) -> list[nn.Parameter]:
        """Both scales."""
        return [self.scales]

    def table(self) -> tuple[Tensor, Tensor]:
        """The larger scale, and the levels relative to it."""
        values = positive(self.scales.detach())
        scale = values.max()
        return scale, torch.stack([-values[1], torch.zeros_like(scale), values[0]]) / scale

    def forward(self, w: Tensor) -> Tensor:
        """The three values."""
        magnitude = w.detach().abs()
        codes = (w.detach().sign() * (magnitude > self.share * magnitude.max())).long()
        scale, levels = self.table()
        result: Tensor = _TwoScales.apply(w, codes, self.scales, levels[codes + 1] * scale)  # type: ignore[no-untyped-call]
        return result

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The table of the two scales."""
        assert tensor is not None
        scale, levels = self.table()
        quantizer.grid = quantizer.grid.along(None)
        quantizer.tabulate(levels, (levels[1:] + levels[:-1]) / 2)
        leave_(quantizer, scale)
        return self.forward(tensor)


@dataclass(frozen=True, kw_only=True)
class TrainedTernary:
    """Weights become `{-n, 0, p}`, `p` and `n` learned for each layer; zero up to `share max|w|`.

    `dL/dp` is the sum of `dL/dq` over the weights at `p`, `dL/dn` less the sum over those at `-n` (the paper's equation 7 leaves
    out the sign that its equation 6 gives), and the weight's own gradient is `dL/dq` times `p`, 1 or `n`. The scales start at the
    mean magnitudes of what they stand for. (zhu2017ttq)
    """

    share: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise RecipeError(f"share of the largest magnitude lies in [0, 1), not {self.share!r}")

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install `TwoScales`."""
        w = _check(quantizer, tensor).detach().float()
        threshold = self.share * w.abs().max()
        start = torch.stack([side[side > threshold].sum() / (side > threshold).sum().clamp(min=1) for side in (w, -w)])
        quantizer.simulation = TwoScales(positive(start), self.share)
