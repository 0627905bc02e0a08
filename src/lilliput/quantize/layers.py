"""A layer's weight and bias: their names, and the quantizer that stands before them."""

from __future__ import annotations

from torch import Tensor, fx

from lilliput.core.errors import PreconditionError
from lilliput.graph.trace import Traced
from lilliput.quantize.quantizer import BiasQuantizer, Quantizer


def parameter(node: object) -> str | None:
    """Name of the parameter or buffer that a node is, or is the quantizer of; None for anything else."""
    while isinstance(node, fx.Node) and node.op == "call_module" and len(node.args) == 1:
        node = node.args[0]
    return str(node.target) if isinstance(node, fx.Node) and node.op == "get_attr" else None


def weight_name(layer: fx.Node) -> str:
    """Name of the layer's weight; raises `PreconditionError` where that is computed."""
    name = parameter(layer.args[1])
    if name is None:
        raise PreconditionError(f"{layer.name} has a weight that is computed, and no parameter to change: leave the layer out")
    return name


def bias_name(layer: fx.Node) -> str | None:
    """Name of the layer's bias, where it has one that is a parameter."""
    return parameter(layer.args[2]) if len(layer.args) > 2 else None


def weight_of(traced: Traced, layer: fx.Node) -> Tensor:
    """The layer's weight, detached."""
    return traced.tensor(weight_name(layer)).detach()


def weight_quantizer(traced: Traced, layer: fx.Node) -> Quantizer | None:
    """The quantizer of the layer's weight, where it has one of its own."""
    return held_quantizer(traced, layer.args[1])


def held_quantizer(traced: Traced, node: object) -> Quantizer | None:
    """The quantizer that a node calls."""
    module = traced.get_submodule(str(node.target)) if isinstance(node, fx.Node) and node.op == "call_module" else None
    return module if isinstance(module, Quantizer) else None


def has_own_weight(layer: fx.Node) -> bool:
    """Whether the layer's weight is a parameter that nothing else reads."""
    name = parameter(layer.args[1])
    users = [user for node in layer.graph.nodes if node.op == "get_attr" and node.target == name for user in node.users]
    return sum(len(user.users) if user.op == "call_module" else 1 for user in users) == 1


def settle_biases_(traced: Traced) -> None:
    """Fix the scales of all biases at the present ones of inputs and weights."""
    for module in traced.modules():
        if isinstance(module, BiasQuantizer):
            module.settle()
