"""Binary weights and activations: the sign, with a straight-through estimator that is clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.quantize.calibrate import constants
from lilliput.quantize.estimators import mean_magnitude
from lilliput.quantize.levels import Binary
from lilliput.quantize.op import along
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.simulations.base import OnGrid, leave_, positive, replaced
from lilliput.train import Hook, State


def _check(quantizer: Quantizer) -> Binary:
    if not isinstance(quantizer.grid, Binary):
        raise PreconditionError(f"{quantizer.layer}: signs need the grid Binary(), not {quantizer.grid}; pass it in the scheme")
    return quantizer.grid


class Signs(OnGrid):
    """`sign(x)`, with `sign(0) = 1`; the gradient passes where `|x| <= 1` (`clip`), or everywhere."""

    def __init__(self, grid: Binary, scale: Tensor, *, clip: bool) -> None:
        super().__init__(grid)
        self.clip = clip
        self.register_buffer("ones", torch.ones_like(scale), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The signs."""
        return replaced(x.clamp(-1, 1) if self.clip else x, self.nearest(x, self.get_buffer("ones")))

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """Scale 1."""
        leave_(quantizer, self.get_buffer("ones"))
        return None if tensor is None else self(tensor)


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Values become their signs, -1 and 1; gradients pass where `|x| <= 1`, or for weights everywhere.

    Weights need the hook `Bounded` beside it, which keeps them in [-1, 1]. (courbariaux2016bnn)
    """

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install `Signs`."""
        quantizer.simulation = Signs(_check(quantizer), quantizer.scale.detach(), clip=tensor is None)


class _FilterSign(torch.autograd.Function):
    """`a sign(w)` with the gradient `g (1 / n + a [|w| < 1])`, for `n` weights to a filter."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, value: Tensor, scale: Tensor, count: float) -> Tensor:
        ctx.save_for_backward(w, scale)
        ctx.count = count
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        w, scale = ctx.saved_tensors
        return grads[0] * (1 / ctx.count + scale * (w.abs() < 1)), None, None, None


class ScaledSigns(OnGrid):
    """`a sign(w)`, `a = E|w|` of each filter, after the mean over input channels is taken off the weight."""

    def centred(self, w: Tensor) -> Tensor:
        """The weight less its mean over the inputs of each filter; depthwise filters, which have one input, stay."""
        axis = self.grid.axis
        inputs = 1 if axis in (0, None) else 0
        return w if w.ndim < 2 or w.shape[inputs] == 1 else w - w.mean(inputs, keepdim=True)

    def forward(self, w: Tensor) -> Tensor:
        """The scaled signs."""
        w = self.centred(w)
        scale = positive(mean_magnitude(w, self.grid.axis))
        spread = along(scale, w, -1 if self.grid.axis is None else self.grid.axis)
        count = w.numel() / scale.numel()
        result: Tensor = _FilterSign.apply(w, self.nearest(w, scale), spread, count)  # type: ignore[no-untyped-call]
        return result

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The scales of the weight as it is last."""
        assert tensor is not None
        leave_(quantizer, positive(mean_magnitude(self.centred(tensor), self.grid.axis)))
        return self.forward(tensor)


@dataclass(frozen=True, kw_only=True)
class MeanSign:
    """Weights become `a sign(w)`, the least-squares scale `a = E|w|` of each filter; the gradient is that of the paper's section
    3.1.

    `dL/dw = dL/dq (1 / n + a [|w| < 1])`. As in the authors' code each filter is centred over its inputs first, so that both
    signs are frequent. (rastegari2016xnor)
    """

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install `ScaledSigns` on a weight."""
        if tensor is None:
            raise PreconditionError(f"{quantizer.layer}: the scales of filters are for weights; give activations Sign()")
        quantizer.simulation = ScaledSigns(_check(quantizer))


class Bounded(Hook):
    """Keeps the real-valued weights behind signs in [-1, 1] after every step, where further growth would only delay a change of
    sign.

    (courbariaux2016bnn)
    """

    def __repr__(self) -> str:
        return "Bounded()"

    def step(self, state: State) -> None:
        """Clamp, in place."""
        with torch.no_grad():
            for quantizer, tensor in constants(state.model):  # type: ignore[arg-type]
                if isinstance(quantizer.simulation, Signs | ScaledSigns):
                    tensor.clamp_(-1, 1)


