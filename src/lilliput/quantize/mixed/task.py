"""The task: which layers may have which widths, what each costs, and what the budget allows."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from lilliput.core.budget import Budget
from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph.trace import Traced
from lilliput.quantize.bits import Bits, Fixed, Uniform
from lilliput.quantize.grids import Grid
from lilliput.quantize.mixed import costs as prices
from lilliput.quantize.mixed.costs import Cost
from lilliput.quantize.operators import LAYERS, layer_name
from lilliput.quantize.place import place_
from lilliput.quantize.posttraining import Static
from lilliput.quantize.prepare import lowered
from lilliput.quantize.quantizer import Quantizer, SameQuantizer
from lilliput.quantize.ranges import Ranges, channel_bounds
from lilliput.quantize.scheme import Scheme
from lilliput.quantize.training import Train

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Widths that a layer's weights may have, narrowest first; activations all have the same one."""

    weights: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    activations: int = 8

    def __post_init__(self) -> None:
        if not self.weights or list(self.weights) != sorted(set(self.weights)) or self.weights[0] < 0:
            raise RecipeError(f"widths are different whole numbers in ascending order, not {self.weights!r}")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of free width: the names and (widest) grids of its weights, how many values and how many scales they hold."""

    name: str
    tensors: Mapping[str, Grid]
    count: int
    scales: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """Choose one of `widths` for each of `layers` of a float network with folded batch norms.

    `costs` has for every limited cost a table `(layers, widths)`, `limits` what their sum may be: `bits` counts all weights'
    bits, and bytes that no width changes are counted with the first layer.
    """

    network: Traced
    data: Any
    layers: tuple[Layer, ...]
    widths: Widths
    costs: Mapping[str, Array]
    limits: Mapping[str, float]
    ranges: Ranges
    _cache: dict[tuple[str, int], Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, model: nn.Module, data: Any, step: Static | Train, *, budget: Budget, widths: Widths,
           costs: Mapping[str, Cost]) -> Self:
        """The task of a network that `step` will quantize; raises `PreconditionError` for a budget that widths cannot meet."""
        prices.check(budget, costs)
        scheme = step.scheme
        network, _ = lowered(model, data, rewrites=step.rewrites)
        layers = layers_of(network, scheme, widths)
        if not layers:
            raise PreconditionError("no layer holds weights of its own that the scheme quantizes: exclude fewer")
        options = [Bits(width, widths.activations) for width in widths.weights]
        names = [layer.name for layer in layers]
        tables = {name: prices.table(name, costs[name], names, options) for name in budget.costs() if name in costs}
        count = sum(layer.count for layer in layers)
        original = {name: float(table[:, -1].sum()) for name, table in tables.items()}
        if budget.bits is not None and "bits" not in tables:
            tables["bits"] = np.array([[float(layer.count * width) for width in widths.weights] for layer in layers])
        if budget.size is not None and "size" not in tables:
            tables["size"] = np.array([[float(_bytes(layer, width)) for width in widths.weights] for layer in layers])
            tables["size"][0] += _overhead(network, layers)
            original["size"] = 4.0 * sum(p.numel() for p in network.parameters())
        limits = {name: limit * count if name == "bits" else limit for name, limit in budget.targets(original).items()}
        return cls(network=network.eval(), data=data, layers=layers, widths=widths, costs=tables, limits=limits,
                   ranges=scheme.weight_ranges)

    def bits(self, chosen: Sequence[int]) -> Fixed:
        """The allocation of one option (an index into the widths) for each layer."""
        options = [Bits(width, self.widths.activations) for width in self.widths.weights]
        return Fixed({layer.name: options[c] for layer, c in zip(self.layers, chosen, strict=True)})

    def cost(self, name: str, chosen: Sequence[int]) -> float:
        """What a choice costs, of what the limit counts."""
        return float(self.costs[name][np.arange(len(self.layers)), list(chosen)].sum())

    def met(self, chosen: Sequence[int]) -> bool:
        """Whether no limit is exceeded."""
        return all(self.cost(name, chosen) <= limit for name, limit in self.limits.items())

    @property
    def count(self) -> int:
        """Weights of all layers together."""
        return sum(layer.count for layer in self.layers)

    def nearest(self, tensor: str, grid: Grid) -> Tensor:
        """A weight rounded to the nearest values of a grid, kept for the next time."""
        key = (tensor, grid.bits)
        if key not in self._cache:
            self._cache[key] = rounded(self.network.tensor(tensor).detach(), grid, self.ranges)
        return self._cache[key]

    def quantized(self, layer: Layer, width: int) -> dict[str, Tensor]:
        """The weights of a layer at a width, by name."""
        return {name: self.nearest(name, grid.at(width)) for name, grid in layer.tensors.items()}

    def weights(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        """All weights at the widths of a choice, by name."""
        out: dict[str, Tensor] = {}
        for layer, option in zip(self.layers, chosen, strict=True):
            out |= self.quantized(layer, self.widths.weights[option])
        return out


def rounded(tensor: Tensor, grid: Grid, ranges: Ranges) -> Tensor:
    """`tensor` rounded to the nearest values of a grid that covers the range which `ranges` chooses."""
    quantizer = Quantizer(grid, layer="", weight=True, channels=None if grid.axis is None else tensor.shape[grid.axis])
    quantizer.set(grid.parameters(*channel_bounds(ranges, tensor, grid)))
    result: Tensor = quantizer(tensor)
    return result


def layers_of(network: Traced, scheme: Scheme, widths: Widths) -> tuple[Layer, ...]:
    """The layers whose weights a scheme would quantize, in the order in which they run; `network` is lowered."""
    placed = copy.deepcopy(network)
    bits = Uniform(weights=widths.weights[-1], activations=widths.activations)
    place_(placed, replace(scheme, bits=bits))
    found: dict[str, dict[str, Grid]] = {}
    for node in placed.graph.nodes:
        weight = node.args[1] if node.target in LAYERS else None
        if isinstance(weight, fx.Node) and weight.op == "call_module":
            module = placed.get_submodule(str(weight.target))
            held = module.source if isinstance(module, SameQuantizer) else module
            source = weight.args[0]
            if isinstance(held, Quantizer) and isinstance(source, fx.Node) and source.op == "get_attr":
                found.setdefault(layer_name(node), {})[str(source.target)] = held.grid
    return tuple(_layer(name, tensors, network) for name, tensors in found.items())


def _layer(name: str, tensors: Mapping[str, Grid], network: Traced) -> Layer:
    shapes = {key: network.tensor(key).shape for key in tensors}
    scales = sum(1 if grid.axis is None else shapes[key][grid.axis] for key, grid in tensors.items())
    return Layer(name=name, tensors=tensors, count=sum(math.prod(shape) for shape in shapes.values()), scales=scales)


def _bytes(layer: Layer, width: int) -> int:
    """Packed codes and scales of a layer's weights."""
    grid = next(iter(layer.tensors.values())).at(width)
    return -(-layer.count * prices.stored_bits(grid) // 8) + 4 * layer.scales


def _overhead(network: Traced, layers: Sequence[Layer]) -> float:
    """Bytes of all parameters that no layer of free width holds: 32-bit numbers, biases among them."""
    free = {name for layer in layers for name in layer.tensors}
    return 4.0 * sum(p.numel() for name, p in network.named_parameters() if name not in free)
