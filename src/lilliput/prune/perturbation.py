"""Criteria of first order: what the loss is expected to do when a channel goes, with all that goes with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.graph.rules import scaled_norms
from lilliput.graph.weights import bias_name, parameter, weight_name
from lilliput.prune.criteria import Layer
from lilliput.prune.maps import layers
from lilliput.prune.statistics import Batches, Gradient, Statistic, Stats, Tensors, gradients


@dataclass(frozen=True, kw_only=True)
class GateSlopes(Batches):
    """`dL_b/dm` of a factor `m` on each channel: `(channels, batches)`, by the name of what makes it.

    Behind a batch norm it is `gamma dL/dgamma + beta dL/dbeta`, by the scale's name; behind a convolution or linear layer
    `sum_w w dL/dw + b dL/db` over the filter, by the weight's.
    """

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass backward to each batch."""
        model = copy.deepcopy(traced)
        gates = {scale: parameter(n.args[2]) for scale, n in scaled_norms(model)}
        gates |= {weight_name(n): bias_name(n) for n in layers(model)}
        found: dict[str, list[Tensor]] = {}
        for loss, parameters in self.losses(traced, data, seed):
            slopes = gradients(loss, parameters)
            for name, bias in gates.items():
                if name not in slopes:
                    continue
                slope = (parameters[name].detach() * slopes[name]).reshape(len(slopes[name]), -1).sum(1)
                if bias in slopes:
                    slope = slope + parameters[bias].detach() * slopes[bias]
                found.setdefault(name, []).append(slope)
        return {name: torch.stack(slopes, 1) for name, slopes in found.items()}


@dataclass(frozen=True, kw_only=True)
class GateTaylor:
    """`sum E_b |gamma dL_b/dgamma + beta dL_b/dbeta|` over the batch norms of coupled channels. (shen2022halp)

    Where there is no batch norm, the factor is on what the layers give. We are unsure whether the paper takes the magnitude of each
    batch's slope, as here, or of their mean.
    """

    slopes: GateSlopes = field(default_factory=GateSlopes)
    roles: ClassVar[frozenset[str]] = frozenset({"norm"})

    @property
    def needs(self) -> frozenset[Statistic]:
        """The gates' slopes."""
        return frozenset({self.slopes})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Slopes (slices, batches)."""
        found = stats[self.slopes].get(layer.name)
        if found is None or len(found) != len(layer.weight):
            raise PreconditionError(f"{layer.name} is no batch norm, convolution or linear layer with parameters: exclude that layer")
        return found

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Scores; larger matters more."""
        return torch.stack([part.abs().mean(1) for part in parts]).sum(0)


@dataclass(frozen=True, kw_only=True)
class GroupTaylor:
    """`(sum_w g w)^2` over every parameter that goes with a unit, `g` the mean gradient: the squared change of the loss. (yang2023nvit)

    The paper comes to it by the Hessian of the squared change, whose leading term is `2 g g'`. Weights that read the channels, biases
    and positions are in the sum as well as those that make them.
    """

    gradient: Gradient = field(default_factory=Gradient)
    roles: ClassVar[frozenset[str]] = frozenset({"out", "in", "norm", "other"})

    @property
    def needs(self) -> frozenset[Statistic]:
        """The gradient."""
        return frozenset({self.gradient})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Sums (slices, 1) of `g w`; zero for running statistics, which have no gradient."""
        slopes = stats[self.gradient].get(layer.name)
        if slopes is None:
            return torch.zeros(len(layer.weight), 1)
        return (layer.moved(slopes) * layer.weight).reshape(len(layer.weight), -1).sum(1, keepdim=True)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Scores; larger matters more."""
        return torch.stack(list(parts)).sum(0).flatten().square()
