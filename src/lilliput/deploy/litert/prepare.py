"""Operators written as those that LiteRT has in integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from lilliput.deploy.litert.extra import needed
from lilliput.deploy.litert.grids import FIXED, per_tensor

aten = torch.ops.aten
# Average pooling's arguments where they are left out: input, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override.
_POOLING: tuple[Any, ...] = (None, None, [], 0, False, True, None)


def split_silu_(graph: fx.GraphModule) -> None:
    """SiLU becomes the product that LiteRT computes, `x sigmoid(x)`, with the sigmoid on the grid of its kernel; in place."""
    needed("torch.ao.quantization.fx._decomposed")  # defines the operators of the pairs
    for node in graph.graph.find_nodes(op="call_function", target=aten.silu.default):
        with graph.graph.inserting_before(node):
            gate = graph.graph.call_function(aten.sigmoid.default, (node.args[0],))
            held = per_tensor(graph, gate, *FIXED[aten.sigmoid.default])[1]
            _replace(graph, node, graph.graph.call_function(aten.mul.Tensor, (node.args[0], held)))


def split_padding_(graph: fx.GraphModule) -> None:
    """Average pooling that counts its padding becomes padding, on the grid of its input, and pooling; in place, among pairs.

    Left to itself the converter pads, and then rounds to the pooled result's grid before it averages, which saturates.
    """
    for node in graph.graph.find_nodes(op="call_function", target=aten.avg_pool2d.default):
        given = (*node.args, *_POOLING[len(node.args):])
        x, kernel, stride, padding, ceil, counted, divisor = given
        pair = x.target is torch.ops.quantized_decomposed.dequantize_per_tensor.default
        if not pair or not isinstance(padding, list | tuple) or not any(padding) or ceil or not counted or divisor is not None:
            continue
        rows, columns = padding[0], padding[-1]
        grid: tuple[Any, ...] = x.args[1:3]
        with graph.graph.inserting_before(node):
            padded = graph.graph.call_function(aten.constant_pad_nd.default, (x, [columns, columns, rows, rows], 0.0))
            held = per_tensor(graph, padded, *grid)[1]
            _replace(graph, node, graph.graph.call_function(aten.avg_pool2d.default, (held, kernel, stride)))


def _replace(graph: fx.GraphModule, node: fx.Node, new: fx.Node) -> None:
    """Put `new` in the place of `node`, under its name."""
    name, new.meta = node.name, dict(node.meta)
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)
    new.name = name
