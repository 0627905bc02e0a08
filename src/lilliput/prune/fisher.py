"""Slopes of masks, sample by sample: what the loss of each says of a channel, and of two together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.graph.weights import weight_name
from lilliput.prune.criteria import Layer
from lilliput.prune.maps import Keeper, Tapped, by_channel, layers
from lilliput.prune.statistics import Batches, Statistic, Stats, Tensors
from lilliput.train import loss_of

_Place = Callable[[Traced, dict[fx.Node, Callable[[Tensor], Tensor]]], Tapped]


@dataclass(frozen=True, kw_only=True)
class InputSlopes(Batches):
    """`dL_n/dm` of a factor `m` on each input channel of a layer, per sample `n`: `(input slices, samples)` by the weight's name.

    It is `sum w dL_n/dw` over the slice of the weight that reads the channel, had from `sum x dL_n/dx` over positions, `dx` through this
    layer alone. Where groups of a convolution share a slice, their channels are added.
    """

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass backward to each batch."""
        return _slopes(self, (traced, data, seed), lambda model, taps: Tapped(model, read=taps), 1)


@dataclass(frozen=True, kw_only=True)
class OutputSlopes(Batches):
    """`dL_n/dm` of a factor `m` on each output channel of a layer, bias included, per sample `n`: `(outputs, samples)` by the weight's name."""

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass backward to each batch."""
        return _slopes(self, (traced, data, seed), lambda model, taps: Tapped(model, given=taps), 0)


def _slopes(batches: Batches, of: tuple[Traced, Any, int], place: _Place, dim: int) -> Tensors:
    traced, data, seed = of
    model, loss = copy.deepcopy(traced).eval(), loss_of(data)
    found: dict[str, list[Tensor]] = {}
    for inputs, targets in batches.drawn(data, seed):
        keeper = Keeper()
        with torch.enable_grad():
            outputs = place(model, {layer: keeper.tap(layer) for layer in layers(model)}).outputs(inputs)
            slopes = keeper.slopes(loss(outputs, targets) * len(inputs))  # the sum over samples, so that each slope is of its own loss
        batch: dict[str, Tensor] = {}
        for layer, slope in slopes.items():
            name = weight_name(layer)
            products = by_channel(layer, keeper.kept[layer].detach() * slope).sum(2)
            slices = model.tensor(name).shape[dim]
            batch[name] = products.reshape(len(products), -1, slices).sum(1).T + batch.get(name, 0)
        for name, values in batch.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values, 1) for name, values in found.items()}


def _of(slopes: Tensors, layer: Layer) -> Tensor:
    found = slopes.get(layer.name)
    if found is None or len(found) != len(layer.weight):
        raise PreconditionError(f"{layer.name} is no convolution or linear layer that reads or gives maps of its own: exclude that layer")
    return found


@dataclass(frozen=True, kw_only=True)
class GroupFisher:
    """`sum_n (dL_n/dm)^2 / 2N`, `m` one mask for a channel in all layers that read it: slopes are added before they are squared. (liu2021gfp)

    Where nothing but activations reads the channels (queries and keys), the mask is on what makes them. Departs from the paper in
    depthwise convolutions: the paper masks their input too, here the channel counts once, at the next layer that mixes channels.
    """

    reading: InputSlopes = field(default_factory=InputSlopes)
    making: OutputSlopes = field(default_factory=OutputSlopes)
    roles: ClassVar[frozenset[str]] = frozenset({"in"})

    @property
    def needs(self) -> frozenset[Statistic]:
        """The masks' slopes."""
        return frozenset({self.reading, self.making})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Slopes (slices, samples)."""
        return _of(stats[self.reading if layer.role == "in" else self.making], layer)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Scores; larger matters more."""
        return torch.stack(list(parts)).sum(0).square().mean(1) / 2


@dataclass(frozen=True, kw_only=True)
class Collaborative:
    """`-u' r + r' S r / 2` of removing channels `r` together, `u = E u_n`, `S = E u_n u_n'`, `u_n = dL_n/dm`. (peng2019ccp)

    The Hessian is made of first derivatives (the empirical Fisher matrix) with its cross terms between channels, bias included in a filter.
    The paper solves a 0-1 quadratic programme for a given number of channels, by a relaxation; here it is solved greedily, the channel
    that adds the least to what is removed already goes next, so that one order serves every number. Scores are places in that order.
    Coupled filters go together, which the paper does not treat.
    """

    making: OutputSlopes = field(default_factory=OutputSlopes)
    roles: ClassVar[frozenset[str]] = frozenset({"out"})

    @property
    def needs(self) -> frozenset[Statistic]:
        """The masks' slopes."""
        return frozenset({self.making})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Slopes (slices, samples)."""
        return _of(stats[self.making], layer)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Scores; larger matters more."""
        totals = torch.stack(list(parts)).sum(0)
        products = totals @ totals.T / totals.shape[1]
        rise = products.diagonal() / 2 - totals.mean(1)
        scores = torch.zeros(len(totals), dtype=torch.float64)
        for place in range(len(totals)):
            gone = int(rise.argmin())
            scores[gone] = (place + 1) / len(totals)
            rise = rise + products[gone]
            rise[gone] = torch.inf
        return scores
