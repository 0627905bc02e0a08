"""PACT: activations clipped at a learned height."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.grids import Integer
from lilliput.quantize.op import fake_quantize
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.simulations.base import OnGrid, leave_, one_sided, replaced


class _Decayed(torch.autograd.Function):
    """Identity whose gradient has `rate` times the value added: the gradient of `rate a^2 / 2` in the loss."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, rate: float) -> Tensor:
        ctx.save_for_backward(a)
        ctx.rate = rate
        return a.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] + ctx.rate * ctx.saved_tensors[0], None


class Clip(OnGrid):
    """What learned clips have in common: the height `top`, a parameter, and the step `top / qmax` that comes of it."""

    grid: Integer

    def __init__(self, grid: Integer, top: Tensor, decay: float) -> None:
        super().__init__(grid)
        self.top = nn.Parameter(top.detach().clone())
        self.decay = decay

    @property
    def limited(self) -> list[nn.Parameter]:
        """The height."""
        return [self.top]

    def height(self) -> Tensor:
        """The clip, pulled to zero by the weight decay."""
        result: Tensor = _Decayed.apply(self.top, self.decay) if self.decay else self.top  # type: ignore[no-untyped-call]
        return result

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """The step as it is last."""
        leave_(quantizer, self.top / self.grid.qmax)
        return None


class HeightGradient(Clip):
    """`dy/da` is 1 where `x >= a`, and 0 elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        """Clip, then round."""
        height = self.height()
        return replaced(torch.where(x >= height, height, x.relu()), self.nearest(x, self.top / self.grid.qmax))


class CalibratedGradient(Clip):
    """`dy/da` is 1 where `x >= a`, and `q(x / a) - x / a` below, the rounding's share."""

    def forward(self, x: Tensor) -> Tensor:
        """Clip, then round."""
        step = self.height() / self.grid.qmax
        result: Tensor = fake_quantize(x, step, torch.zeros_like(step, dtype=torch.int32), self.grid.qmin, self.grid.qmax, -1)
        return result


def _top(quantizer: Quantizer, decay: float) -> tuple[Integer, Tensor]:
    if decay < 0:
        raise RecipeError(f"decay of the clip must not be negative, not {decay!r}")
    if quantizer.weight or not one_sided(quantizer):
        raise PreconditionError(f"{quantizer.layer}: a clip from zero to its height is for activations that are never negative; "
                                "see Roles(signed=...)")
    assert isinstance(quantizer.grid, Integer)
    return quantizer.grid, quantizer.scale * quantizer.grid.qmax


@dataclass(frozen=True, kw_only=True)
class LearnedClip:
    """Activations become `round(clip(x, 0, a) n / a) a / n`, `n = 2^k - 1`, with `dL/da` the sum of `dL/dy` over what is clipped.

    `a` starts at the calibrated range and has an L2 penalty of its own, `decay`, without which it does not come down.
    (choi2018pact)
    """

    decay: float = 5e-4

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:  # noqa: ARG002
        """Install the clip."""
        quantizer.simulation = HeightGradient(*_top(quantizer, self.decay), self.decay)


@dataclass(frozen=True, kw_only=True)
class CalibratedClip:
    """The same with the gradient of what is computed, rounding included: `dy/da = q(x / a) - x / a` below the clip. (jin2020sat)
    """

    decay: float = 5e-4

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:  # noqa: ARG002
        """Install the clip."""
        quantizer.simulation = CalibratedGradient(*_top(quantizer, self.decay), self.decay)
