"""A layer's weight and bias: their names, and whether they are its own."""

from __future__ import annotations

from torch import Tensor, fx

from lilliput.core.errors import PreconditionError
from lilliput.graph.trace import Traced


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


def has_own_weight(layer: fx.Node) -> bool:
    """Whether the layer's weight is a parameter that nothing else reads."""
    name = parameter(layer.args[1])
    users = [user for node in layer.graph.nodes if node.op == "get_attr" and node.target == name for user in node.users]
    return sum(len(user.users) if user.op == "call_module" else 1 for user in users) == 1
