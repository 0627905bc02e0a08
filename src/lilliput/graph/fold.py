"""Batch-norm folding: a normalisation with fixed statistics becomes part of the layer before it."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import PreconditionError
from lilliput.graph.shapes import shapes
from lilliput.graph.tables import table_of
from lilliput.graph.trace import Traced

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv1d.padding, aten.conv2d.padding,
                aten.conv3d.padding)
TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
# Position of `groups` in the transposed convolutions.
_GROUPS = 6


def fold_batchnorm(traced: Traced) -> Traced:
    """Fold every batch norm that directly follows a convolution or a linear layer into it; the rest stay.

    `w' = w g / sqrt(v + e)`, `b' = (b - m) g / sqrt(v + e) + beta` per output channel, computed in float64. Exact up
    to rounding in evaluation. The result is a new network; the layer gains a bias if it had none, and keeps its name.

    Raises `PreconditionError` if the network is in training mode, where the statistics are those of each batch.
    """
    traced = copy.deepcopy(traced)
    fold_batchnorm_(traced)
    return traced


def fold_batchnorm_(traced: Traced, *, keep: Collection[Any] = ()) -> None:
    """The same, in place; batch norms after the operators in `keep` stay."""
    for node in list(traced.graph.nodes):
        if node.target is not aten.batch_norm.default or (isinstance(node.args[0], fx.Node) and node.args[0].target in keep):
            continue
        if node.args[5]:
            raise PreconditionError(f"{node.name} is in training mode and cannot be folded: call .eval() on the network first")
        if foldable(traced, node):
            _fold_(traced, node)
    traced.graph.eliminate_dead_code()
    drop_unused_tensors_(traced)
    traced.recompile()


def foldable(traced: Traced, node: fx.Node) -> bool:
    """Whether the batch norm `node` directly follows a convolution or linear layer that can take it in."""
    layer = node.args[0]
    if not isinstance(layer, fx.Node) or len(layer.users) > 1 or node.args[3] is None or node.args[4] is None:
        return False
    weight = layer.args[1] if len(layer.args) > 1 else None
    bias = layer.args[2] if len(layer.args) > 2 else None
    if not _constant(weight) and (table_of(weight) is None or layer.target in TRANSPOSED):
        return False
    if bias is not None and not _constant(bias):
        return False
    if layer.target in CONVOLUTIONS or layer.target in TRANSPOSED:
        return True
    # On more than two dimensions batch norm takes the second for its channels, a linear layer the last.
    return layer.target is aten.linear.default and len(shapes(traced)[layer]) == 2


def _constant(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def _tensor(traced: Traced, node: object) -> Tensor | None:
    return traced.tensor(str(node.target)).detach().double() if isinstance(node, fx.Node) else None


def affine(traced: Traced, node: fx.Node, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What the batch norm `node` does after a bias, as `x factor + shift`: both `(channels,)`, float64."""
    gain, shift, mean, variance = (_tensor(traced, n) for n in node.args[1:5])
    eps = node.args[7]
    assert mean is not None
    assert variance is not None
    assert isinstance(eps, float)
    factor = (variance + eps).rsqrt() * (1 if gain is None else gain)
    return factor, (-mean if bias is None else bias - mean) * factor + (0 if shift is None else shift)


def _fold_(traced: Traced, node: fx.Node) -> None:
    layer = node.args[0]
    assert isinstance(layer, fx.Node)
    weight_node, bias_node = layer.args[1], layer.args[2] if len(layer.args) > 2 else None
    bias = _tensor(traced, bias_node)
    assert isinstance(weight_node, fx.Node)
    factor, bias = affine(traced, node, bias)
    table = table_of(weight_node)
    if table is not None:
        _scale_(traced, layer, table, (factor, bias))
        node.replace_all_uses_with(layer)
        traced.graph.erase_node(node)
        return
    weight = _tensor(traced, weight_node)
    assert weight is not None
    weight = scaled(weight, factor, layer)
    old = traced.tensor(str(weight_node.target))
    names = folded_names(traced, weight_node, bias_node if isinstance(bias_node, fx.Node) else None)
    with traced.graph.inserting_before(layer):
        nodes = []
        for name, value in zip(names, (weight, bias), strict=True):
            set_parameter_(traced, name, value.to(old.dtype), requires_grad=old.requires_grad)
            nodes.append(traced.graph.get_attr(name))
    layer.args = (layer.args[0], *nodes, *layer.args[3:])
    node.replace_all_uses_with(layer)
    traced.graph.erase_node(node)


