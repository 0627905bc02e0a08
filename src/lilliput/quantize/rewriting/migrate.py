"""Migration: outliers among activations become factors of the weights that read them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import RecipeError
from lilliput.graph.trace import Traced
from lilliput.graph.weights import bias_name, has_own_weight, parameter, weight_name, weight_of
from lilliput.quantize.operators import name_of
from lilliput.quantize.rewriting.observe import largest

aten = torch.ops.aten
_PASSING = frozenset({"relu", "dropout"})


@dataclass(frozen=True, kw_only=True)
class Migrate:
    """A rewrite: what linear layers read is divided by `s_j` per feature, and their weights are multiplied by it.

    `s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)`, over samples and over all layers that read the same values. The division goes
    into what computes them: the gain and shift of a normalisation, the rows of a linear layer (through a ReLU), a gate or
    constant factor. Layers whose input comes out of anything else, or is read by others too, stay as they are.
    (xiao2023smoothquant)
    """

    alpha: float = 0.5
    samples: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise RecipeError(f"alpha, the share of the outliers that goes into weights, lies in 0 to 1, not {self.alpha}")

    def __call__(self, traced: Traced, data: Any) -> list[str]:
        """Migrate in place."""
        found = {source: (layers, divisors) for source, layers in _readers(traced).items() if (divisors := _divisors(traced, source))}
        magnitudes = largest(traced, found, data, self.samples)
        for source, (layers, divisors) in found.items():
            weights = torch.stack([weight_of(traced, layer).abs().amax(0) for layer in layers]).amax(0).double()
            activations = magnitudes[source].double()
            live = (activations > 0) & (weights > 0)
            scale = torch.where(live, activations.clamp(min=1e-30) ** self.alpha / weights.clamp(min=1e-30) ** (1 - self.alpha), 1.0)
            for layer in layers:
                _multiply_(traced, weight_name(layer), scale)
            for name, rows in divisors:
                _multiply_(traced, name, 1 / scale, rows=rows)
        moved = sum(len(layers) for layers, _ in found.values())
        return [f"activation outliers of {moved} linear layers migrated to their weights"]


def _readers(traced: Traced) -> dict[fx.Node, list[fx.Node]]:
    """Values that linear layers with weights of their own read, and nobody else does, with these layers."""
    out: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for node in traced.graph.nodes:
        source = node.args[0] if node.target is aten.linear.default else None
        if isinstance(source, fx.Node):
            out[source].append(node)
    return {source: layers for source, layers in out.items() if len(layers) == len(source.users) and all(map(has_own_weight, layers))}


def _divisors(traced: Traced, node: fx.Node) -> list[tuple[str, bool]] | None:
    """Parameters to divide so that the node's last dimension is divided, and whether by rows; None where there are none."""
    name = name_of(node)
    if name in ("layer_norm", "rms_norm"):
        return _own(traced, [(parameter(argument), False) for argument in node.args[2:4]])
    if node.target is aten.linear.default:
        return _own(traced, [(parameter(node.args[1]), True), (bias_name(node), True)])
    sources = [factor for factor in node.args if isinstance(factor, fx.Node) and len(factor.users) == 1]
    if node.target is aten.mul.Tensor:
        owned = [_own(traced, [(parameter(factor), False)]) for factor in sources]
        constants = [found for found in owned if found and traced.tensor(found[0][0]).ndim == 1]
        computed = [found for factor in sources if parameter(factor) is None and (found := _divisors(traced, factor))]
        return next(iter([*constants, *computed]), None)
    return _divisors(traced, sources[0]) if name in _PASSING and sources else None


def _own(traced: Traced, names: list[tuple[str | None, bool]]) -> list[tuple[str, bool]] | None:
    """The parameters that there are, if the first of them is and one node alone reads each."""
    found = [(name, rows) for name, rows in names if name is not None]
    users = [sum(len(node.users) for node in traced.graph.nodes if node.op == "get_attr" and node.target == name) for name, _ in found]
    return found if names and names[0][0] is not None and all(count == 1 for count in users) else None


def _multiply_(traced: Traced, name: str, factor: Tensor, *, rows: bool = False) -> None:
    """Multiply a parameter along its last dimension, or along its first."""
    tensor = traced.tensor(name).detach()
    shape = [-1, *[1] * (tensor.ndim - 1)] if rows else [-1]
    traced.set_tensor(name, tensor * factor.to(tensor).reshape(shape))
