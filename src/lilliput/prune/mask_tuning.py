"""Mask tuning: factors on what stays, layer by layer, so that the pruned network follows the whole one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Coupling
from lilliput.graph.moments import Moments
from lilliput.graph.products import as_rows, groups_of
from lilliput.graph.rules.base import op_name
from lilliput.graph.walk import Walk, evaluate
from lilliput.graph.weights import has_own_weight, weight_name
from lilliput.prune.hooks import removed_units
from lilliput.prune.maps import by_channel, layers
from lilliput.prune.statistics import Batches, Statistic, Stats, Tensors


@dataclass(frozen=True, kw_only=True)
class Drawn(Batches):
    """The inputs of the batches themselves, by their number."""

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:  # noqa: ARG002
        """As they are drawn."""
        return {str(i): inputs for i, (inputs, _) in enumerate(self.drawn(data, seed))}


@dataclass(frozen=True, kw_only=True)
class TunedMasks:
    """Factors `m` on the units that stay, `min_m |A m - b|^2 + damping s |m - 1|^2`, folded into the weights that read them.

    Layer after layer, on what the layers tuned before it give: column `i` of `A` is what unit `i` adds to a reading layer's output, `b` what
    the whole network gives there. Where the output is added to a residual stream that was there before, `b` is what brings the sum
    back to the whole network's, so that a layer makes up for those before it. `s` is the mean diagonal of `A'A`. Tuning ends before
    the first layer with a factor beyond `bound`, as in the paper.

    Departs from the paper in a solution by the normal equations for its LSMR with damping 1, in leaving layers alone that lose nothing,
    and in factors of its own for each layer where several read a unit. (kwon2022posttraining)
    """

    samples: Drawn = field(default_factory=Drawn)
    damping: float = 1e-2
    bound: float = 10.0

    def __post_init__(self) -> None:
        if not (self.damping > 0 and self.bound >= 1):
            raise RecipeError(f"masks are tuned with positive damping and a bound from 1, not {self.damping} and {self.bound}")

    @property
    def needs(self) -> frozenset[Statistic]:
        """The samples."""
        return frozenset({self.samples})

    def __call__(self, traced: Traced, stats: Stats, masks: Mapping[str, Tensor], /) -> Mapping[str, Tensor]:
        """New weights of the layers that lose inputs."""
        units = dict(_read_units(traced, masks))
        small = copy.deepcopy(traced).eval()
        for name, unit in units.items():
            _scale_inputs_(small.tensor(name), (unit >= 0).to(small.tensor(name)))
        batches = list(stats[self.samples].values())
        walks = Walk(copy.deepcopy(traced).eval(), batches), Walk(small, batches)
        found: dict[str, Tensor] = {name: small.tensor(name) for name in units}
        for layer in layers(small):
            name = weight_name(layer)
            if name not in units or groups_of(layer) != 1 or not has_own_weight(layer):
                continue
            factors = self._factors(layer, units[name], walks)
            if float(factors.abs().max()) > self.bound:
                break
            _scale_inputs_(small.tensor(name), torch.where(units[name] >= 0, factors[units[name]], 0.0).to(small.tensor(name)))
        return {name: weight.detach() for name, weight in found.items()}

    def _factors(self, layer: fx.Node, unit: Tensor, walks: tuple[Walk, Walk]) -> Tensor:
        """One for each unit, 1 where it has gone."""
        whole, small = walks
        weight, source, stream = small.traced.tensor(weight_name(layer)).detach(), layer.args[0], _stream(layer)
        assert isinstance(source, fx.Node)
        wanted = whole.through(whole.named[layer.name])
        small.before(layer)
        moments, slopes = Moments(layer, weight), torch.zeros(len(unit), dtype=torch.float64)
        for i, values in enumerate(small.values):
            error = wanted[i]
            if stream in values and stream is not None:
                error = error + whole.values[i][whole.named[stream.name]] - values[stream]
            slopes += self._products(small, layer, values, error)
            moments.update(values[source])
        rows = as_rows(weight, layer)[0].double()
        products = (moments.sum[0] * (rows.T @ rows)).reshape(len(unit), len(rows.T) // len(unit), len(unit), -1).sum((1, 3))
        return solved(products, slopes, unit, self.damping)

    @staticmethod
    def _products(small: Walk, layer: fx.Node, values: dict[fx.Node, Any], wanted: Tensor) -> Tensor:
        """What each input channel adds, times the error that is left with all factors 1, summed over samples and positions."""
        source = layer.args[0]
        assert isinstance(source, fx.Node)
        x = values[source].detach().requires_grad_()
        parameters = small.constants({node for node in layer.all_input_nodes if node in small.constant})
        with torch.enable_grad():
            z: Tensor = evaluate(small.traced, layer, {**parameters, source: x})
            slope, = torch.autograd.grad(z, x, wanted - z.detach())
        return by_channel(layer, x.detach() * slope).double().sum((0, 2)).cpu()


def solved(products: Tensor, slopes: Tensor, unit: Tensor, damping: float) -> Tensor:
    """`1 + (A'A + damping s)^-1 A'e` over units that stay, given `A'A` and `A'e` of slices and the unit of each, -1 for those that went."""
    count = int(unit.max()) + 1
    inside = unit >= 0
    gather = torch.zeros(count, len(unit), dtype=torch.float64)
    gather[unit[inside], torch.arange(len(unit))[inside]] = 1
    matrix, right = gather @ products @ gather.T, gather @ slopes
    scale = float(matrix.diagonal().sum()) / max(int((gather.sum(1) > 0).sum()), 1)
    found: Tensor = 1 + torch.linalg.solve(matrix + max(damping * scale, 1e-12) * torch.eye(count, dtype=torch.float64), right)
    return found


def _stream(layer: fx.Node) -> fx.Node | None:
    """What a layer's output is added to, dropout aside, which is off."""
    node = layer
    while len(node.users) == 1:
        reader = next(iter(node.users))
        if op_name(reader) == "add" and len(reader.all_input_nodes) == 2 and not reader.kwargs:
            return next(other for other in reader.all_input_nodes if other is not node)
        if op_name(reader) != "dropout":
            return None
        node = reader
    return None


def _read_units(traced: Traced, masks: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The unit that each input slice of a weight belongs to, -1 for those that go, for weights that lose some and read one group only."""
    for group in Coupling(traced).groups:
        gone = removed_units(group, masks)
        for slot in group.slots:
            unit = torch.from_numpy(slot.unit)
            if slot.role == "in" and slot.dim == 1 and bool((unit >= 0).all()) and bool(gone.any()):
                yield slot.tensor, torch.where(gone[unit], -1, unit)


def _scale_inputs_(weight: Tensor, factors: Tensor) -> None:
    with torch.no_grad():
        weight.mul_(factors.reshape(1, -1, *[1] * (weight.ndim - 2)))