def _scale_(traced: Traced, layer: fx.Node, table: fx.Node, channels: tuple[Tensor, Tensor]) -> None:
    """Give a layer whose weight is looked up in a table a factor to each output channel, after the lookup, and a bias."""
    old = traced.tensor(str(table.target))
    bias = layer.args[2] if len(layer.args) > 2 else None
    name = str(table.target).removesuffix("_table") + "_scale"
    taken = {str(n.target) for n in traced.graph.nodes if n.op == "get_attr"}
    while name in taken:
        name += "_"
    dims = 2 if layer.target is aten.linear.default else 2 + 1 + (CONVOLUTIONS.index(layer.target) % 3)
    names = (name, folded_names(traced, table, bias if isinstance(bias, fx.Node) else None)[1])
    with traced.graph.inserting_before(layer):
        nodes = []
        for key, value in zip(names, (channels[0].reshape(-1, *[1] * (dims - 1)), channels[1]), strict=True):
            set_parameter_(traced, key, value.to(old.dtype), requires_grad=old.requires_grad)
            nodes.append(traced.graph.get_attr(key))
        weight = traced.graph.call_function(aten.mul.Tensor, (layer.args[1], nodes[0]))
    layer.args = (layer.args[0], weight, nodes[1], *layer.args[3:])


def scaled(weight: Tensor, factor: Tensor, layer: fx.Node) -> Tensor:
    """Multiply the output channels of a layer's weight."""
    if layer.target not in TRANSPOSED:
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    groups = layer.args[_GROUPS] if len(layer.args) > _GROUPS else 1
    assert isinstance(groups, int)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    shape = (groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
    return (grouped * factor.reshape(shape)).reshape(weight.shape)


def folded_names(traced: Traced, weight: fx.Node, bias: fx.Node | None) -> tuple[str, str]:
    """Names for the folded tensors: the layer's own, or new ones where another layer shares them."""
    uses = [n for n in traced.graph.nodes if n.op == "get_attr" and n.target == weight.target]
    shared = sum(len(n.users) for n in uses) > 1
    name = str(weight.target) + ("_folded" if shared else "")
    owner = name.rpartition(".")[0]
    stem = f"{owner}.bias" if owner else "bias"
    if bias is not None and not shared:
        stem = str(bias.target)
        uses = [n for n in traced.graph.nodes if n.op == "get_attr" and n.target == stem]
        if sum(len(n.users) for n in uses) <= 1:
            return name, stem
    taken = {str(n.target) for n in traced.graph.nodes if n.op == "get_attr"}
    while name in taken and shared:
        name += "_"
    while stem in taken:
        stem += "_"
    return name, stem


def set_parameter_(traced: Traced, name: str, value: Tensor, *, requires_grad: bool = True) -> None:
    """Register a parameter under a dotted name, with the submodules on the way, replacing what was there."""
    owner, _, leaf = name.rpartition(".")
    module: torch.nn.Module = traced
    for part in owner.split(".") if owner else ():
        if part not in module._modules:
            module.add_module(part, torch.nn.Module())
        module = module.get_submodule(part)
    module._buffers.pop(leaf, None)
    module.register_parameter(leaf, torch.nn.Parameter(value.contiguous(), requires_grad=requires_grad))


def drop_unused_tensors_(traced: Traced) -> None:
    """Delete the parameters and buffers that no node reads, and the submodules left empty."""
    used = {str(n.target) for n in traced.graph.nodes if n.op == "get_attr"}
    called = tuple(f"{n.target}." for n in traced.graph.nodes if n.op == "call_module")
    for name, module in traced.named_modules():
        for leaf in [*module._parameters, *module._buffers]:
            full = f"{name}.{leaf}" if name else leaf
            if full not in used and not full.startswith(called):
                module._parameters.pop(leaf, None)
                module._buffers.pop(leaf, None)
    traced.delete_all_unused_submodules()
