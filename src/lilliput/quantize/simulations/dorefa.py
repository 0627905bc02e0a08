"""DoReFa: weights squashed by tanh onto evenly spaced levels without a zero; and the same, adjusted in scale (SAT)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.quantize.estimators import mean_magnitude
from lilliput.quantize.grids import SMALLEST_SCALE, Grid, Integer
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.simulations.base import OnGrid, leave_, positive, replaced


def squashed(w: Tensor) -> Tensor:
    """`tanh(w) / max |tanh(w)|`, the maximum over the whole weight; in [-1, 1]. (zhou2016dorefa)"""
    t = w.tanh()
    return t / t.abs().max().clamp(min=SMALLEST_SCALE)


def expanded(scale: Tensor, grid: Grid, w: Tensor) -> Tensor:
    """One scale of the whole weight as the grid has it: as it is, or the same for every channel."""
    return scale if grid.axis is None else scale.expand(w.shape[grid.axis]).contiguous()


class Squashed(OnGrid):
    """`s q(t)` for `t` of `squashed`, `q` the grid whose largest value is 1; rounding passes gradients unchanged.

    `s` is fixed at `max |tanh(w)|` of the weight at the start. With one bit `E|w| sign(w)`.
    """

    def __init__(self, grid: Grid, w: Tensor) -> None:
        super().__init__(grid)
        self.top = grid.qmax if isinstance(grid, Integer) else 1
        self.register_buffer("start", positive(w.detach().float().tanh().abs().max()))

    def reach(self, w: Tensor) -> Tensor:
        """The largest value, `()`."""
        return positive(mean_magnitude(w, None)) if self.grid.bits == 1 else self.get_buffer("start")

    def forward(self, w: Tensor) -> Tensor:
        """The levels."""
        reach = self.reach(w)
        smooth = w if self.grid.bits == 1 else squashed(w) * reach
        return replaced(smooth, self.nearest(smooth, expanded(reach / self.top, self.grid, w)))

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The scale of the weight as it is last."""
        assert tensor is not None
        leave_(quantizer, expanded(self.reach(tensor) / self.top, self.grid, tensor))
        return self.forward(tensor)


@dataclass(frozen=True, kw_only=True)
class TanhLevels:
    """Weights become `2 round(n (tanh(w) / (2 max |tanh w|) + 1 / 2)) / n - 1`, `n = 2^k - 1`, on the grid `BitPlanes`.

    Other grids have their own levels in place of those, which hold no zero. Departs from the paper in a factor, `max |tanh(w)|`
    of the weight at the start, which keeps what a trained layer without a batch norm computes; behind a batch norm it cancels,
    from the gradients too. (zhou2016dorefa)
    """

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install `Squashed` on a weight."""
        quantizer.simulation = Squashed(quantizer.grid, _weight(quantizer, tensor))


def _weight(quantizer: Quantizer, tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise PreconditionError(f"{quantizer.layer}: levels behind a tanh are for weights; give activations another estimator")
    return tensor


class ScaleAdjusted(Squashed):
    """`q(t) / sqrt(n var q(t))`, `n` the outputs times the positions of the kernel: gradients keep their variance from layer to
    layer.
    """

    def __init__(self, grid: Grid, w: Tensor) -> None:
        super().__init__(grid, w)
        inputs = 1 if grid.axis in (0, None) else 0
        self.fan_out = w.numel() / (w.shape[inputs] if w.ndim > 1 else 1)

    def reach(self, w: Tensor) -> Tensor:
        """`1 / sqrt(n var q)` of the weight as it is, without a gradient."""
        one = torch.full((), 1.0 / self.top, device=w.device)
        values = self.nearest(squashed(w.detach().float()), expanded(one, self.grid, w))
        return positive((self.fan_out * values.var(correction=0)).clamp(min=SMALLEST_SCALE).rsqrt())


@dataclass(frozen=True, kw_only=True)
class ScaleAdjustedLevels:
    """The levels of `TanhLevels`, divided by `sqrt(n var q)` of each weight, `n` its fan-out, so that training neither explodes
    nor fades.

    The paper's constant rescaling. It asks for it in layers without a batch norm; behind one the factor cancels, so that here
    every layer has it. (jin2020sat)
    """

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install `ScaleAdjusted` on a weight."""
        quantizer.simulation = ScaleAdjusted(quantizer.grid, _weight(quantizer, tensor))
