"""Criteria from the loss and from neighbouring layers: what removing a weight does beyond its own size."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.graph.coupling import Coupling
from lilliput.graph.fold import fold_batchnorm_
from lilliput.graph.weights import weight_name
from lilliput.prune.criteria import Layer
from lilliput.prune.maps import Keeper, Tapped, behind, by_channel, layers
from lilliput.prune.statistics import Batches, Gradient, HessianDiagonal, HessianGradient, Statistic, Stats, Tensors
from lilliput.train import loss_of

_OUT: frozenset[str] = frozenset({"out"})


@dataclass(frozen=True)
class Lamp:
    """`w^2 / sum of v^2 over |v| >= |w|` in the same layer: compared over all layers, it gives each its own sparsity.

    The largest weight of a layer scores 1, so that no layer is emptied. (lee2021lamp)
    """

    roles: ClassVar[frozenset[str]] = _OUT
    needs: ClassVar[frozenset[Statistic]] = frozenset()

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:  # noqa: ARG002
        """Scores; larger matters more."""
        squares = layer.weight.double().square().flatten()
        order = squares.argsort(descending=True, stable=True)
        larger = squares[order].cumsum(0)
        scores = torch.zeros_like(squares)
        scores[order] = squares[order] / larger.clamp(min=1e-300)
        return scores.reshape(layer.weight.shape)


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """`|w| |W_before[j]| |W_after[:, i]|` for the weight from channel `j` to channel `i`, norms over all that makes `j` and reads `i`.

    Batch norms are folded into the weights first. A channel of the input or the output counts 1. (park2020lookahead)
    """

    on_data: ClassVar[bool] = False

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:  # noqa: ARG002
        """By way of the coupled channels: what makes a channel, and what reads it."""
        folded = copy.deepcopy(traced).eval()
        fold_batchnorm_(folded)
        weights = {name: p.detach() for name, p in folded.named_parameters() if p.ndim > 1}
        out = {name: weight.abs() for name, weight in weights.items()}
        for group in Coupling(folded).groups:
            slots = [slot for slot in group.slots if slot.tensor in weights]
            norms = {}
            for role in ("out", "in"):
                total = torch.zeros(group.units)
                for slot in slots:
                    inside = torch.from_numpy(slot.unit)
                    if slot.role == role:
                        squares = weights[slot.tensor].square().movedim(slot.dim, 0).flatten(1).sum(1)
                        total.index_add_(0, inside[inside >= 0], squares[inside >= 0])
                norms[role] = total.sqrt()
            for slot in slots:
                other = norms["in" if slot.role == "out" else "out"]
                unit = torch.from_numpy(slot.unit)
                factor = torch.where(unit >= 0, other[unit.clamp(min=0)], 1.0)
                if slot.role in ("out", "in"):
                    out[slot.tensor] = out[slot.tensor] * factor.reshape([-1 if dim == slot.dim else 1 for dim in range(weights[slot.tensor].ndim)])
        return out


@dataclass(frozen=True)
class Lookahead:
    """How far the product of three layers in a row moves, in Frobenius norm, when one weight goes. (park2020lookahead)"""

    roles: ClassVar[frozenset[str]] = _OUT
    needs: ClassVar[frozenset[Statistic]] = frozenset([Distortion()])

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores; larger matters more."""
        return layer.moved(stats[Distortion()][layer.name])


@dataclass(frozen=True, kw_only=True)
class DiagonalHessian:
    """`h w^2 / 2`, `h` the weight's entry of the Hessian's diagonal. (lecun1990obd)

    The paper's diagonal is that of the Gauss-Newton matrix, by a pass of second derivatives; here it is the Hessian's own, estimated with
    random signs. Entries below zero, which no minimum has, count by their magnitude.
    """

    curvature: HessianDiagonal = field(default_factory=HessianDiagonal)
    roles: ClassVar[frozenset[str]] = _OUT

    @property
    def needs(self) -> frozenset[Statistic]:
        """The diagonal."""
        return frozenset({self.curvature})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores; larger matters more."""
        return layer.moved(stats[self.curvature][layer.name]).abs() * layer.weight.square() / 2


@dataclass(frozen=True, kw_only=True)
class ConnectionSensitivity:
    """`|g w|`, `g` the gradient on all batches together. (lee2019snip)"""

    gradient: Gradient = field(default_factory=Gradient)
    roles: ClassVar[frozenset[str]] = _OUT

    @property
    def needs(self) -> frozenset[Statistic]:
        """The gradient."""
        return frozenset({self.gradient})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores; larger matters more."""
        return (layer.moved(stats[self.gradient][layer.name]) * layer.weight).abs()


@dataclass(frozen=True, kw_only=True)
class GradientFlow:
    """`w H g`: how much the gradient's norm falls when the weight goes; those whose loss raises it go first. (wang2020grasp)"""

    product: HessianGradient = field(default_factory=HessianGradient)
    roles: ClassVar[frozenset[str]] = _OUT

    @property
    def needs(self) -> frozenset[Statistic]:
        """The Hessian times the gradient."""
        return frozenset({self.product})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores; larger matters more, and below zero lies what is better gone."""
        return layer.moved(stats[self.product][layer.name]) * layer.weight


@dataclass(frozen=True, kw_only=True)
class MapProduct(Batches):
    """`E |mean over positions of z dL/dz|` for each output channel of a layer, by its weight's name. (molchanov2017taylor)

    `z` is what the layer gives, behind the normalisation and the activation that directly follow it; `L` is each sample's own loss.
    """

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass backward to each batch, with the maps kept."""
        model, loss = copy.deepcopy(traced).eval(), loss_of(data)
        total: dict[str, Tensor] = {}
        count = 0
        for inputs, targets in self.drawn(data, seed):
            keeper = Keeper()
            with torch.enable_grad():
                tapped = Tapped(model, given={node: keeper.tap(node) for node in {behind(layer) for layer in layers(model)}})
                slopes = keeper.slopes(loss(tapped.outputs(inputs), targets) * len(inputs))
            for layer in layers(model):
                z = keeper.kept[behind(layer)].detach()
                name = weight_name(layer)
                total[name] = total.get(name, 0) + by_channel(layer, z * slopes[behind(layer)]).mean(2).abs().sum(0)
            count += len(inputs)
        return {name: value / max(count, 1) for name, value in total.items()}


@dataclass(frozen=True, kw_only=True)
class FeatureTaylor:
    """`MapProduct` over its Euclidean norm in the layer, so that layers compare. (molchanov2017taylor)"""

    products: MapProduct = field(default_factory=MapProduct)
    roles: ClassVar[frozenset[str]] = _OUT

    @property
    def needs(self) -> frozenset[Statistic]:
        """The products of maps and their gradients."""
        return frozenset({self.products})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores of output channels; larger matters more."""
        found = stats[self.products].get(layer.name)
        if found is None or len(found) != len(layer.weight):
            raise PreconditionError(f"{layer.name} gives no maps of its own: exclude that layer")
        scores: Tensor = found / found.norm().clamp(min=1e-30)
        return scores
