"""Channel selection: which inputs of a layer its output can be made of, by LASSO, and how it is made of them, by least squares."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Coupling
from lilliput.graph.moments import Moments
from lilliput.graph.products import as_rows
from lilliput.graph.weights import weight_name
from lilliput.prune.criteria import Layer
from lilliput.prune.hooks import removed_units
from lilliput.prune.maps import Tap, Tapped, layers
from lilliput.prune.statistics import Batches, Statistic, Stats, Tensors

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class InputMoments(Batches):
    """`E x x'` of what each row of a layer's weight is multiplied with, `(groups, inputs, inputs)`, float64, by the weight's name."""

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass forward to each batch."""
        model = copy.deepcopy(traced).eval()
        moments = {layer: Moments(layer, model.tensor(weight_name(layer)).detach()) for layer in layers(model)}
        with torch.no_grad():
            for inputs, _ in self.drawn(data, seed):
                Tapped(model, read={layer: _watched(of) for layer, of in moments.items()}).outputs(inputs)
        found: dict[str, Tensor] = {}
        for layer, of in moments.items():
            found[weight_name(layer)] = of.hessian / 2 + found.get(weight_name(layer), 0)
        return found


def _watched(moments: Moments) -> Tap:
    def watch(x: Tensor) -> Tensor:
        moments.update(x)
        return x

    return watch


def entries(products: Floats, *, steps: int = 60, sweeps: int = 30) -> Floats:
    """For each channel the largest penalty at which LASSO takes it, over the largest at which it takes any.

    `min_b b' Q b - 2 b' Q 1 + penalty |b|_1`, with `products` `Q_ij` those of what channels add to the outputs: how far a weighted sum of
    channels is from the sum of all. Solved by coordinate descent from one of `steps` penalties, each 0.9 of the one before, to the next;
    channels of the same one are told apart by `|b|` there. 0 for what comes in at none of them. (he2017channel)
    """
    wanted, diagonal = products.sum(1), products.diagonal()
    largest = 2 * float(np.abs(wanted).max(initial=0))
    found, b = np.zeros(len(products)), np.zeros(len(products))
    if largest <= 0:
        return found
    usable = np.flatnonzero(diagonal > 1e-12 * diagonal.max())
    for step in range(1, steps + 1):
        penalty = largest * 0.9**step
        for _ in range(sweeps):
            before = b.copy()
            for i in usable:
                rest = wanted[i] - products[i] @ b + diagonal[i] * b[i]
                b[i] = np.sign(rest) * max(abs(rest) - penalty / 2, 0) / diagonal[i]
            if np.abs(b - before).max() < 1e-6:
                break
        new = (found == 0) & (b != 0)
        found[new] = 0.9**step * (0.9 + 0.1 * np.abs(b[new]) / np.abs(b[new]).max(initial=1e-30))
    return found


@dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """`W' = W H[:, kept] H[kept, kept]^-1`, `H = E x x'`: layers give from the inputs that stay what they gave from all. (he2017channel)

    Damped towards the weights as they are, by `damping` of the mean diagonal of `H`. Departs from the paper, which goes from layer to layer with the inputs of the
    network that is pruned so far: here all inputs are the original's, and the bias stays.
    """

    moments: InputMoments = field(default_factory=InputMoments)
    damping: float = 1e-4

    def __post_init__(self) -> None:
        if self.damping <= 0:
            raise RecipeError(f"the second moments are damped by a positive share of their mean, not {self.damping}")

    @property
    def needs(self) -> frozenset[Statistic]:
        """The inputs' moments."""
        return frozenset({self.moments})

    def __call__(self, traced: Traced, stats: Stats, masks: Mapping[str, Tensor], /) -> Mapping[str, Tensor]:
        """New weights of the layers that lose inputs."""
        lost = _lost_inputs(traced, masks)
        nodes: dict[str, fx.Node] = {weight_name(layer): layer for layer in layers(traced)}
        found = {}
        for name, gone in lost.items():
            if name in nodes and name in stats[self.moments] and 0 < int(gone.sum()) < len(gone):
                weight = traced.tensor(name).detach()
                kept = (~gone).reshape(1, -1, *[1] * (weight.ndim - 2)).expand(1, *weight.shape[1:]).flatten()
                rows = as_rows(weight, nodes[name]).double()
                found[name] = self.solved(rows, stats[self.moments][name], kept).reshape(weight.shape).to(weight)
        return found

    def solved(self, rows: Tensor, moments: Tensor, kept: Tensor) -> Tensor:
        """Rows `(groups, outputs, inputs)` that are zero where inputs are not kept."""
        within = moments[:, kept][:, :, kept]
        damping = (self.damping * within.diagonal(dim1=1, dim2=2).mean(1)).clamp(min=1e-12)
        ridge = damping[:, None, None] * torch.eye(within.shape[1], dtype=within.dtype)
        target = rows @ moments[:, :, kept] + rows[:, :, kept] @ ridge  # damped towards the weights as they are
        out = torch.zeros_like(rows)
        out[:, :, kept] = torch.linalg.solve(within + ridge, target.transpose(1, 2)).transpose(1, 2)
        return out


def _lost_inputs(traced: Traced, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Which input slices of each weight go with the channels that masks silence."""
    lost: dict[str, Tensor] = {}
    for group in Coupling(traced).groups:
        gone = removed_units(group, masks)
        for slot in group.slots:
            if slot.role == "in" and slot.dim == 1:
                unit = torch.from_numpy(slot.unit)
                lost[slot.tensor] = lost.get(slot.tensor, torch.zeros(len(unit), dtype=torch.bool)) | ((unit >= 0) & gone[unit.clamp(min=0)])
    return lost


@dataclass(frozen=True, kw_only=True)
class LassoSelection:
    """How early LASSO takes a channel to make up what the layers that read it give: `entries`. (he2017channel)

    Coupled layers that read the same channels are added up, which the paper does not do. We are unsure whether the paper scales weights
    to norm 1 before the first selection: here they are as they are. Activations behind the layer are not looked at, as in the paper.
    """

    moments: InputMoments = field(default_factory=InputMoments)
    roles: ClassVar[frozenset[str]] = frozenset({"in"})

    @property
    def needs(self) -> frozenset[Statistic]:
        """The inputs' moments."""
        return frozenset({self.moments})

    @property
    def reconstruction(self) -> LeastSquares:
        """The recovery that goes with it."""
        return LeastSquares(moments=self.moments)

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """A factor `F` (slices, k) of the products: `F F' = Q`."""
        moments = stats[self.moments].get(layer.name)
        if moments is None or layer.role != "in":
            raise PreconditionError(f"{layer.name} does not read channels as a convolution or linear layer does: exclude that layer")
        weight = layer.weight.double()  # (inputs, outputs, kernel)
        rows = weight.movedim(0, 1).reshape(moments.shape[0], -1, moments.shape[1])
        share = (moments * (rows.transpose(1, 2) @ rows)).sum(0)
        slices = len(weight)
        products = share.reshape(slices, share.shape[0] // slices, slices, -1).sum((1, 3))
        values, vectors = torch.linalg.eigh(products)
        factor: Tensor = vectors * values.clamp(min=0).sqrt()
        return factor

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Scores; larger matters more."""
        together = torch.cat(list(parts), 1)
        return torch.from_numpy(entries((together @ together.T).numpy()))
