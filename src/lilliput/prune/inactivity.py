"""Channels that a batch norm and the activation behind it shut: how likely one is, and training that shuts more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.graph.rules import scaled_norms
from lilliput.prune.criteria import Layer
from lilliput.prune.statistics import Statistic, Stats, Tensors
from lilliput.train import Batch, Fit, Hook, State


def active_chance(scale: Tensor, shift: Tensor) -> Tensor:
    """`P(x > 0) = Phi(beta / |gamma|)` of `x ~ N(beta, gamma^2)`, which a batch norm gives; where `gamma` is 0, whether `beta > 0`. (kang2020scp)"""
    size = scale.abs()
    constant = size < 1e-12
    return torch.where(constant, (shift > 0).to(shift), torch.special.ndtr(shift / torch.where(constant, torch.ones_like(size), size)))


@dataclass(frozen=True)
class NormShift:
    """The shift `beta` of every batch norm that has one, by the name of its scale `gamma`."""

    on_data: ClassVar[bool] = False

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:  # noqa: ARG002
        """The parameters as they are."""
        return {scale: traced.tensor(shift).detach() for scale, shift in norms(traced)}


def norms(traced: Traced) -> list[tuple[str, str]]:
    """Names of scale and shift of the batch norms that have both."""
    pairs = [(scale, node.args[2]) for scale, node in scaled_norms(traced)]
    return list(dict.fromkeys((scale, str(shift.target)) for scale, shift in pairs if isinstance(shift, fx.Node)))


@dataclass(frozen=True)
class ActiveChance:
    """The probability that a channel is positive in front of its activation. (kang2020scp)

    The paper speaks of channels between one batch norm and one ReLU; where several batch norms share a channel (a residual sum) it is the mean.
    """

    roles: ClassVar[frozenset[str]] = frozenset({"norm"})
    needs: ClassVar[frozenset[Statistic]] = frozenset([NormShift()])

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores; larger matters more. Raises `PreconditionError` where channels have no batch norm."""
        shift = stats[NormShift()].get(layer.name) if layer.role == "norm" else None
        if shift is None:
            raise PreconditionError(f"{layer.name} is followed by no batch norm with scale and shift: exclude that layer")
        return active_chance(layer.weight, shift)


class SoftMasks(Hook):
    """Channels times random soft masks `m = sigmoid((logit p + noise) / temperature)`, `p` their chance to be active. (kang2020scp)

    `noise` is logistic, so that `m` is a binary concrete (Gumbel softmax) variable. A mask on what a batch norm gives is a factor on its scale
    and shift, which are replaced for the pass and put back with their own gradients: through the masks, and of the penalty
    `strength * sum p`. Validation sees the network without masks. The paper's own penalty is not known to us: this is its expected
    number of active channels. It trains from scratch; here the network may be trained already.
    """

    def __init__(self, names: tuple[tuple[str, str], ...], strength: float, temperature: float) -> None:
        self.names, self.strength, self.temperature = names, strength, temperature
        self._raw: list[tuple[Tensor, Tensor]] = []
        self._masked: list[Tensor] = []

    def batch(self, state: State, batch: Batch) -> Batch:
        """Draw masks and put them on."""
        self._raw, self._masked = [], []
        for scale, shift in self._pairs(state.model):
            with torch.enable_grad():
                raw = tuple(p.detach().clone().requires_grad_() for p in (scale, shift))
                chance = active_chance(*raw).clamp(1e-6, 1 - 1e-6)
                uniform = torch.rand_like(chance).clamp(1e-6, 1 - 1e-6)
                mask = torch.sigmoid((chance.logit() + uniform.logit()) / self.temperature)
                self._masked += [raw[0] * mask, raw[1] * mask]
            self._raw.append((raw[0], raw[1]))
            with torch.no_grad():
                scale.copy_(self._masked[-2])
                shift.copy_(self._masked[-1])
        return batch

    def gradients(self, state: State) -> None:
        """Put the parameters back, with gradients of their own."""
        slots = [p for pair in self._pairs(state.model) for p in pair]
        raw = [p for pair in self._raw for p in pair]
        outer = [torch.zeros_like(p) if p.grad is None else p.grad for p in slots]
        with torch.enable_grad():
            penalty = torch.stack([active_chance(*pair).sum() for pair in self._raw]).sum() * self.strength
        found = torch.autograd.grad([*self._masked, penalty], raw, [*outer, torch.ones_like(penalty)])
        with torch.no_grad():
            for parameter, before, slope in zip(slots, raw, found, strict=True):
                parameter.copy_(before)
                parameter.grad = slope

    def _pairs(self, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
        tensors = dict(model.named_parameters())
        return [(tensors[scale], tensors[shift]) for scale, shift in self.names]


@dataclass(frozen=True, kw_only=True)
class SoftChannels:
    """Training before pruning under soft channel masks, with a penalty on channels that are likely to be active. (kang2020scp)"""

    fit: Fit = field(default_factory=Fit)
    strength: float = 1e-2
    temperature: float = 0.5

    def hooks(self, traced: Traced) -> tuple[Hook, ...]:
        """Raises `PreconditionError` where there is no batch norm."""
        names = tuple(norms(traced))
        if not names:
            raise PreconditionError("soft channel masks follow batch norms, and this network has no batch norm: pass one that has")
        return (SoftMasks(names, self.strength, self.temperature),)
