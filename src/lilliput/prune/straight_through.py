"""Rules of gates whose gradients pass what is masked, so that it can come back: to the weights, or to scores of their movement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lilliput.prune.gates import Gate


class _Refined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, strength: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.strength = strength
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        weight, mask = ctx.saved_tensors
        return grads[0] + ctx.strength * (1 - mask) * weight, None, None


class _Moving(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, mask = ctx.saved_tensors
        return grads[0] * mask, grads[0] * weight, None


@dataclass(frozen=True, kw_only=True)
class Refined:
    """`w m`; the gradient of all of `w` is that of `w m`, and `strength (1 - m) w` besides (Zhou 2021, `zhou2021srste`).

    The decay of what is masked keeps the masks from changing to and fro. A weight decay of the optimizer comes on top.
    """

    strength: float = 2e-4

    def start(self, weight: Tensor) -> Tensor | None:  # noqa: ARG002
        """Nothing."""
        return None

    def scores(self, weight: Tensor, gate: Gate) -> Tensor:  # noqa: ARG002
        """`|w|`."""
        return weight.abs()

    def values(self, weight: Tensor, gate: Gate) -> Tensor:
        """`w m`."""
        result: Tensor = _Refined.apply(weight, gate.mask, self.strength)  # type: ignore[no-untyped-call]
        return result

    def penalty(self, gate: Gate) -> Tensor | None:  # noqa: ARG002
        """None."""
        return None


@dataclass(frozen=True)
class Movement:
    """`w m`, scored by how training moves the weights: `s <- s - rate dL/d(w m) w`, masked ones too, from zero (Sanh 2020, `sanh2020movement`).

    A weight that grows gains, one that shrinks loses. `w` itself learns only where it passes. Scores are learned by the network's
    optimizer, one to a weight; over a block they are added up, which is the block's own movement (Lagunas 2021, `lagunas2021block`)
    under stochastic gradient descent, while an optimizer that scales gradients scales each weight's.
    """

    def start(self, weight: Tensor) -> Tensor | None:
        """Zeros, flat."""
        return weight.new_zeros(weight.numel())

    def scores(self, weight: Tensor, gate: Gate) -> Tensor:
        """`s`."""
        return gate.parameter.view(weight.shape)

    def values(self, weight: Tensor, gate: Gate) -> Tensor:
        """`w m`."""
        result: Tensor = _Moving.apply(weight, gate.parameter.view(weight.shape), gate.mask)  # type: ignore[no-untyped-call]
        return result

    def penalty(self, gate: Gate) -> Tensor | None:  # noqa: ARG002
        """None."""
        return None
