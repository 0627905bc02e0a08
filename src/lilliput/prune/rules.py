"""Rules of gates: which weights pass, as what, and with which gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lilliput.prune.gates import Gate


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG004
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grads[0], None


@dataclass(frozen=True)
class Feedback:
    """`w m`, its gradient going to all of `w`: what is masked keeps learning. (lin2020dpf, wortsman2019dnw)"""

    def start(self, weight: Tensor) -> Tensor | None:  # noqa: ARG002
        """Nothing."""
        return None

    def scores(self, weight: Tensor, gate: Gate) -> Tensor:  # noqa: ARG002
        """`|w|`."""
        return weight.abs()

    def values(self, weight: Tensor, gate: Gate) -> Tensor:
        """`w m`."""
        result: Tensor = _Masked.apply(weight, gate.mask)  # type: ignore[no-untyped-call]
        return result

    def penalty(self, gate: Gate) -> Tensor | None:  # noqa: ARG002
        """None."""
        return None


@dataclass(frozen=True, kw_only=True)
class Surgery:
    """As `Feedback`, with two thresholds: what passes is cut under `low * t`, what is cut comes back over `high * t`. (guo2016dns)

    Said by scores: `|w| / low` of what passes and `|w| / high` of what does not, with one threshold `t`.
    """

    low: float = 0.9
    high: float = 1.1

    def start(self, weight: Tensor) -> Tensor | None:  # noqa: ARG002
        """Nothing."""
        return None

    def scores(self, weight: Tensor, gate: Gate) -> Tensor:
        """Magnitudes that favour what passes."""
        return weight.abs() / torch.where(gate.mask > 0, self.low, self.high)

    def values(self, weight: Tensor, gate: Gate) -> Tensor:
        """`w m`."""
        return Feedback().values(weight, gate)

    def penalty(self, gate: Gate) -> Tensor | None:  # noqa: ARG002
        """None."""
        return None


@dataclass(frozen=True, kw_only=True)
class SoftThreshold:
    """`sign(w) relu(|w| - level sigmoid(s))` with one `s` for the layer. (kusupati2020str)

    The paper has no `level`: it comes to its sparsity by the decay of `s` and where `s` starts, far below zero. Here the budget
    sets the level, one for all layers; learned is how layers differ, so `s` starts where the sigmoid is steepest.
    """

    s: float = 0.0

    def start(self, weight: Tensor) -> Tensor | None:
        """`s`, a number."""
        return weight.new_full((), self.s)

    def scores(self, weight: Tensor, gate: Gate) -> Tensor:
        """`|w| / sigmoid(s)`."""
        return weight.abs() / gate.parameter.sigmoid()

    def values(self, weight: Tensor, gate: Gate) -> Tensor:
        """The shrunk weight."""
        return weight.sign() * torch.relu(weight.abs() - gate.level * gate.parameter.sigmoid())

    def penalty(self, gate: Gate) -> Tensor | None:  # noqa: ARG002
        """None."""
        return None


class _LongTailedStep(torch.autograd.Function):
    """1 over zero, else 0; the slope `2 - 4 |x|` up to `|x| = 0.4`, then 0.4 up to 1, then none. (liu2020dst)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        far = x.abs()
        return grads[0] * torch.where(far <= 0.4, 2 - 4 * far, torch.where(far <= 1, 0.4, 0.0).to(far))


def step(x: Tensor) -> Tensor:
    """The binary step with the long-tailed slope."""
    result: Tensor = _LongTailedStep.apply(x)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True, kw_only=True)
class TrainableThreshold:
    """`w step(|w| - t - level)` with a `t` for every neuron or filter; `strength * sum exp(-t)` drives them up. (liu2020dst)

    The paper has no `level`: its sparsity comes of the strength alone. Here the budget sets one for all layers; learned is how
    neurons differ.
    """

    strength: float = 1e-5

    def start(self, weight: Tensor) -> Tensor | None:
        """A zero for every slice along the first dimension."""
        return weight.new_zeros(weight.shape[0])

    def scores(self, weight: Tensor, gate: Gate) -> Tensor:
        """`|w| - t`."""
        return weight.abs() - gate.parameter.view(-1, *[1] * (weight.ndim - 1))

    def values(self, weight: Tensor, gate: Gate) -> Tensor:
        """The masked weight."""
        return weight * step(self.scores(weight, gate) - gate.level)

    def penalty(self, gate: Gate) -> Tensor | None:
        """`strength * sum exp(-t)`."""
        return self.strength * gate.parameter.neg().exp().sum()


@dataclass(frozen=True, kw_only=True)
class SigmoidGate:
    """`w sigmoid(beta (s - level)) / sigmoid(s_0)`, an `s` for every weight, `beta = sharpest^time`. (savarese2020continuous)

    `strength * sum sigmoid(beta (s - level))` drives gates to close. When `time` is 1 the gates under the level are shut. The
    paper has no `level`, its sparsity coming of the strength and of `s_0`; here the budget sets one for all layers. What stays
    open keeps the factor that its gate has by then, 1 over `sigmoid(s_0)` where it is saturated, as in the paper.
    """

    s: float = 0.0
    sharpest: float = 200.0
    strength: float = 1e-8

    def start(self, weight: Tensor) -> Tensor | None:
        """`s` for every weight, flat."""
        return weight.new_full((weight.numel(),), self.s)

    def scores(self, weight: Tensor, gate: Gate) -> Tensor:
        """`s`."""
        return gate.parameter.view(weight.shape)

    def values(self, weight: Tensor, gate: Gate) -> Tensor:
        """The weight through its gate."""
        whole = torch.sigmoid(weight.new_tensor(self.s))
        open_ = torch.where(gate.time >= 1, gate.mask, 1.0)
        return weight * self._opening(gate).view(weight.shape) * open_ / whole

    def penalty(self, gate: Gate) -> Tensor | None:
        """`strength * sum sigmoid(beta (s - level))`."""
        return self.strength * self._opening(gate).sum()

    def _opening(self, gate: Gate) -> Tensor:
        return torch.sigmoid(self.sharpest**gate.time * (gate.parameter - gate.level))
