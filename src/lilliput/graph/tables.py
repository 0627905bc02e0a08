"""Weights that are looked up in a table: how they stand in a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

LOOKUP = torch.ops.aten.embedding.default


def table_of(weight: object) -> fx.Node | None:
    """The `get_attr` of the table that a weight is looked up in with stored codes; None for any other value.

    Along the first inputs of the operators that compute the weight; the first table where several add up.
    """
    node, found = weight, False
    while isinstance(node, fx.Node) and node.op in ("call_function", "call_module"):
        if node.target is LOOKUP:
            found = computed(node.args[1])
        node = node.args[0] if node.args else None
    return node if found and isinstance(node, fx.Node) and node.op == "get_attr" else None


def computed(node: Any) -> bool:
    """Whether a value depends on stored tensors alone."""
    if not isinstance(node, fx.Node):
        return False
    return node.op == "get_attr" or (node.op in ("call_function", "call_module") and bool(node.all_input_nodes)
                                     and all(computed(source) for source in node.all_input_nodes))


def decoding(weight: object) -> set[fx.Node]:
    """The operators that compute a weight from tables; empty where no table is behind it."""
    found: set[fx.Node] = set()
    front = [weight] if isinstance(weight, fx.Node) and table_of(weight) is not None else []
    while front:
        node = front.pop()
        if node.op in ("call_function", "call_module") and node not in found:
            found.add(node)
            front.extend(node.all_input_nodes)
    return found
