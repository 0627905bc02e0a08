"""Loss scaling: gradients large enough for a narrow format on their way back, and steps left out where they overflow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.train import DivergenceError, Hook, State

# Gradients that overflow at this scale are not finite in any other way either.
_LEAST = 2.0**-20


@dataclass(frozen=True, kw_only=True)
class LossScale:
    """A factor on the loss's gradient: `initial`, halved (`backoff`) after an overflow, doubled (`growth`) after `interval`
    steps without one; None for a factor that only falls. (micikevicius2018mixed)
    """

    initial: float = 2.0**15
    growth: float = 2.0
    backoff: float = 0.5
    interval: int | None = 2000

    def __post_init__(self) -> None:
        spaced = self.interval is None or self.interval > 0
        if not (0 < self.initial < math.inf and self.growth > 1 and 0 < self.backoff < 1 and spaced):
            raise RecipeError("a loss scale has a positive initial value, growth above 1, backoff between 0 and 1, and a positive "
                              f"interval or None, not {self!r}")


class _Amplify(torch.autograd.Function):
    """Identity whose gradient is multiplied by `factor`: the loss itself stays what is reported."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


class ScaleLoss(Hook):
    """Scales on the way back, unscales before the hooks after it and the optimizer see the gradients.

    A step whose gradients are not all finite is left out: its gradients become None, so that neither weights nor momenta
    move. `history` gains `loss_scale` and `skipped_steps` (of the epoch). Pass it before other hooks.
    """

    def __init__(self, settings: LossScale = LossScale()) -> None:
        self.settings = settings
        self.scale, self.calm, self.skipped = settings.initial, 0, 0

    def __repr__(self) -> str:
        return f"ScaleLoss({self.settings})"

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:  # noqa: ARG002
        """The same loss, with a larger gradient."""
        result: Tensor = _Amplify.apply(loss, self.scale)  # type: ignore[no-untyped-call]
        return result

    def gradients(self, state: State) -> None:
        """Divide by the scale, or leave the step out; raises `DivergenceError` where no scale helps."""
        parameters = [p for p in state.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if all(bool(torch.isfinite(g).all()) for g in gradients):
            torch._foreach_div_(gradients, self.scale)
            self.calm += 1
            if self.settings.interval is not None and self.calm >= self.settings.interval:
                self.scale, self.calm = self.scale * self.settings.growth, 0
            return
        for parameter in parameters:
            parameter.grad = None
        self.scale, self.calm, self.skipped = self.scale * self.settings.backoff, 0, self.skipped + 1
        if self.scale < _LEAST:
            raise DivergenceError(f"the gradients of step {state.step + 1} are not finite at any loss scale: lower the learning rate, "
                                  "or train in a wider format")

    def epoch(self, state: State) -> None:
        """Report the scale and the steps left out."""
        state.history[-1] |= {"loss_scale": float(self.scale), "skipped_steps": float(self.skipped)}
        self.skipped = 0

    def state_dict(self) -> dict[str, Any]:
        """Scale and counts."""
        return {"scale": self.scale, "calm": self.calm, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Scale and counts."""
        self.scale, self.calm, self.skipped = float(state["scale"]), int(state["calm"]), int(state["skipped"])
