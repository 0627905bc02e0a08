"""Maps: what layers read and give on a batch, by their weights' names, with or without the graph for derivatives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.graph import Traced
from lilliput.graph.fold import CONVOLUTIONS
from lilliput.graph.products import LAYERS, is_supported
from lilliput.graph.rules.base import op_name
from lilliput.graph.weights import weight_name
from lilliput.prune.statistics import Batches

Tap = Callable[[Tensor], Tensor]

_FOLLOWS = frozenset({"batch_norm", "relu", "relu6", "hardtanh", "hardswish", "silu", "gelu", "leaky_relu", "elu"})


def layers(traced: Traced) -> list[fx.Node]:
    """Convolutions and linear layers whose weight is a parameter."""
    found = (node for node in traced.graph.nodes if node.target in LAYERS and is_supported(node))
    return [node for node in found if isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr"]


def behind(node: fx.Node) -> fx.Node:
    """What stands behind the normalisation and the activation that alone read a layer."""
    while len(node.users) == 1 and op_name(reader := next(iter(node.users))) in _FOLLOWS:
        node = reader
    return node


def by_channel(layer: fx.Node, z: Tensor) -> Tensor:
    """What a layer reads or gives, as `(samples, channels, positions)`."""
    channels = z.movedim(1 if layer.target in CONVOLUTIONS else -1, 1)
    return channels.reshape(*channels.shape[:2], -1)


class Tapped(fx.Interpreter):
    """Runs a graph with functions laid on what some nodes give, or on what some read first."""

    def __init__(self, traced: Traced, *, given: Mapping[fx.Node, Tap] | None = None, read: Mapping[fx.Node, Tap] | None = None) -> None:
        super().__init__(traced)
        self.given, self.read = given or {}, read or {}

    def outputs(self, inputs: Tensor) -> Any:
        """What the network returns."""
        found = self.run(inputs, enable_io_processing=False)
        return found[0] if isinstance(found, tuple | list) and len(found) == 1 else found

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        """What a node reads, its first argument through the tap."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return ((self.read[n](args[0]), *args[1:]) if n in self.read else args), kwargs

    def run_node(self, n: fx.Node) -> Any:
        """What a node gives, through the tap."""
        result = super().run_node(n)
        return self.given[n](result) if n in self.given else result


class Keeper:
    """Taps that keep what passes, by node."""

    def __init__(self) -> None:
        self.kept: dict[fx.Node, Tensor] = {}

    def tap(self, node: fx.Node) -> Tap:
        """A tap that hands on an alias of its own, so that its slope is of what passes here alone."""
        def keep(z: Tensor) -> Tensor:
            self.kept[node] = z.view_as(z) if z.requires_grad or not torch.is_grad_enabled() else z.detach().requires_grad_()
            return self.kept[node]

        return keep

    def slopes(self, value: Tensor) -> dict[fx.Node, Tensor]:
        """`d value / dz` of what was kept, zero where the value does not depend on it."""
        found = torch.autograd.grad(value, list(self.kept.values()), allow_unused=True)
        return {node: torch.zeros_like(z) if slope is None else slope for (node, z), slope in zip(self.kept.items(), found, strict=True)}


def maps(traced: Traced, batches: Batches, data: Any, seed: int) -> Iterator[tuple[Tensor, list[tuple[str, fx.Node, Tensor]]]]:
    """Targets of each batch, and for every layer its weight's name, itself and its map, behind normalisation and activation."""
    model = copy.deepcopy(traced).eval()
    found = layers(model)
    for inputs, targets in batches.drawn(data, seed):
        keeper = Keeper()
        with torch.no_grad():
            Tapped(model, given={node: keeper.tap(node) for node in {behind(layer) for layer in found}}).outputs(inputs)
        yield targets, [(weight_name(layer), layer, keeper.kept[behind(layer)]) for layer in found]
