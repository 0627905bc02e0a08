"""A scientific control: channels that hold their own against what they say of other samples matter."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.graph.coupling import Coupling
from lilliput.graph.fold import CONVOLUTIONS
from lilliput.graph.rules.base import op_name
from lilliput.graph.weights import weight_name
from lilliput.prune.criteria import Layer
from lilliput.prune.maps import Tap, Tapped, layers
from lilliput.prune.statistics import Batches, Statistic, Stats, Tensors
from lilliput.train import loss_of


@dataclass(frozen=True, kw_only=True)
class KnockoffContrast(Batches):
    """`|gamma| (beta - (1 - beta))` of each output channel that can be pruned, by the weight's name. (tang2020scop)

    Real samples and their knockoffs run side by side, and each layer gives `beta z + (1 - beta) z_knockoff` on to the real ones, in front of
    its batch norm. The `beta` in [0, 1], one to a channel and 1/2 at first, are trained on the task's loss by gradient descent
    with momentum 0.9 and step `lr`, weights as they are. `gamma` is the batch norm's scale, 1 where none alone reads the layer.

    Departs from the paper, whose knockoffs are images that a network generates: here the knockoff of a sample is another sample of its
    batch, of the same distribution and without the sample's target, as in the MindSpore implementation of the method. The paper's step
    size and number of steps are not known to us.
    """

    batches: int = 64
    lr: float = 0.1

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass backward to each batch."""
        model, loss = copy.deepcopy(traced).eval(), loss_of(data)
        prunable = {slot.tensor for group in Coupling(traced).groups for slot in group.slots if slot.role == "out"}
        controlled = [layer for layer in layers(model) if weight_name(layer) in prunable]
        betas = {weight_name(layer): torch.full((len(model.tensor(weight_name(layer))),), 0.5, requires_grad=True) for layer in controlled}
        speed = {name: torch.zeros_like(beta) for name, beta in betas.items()}
        taps = {layer: _mixed(layer, betas[weight_name(layer)]) for layer in controlled}
        for inputs, targets in self.drawn(data, seed) if betas else ():
            with torch.enable_grad():
                outputs = Tapped(model, given=taps).outputs(torch.cat([inputs, inputs.roll(1, 0)]))
                slopes = torch.autograd.grad(loss(outputs[:len(inputs)], targets), list(betas.values()))
            with torch.no_grad():
                for (name, beta), slope in zip(betas.items(), slopes, strict=True):
                    speed[name].mul_(0.9).add_(slope)
                    beta.sub_(speed[name], alpha=self.lr).clamp_(0, 1)
        return {weight_name(layer): _scale(model, layer) * (2 * betas[weight_name(layer)].detach() - 1) for layer in controlled}


def _mixed(layer: fx.Node, beta: Tensor) -> Tap:
    def mix(z: Tensor) -> Tensor:
        real, knockoff = z.chunk(2)
        share = beta.reshape(-1, *[1] * (z.ndim - 2)) if layer.target in CONVOLUTIONS else beta
        return torch.cat([share * real + (1 - share) * knockoff, knockoff])

    return mix


def _scale(model: Traced, layer: fx.Node) -> Tensor:
    norm = next(iter(layer.users)) if len(layer.users) == 1 else None
    if norm is None or op_name(norm) != "batch_norm" or not isinstance(norm.args[1], fx.Node):
        return torch.ones(())
    return model.tensor(str(norm.args[1].target)).detach().abs()


@dataclass(frozen=True, kw_only=True)
class ScientificControl:
    """How far the real map of a channel is preferred to its knockoff. (tang2020scop)"""

    contrast: KnockoffContrast = field(default_factory=KnockoffContrast)
    roles: ClassVar[frozenset[str]] = frozenset({"out"})

    @property
    def needs(self) -> frozenset[Statistic]:
        """The contrast."""
        return frozenset({self.contrast})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores of output channels, below zero where the knockoff is preferred; larger matters more."""
        found = stats[self.contrast].get(layer.name)
        if found is None or len(found) != len(layer.weight):
            raise PreconditionError(f"{layer.name} gives no maps of its own: exclude that layer")
        return found
