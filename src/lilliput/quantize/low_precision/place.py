"""Placement: a network's layers and batch norms exchanged for emulated ones, for the time of training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from lilliput.core.errors import PreconditionError
from lilliput.graph.shapes import shapes
from lilliput.graph.trace import Traced
from lilliput.quantize.low_precision.arithmetic import Plan
from lilliput.quantize.low_precision.layers import Layer
from lilliput.quantize.low_precision.range_norm import RangeBatchNorm, RangeNorm
from lilliput.quantize.low_precision.windows import Dense, Geometry, Window, pair, same_padding
from lilliput.quantize.operators import LAYERS, layer_name

aten = torch.ops.aten
_HOME = "low_precision"
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
_PADDED = (aten.conv1d.padding, aten.conv2d.padding)


def layer_names(traced: Traced) -> list[str]:
    """Layers that can be emulated, in the order in which they run."""
    return list(dict.fromkeys(layer_name(node) for node in traced.graph.nodes if _emulated(node)))


def weight_names(traced: Traced) -> dict[str, str]:
    """The weight's name of each layer that can be emulated; weights that are computed are left out."""
    nodes = [node for node in traced.graph.nodes if _emulated(node)]
    return {layer_name(node): str(node.args[1].target) for node in nodes if getattr(node.args[1], "op", "") == "get_attr"}


def emulated(traced: Traced, plan: Plan, norm: RangeNorm | None = None) -> tuple[Traced, list[str]]:
    """A copy whose layers compute as `plan` says, and batch norms, where `norm` is set, by the range; and notes on the rest.

    Parameters and buffers keep their names. Convolutions over three dimensions and transposed ones stay in float32.
    Raises `PreconditionError` on a network without linear layers and convolutions.
    """
    traced = copy.deepcopy(traced)
    names = layer_names(traced)
    if not names:
        raise PreconditionError("the network has no linear layer and no convolution over one or two dimensions, so nothing to emulate")
    arithmetic, sizes, notes = plan(names), shapes(traced), []
    for node in list(traced.graph.nodes):
        if _emulated(node):
            name = layer_name(node)
            _replace_(traced, node, Layer(name, arithmetic[name], _geometry(node, sizes[node.args[1]])), tuple(node.args[:3]))
        elif node.target in LAYERS:
            notes.append(f"{layer_name(node)} stays in float32: {node.target} is not emulated")
        elif norm is not None and node.target is aten.batch_norm.default:
            if None in node.args[3:5]:
                notes.append(f"{layer_name(node)} stays a batch norm: it keeps no running statistics")
            else:
                module = RangeBatchNorm(layer_name(node), norm, float(node.args[6]), float(node.args[7]))
                _replace_(traced, node, module, tuple(node.args[:5]))
    traced.graph.lint()
    traced.recompile()
    return traced, notes


def original_(traced: Traced, trained: nn.Module) -> Traced:
    """Write into `traced`, the network before emulation, what training made of its parameters and buffers."""
    tensors: dict[str, Any] = dict(trained.state_dict())
    own = traced.state_dict()
    traced.load_state_dict({name: tensors[name] for name in own if name in tensors}, strict=False)
    return traced


def _emulated(node: fx.Node) -> bool:
    return node.target in (*_CONVOLUTIONS, *_PADDED, aten.linear.default)


def _replace_(traced: Traced, node: fx.Node, module: nn.Module, arguments: tuple[Any, ...]) -> None:
    target = f"{_HOME}.{node.name}"
    traced.add_submodule(target, module)
    with traced.graph.inserting_before(node):
        new = traced.graph.call_module(target, arguments)
    node.replace_all_uses_with(new)
    traced.graph.erase_node(node)


def _geometry(node: fx.Node, weight: tuple[int, ...]) -> Geometry:
    """The window of a convolution's node, whose weight has this shape, or that the layer is dense."""
    if node.target is aten.linear.default:
        return Dense()
    given: list[Any] = [*node.args[3:], *[None] * 4]
    stride, dilation = pair(given[0] or [1, 1]), pair(given[2] or [1, 1])
    groups = int(given[3] or 1)
    if node.target in _CONVOLUTIONS:
        rows, columns = pair(given[1] or [0, 0])
        rows = 0 if "conv1d" in str(node.target) else rows
        return Window(stride=stride, padding=(rows, rows, columns, columns), dilation=dilation, groups=groups)
    padding = (0, 0, 0, 0)
    if given[1] == "same":
        padding = same_padding(pair(list(weight[2:])), dilation)
    return Window(stride=stride, padding=padding, dilation=dilation, groups=groups)
