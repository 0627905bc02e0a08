"""Rules for operators with weights: convolution, linear, embedding, normalisation, PReLU."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from lilliput.graph.labels import Field, compress, varying
from lilliput.graph.rules.base import Propagation, argument, rule


@rule("conv1d", "conv2d", "conv3d")
def convolution(p: Propagation, node: fx.Node) -> Field | None:
    """Weight `(out, in/groups, *kernel)`; channels are dimension 1 of `(N, C, *)`."""
    x, weight, bias = node.args[0], node.args[1], argument(node, 2, "bias")
    return _grouped(p, node, x, weight, bias, out_dim=0, in_dim=1, groups=argument(node, 6, "groups", 1))


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed(p: Propagation, node: fx.Node) -> Field | None:
    """Weight `(in, out/groups, *kernel)`; only ungrouped ones are resolved."""
    x, weight, bias = node.args[0], node.args[1], argument(node, 2, "bias")
    groups = argument(node, 6, "groups", 1)
    if groups != 1:
        return _unresolved(p, node, x, weight, bias, "grouped transposed convolution")
    return _grouped(p, node, x, weight, bias, out_dim=1, in_dim=0, groups=1)


def _unresolved(p: Propagation, node: fx.Node, x: Any, weight: Any, bias: Any, reason: str) -> Field | None:
    p.pin(x)
    for parameter in (weight, bias):
        if isinstance(parameter, fx.Node):
            for dim in range(len(p.shape(parameter))):
                p.bind(parameter, dim, None)
    p.excluded[node.name] = reason
    return None


def _grouped(p: Propagation, node: fx.Node, x: Any, weight: Any, bias: Any, *, out_dim: int, in_dim: int,
             groups: int) -> Field | None:
    ndim = len(p.shape(node))
    axis = 1 if ndim == len(p.shape(weight)) else 0  # unbatched inputs have their channels first
    if weight.op != "get_attr":
        return _unresolved(p, node, x, weight, bias, "computed weight")
    inputs = p.channel_vector(x, axis)
    outputs = p.vector(weight, out_dim)
    p.bind(bias, 0, outputs)
    if groups == 1:
        p.bind(weight, in_dim, inputs)
    else:
        p.bind(weight, in_dim, _tie_groups(p, inputs, outputs, p.shape(weight)[in_dim], groups))
    p.producers[node] = (p.name(weight), out_dim)
    return p.lay(outputs, axis, ndim)


def _tie_groups(p: Propagation, inputs: Field | None, outputs: Field, width: int, groups: int) -> Field | None:
    """Tie channels of a grouped convolution; returns the labels for the weight's input dimension.

    Either whole groups go (their inputs and outputs together), or the same position goes in every group.
    Whole groups keep the width that kernels are tuned for and are taken where that leaves more units.
    """
    rows = outputs.reshape(groups, -1)
    if inputs is None:
        if width == 1 or groups >= width:
            p.labels.pin(outputs)
        else:
            p.labels.tie_along(rows, [0])
        return None
    columns = inputs.reshape(groups, width)
    if groups >= width:
        p.labels.tie_along(columns, [1])
        p.labels.tie(rows, columns[:, :1])
        return None
    p.labels.tie_along(rows, [0])
    return p.labels.tie_along(columns, [0]).reshape(-1)


@rule("linear")
def linear(p: Propagation, node: fx.Node) -> Field | None:
    """Weight `(out, in)` on the last dimension."""
    x, weight, bias = node.args[0], node.args[1], argument(node, 2, "bias")
    assert isinstance(weight, fx.Node)
    if weight.op != "get_attr":
        return _unresolved(p, node, x, weight, bias, "computed weight")
    return dense(p, node, x, weight, bias, out_dim=0)


def dense(p: Propagation, node: fx.Node, x: Any, weight: fx.Node, bias: Any, *, out_dim: int) -> Field | None:
    """A product with a two-dimensional weight whose other dimension is contracted with `x`'s last."""
    found = p.field(x)
    ndim = len(p.shape(node))
    outputs = p.vector(weight, out_dim)
    p.producers[node] = (p.name(weight), out_dim)
    if found is not None and found.shape[-1] == 1:
        # Channels lie elsewhere and pass through (token mixing); this layer itself stays whole.
        p.bind(weight, 1 - out_dim, None)
        p.labels.pin(outputs)
        p.bind(bias, 0, None)
        return found
    inputs = None if found is None else p.channel_vector(x, found.ndim - 1)
    p.bind(weight, 1 - out_dim, inputs)
    p.bind(bias, 0, outputs)
    return p.lay(outputs, -1, ndim)


@rule("embedding")
def embedding(p: Propagation, node: fx.Node) -> Field | None:
    """Weight `(vocabulary, features)`: features become the last dimension."""
    weight = node.args[0]
    assert isinstance(weight, fx.Node)
    p.bind(weight, 0, None)
    p.producers[node] = (p.name(weight), 1)
    return p.lay(p.vector(weight, 1), -1, len(p.shape(node)))


@rule("batch_norm", "instance_norm")
def channel_norm(p: Propagation, node: fx.Node) -> Field | None:
    """Scale, shift and statistics follow dimension 1."""
    vector = p.channel_vector(node.args[0], 1)  # type: ignore[arg-type]
    for parameter in node.args[1:5]:
        p.bind(parameter, 0, vector)
    return None if vector is None else p.lay(vector, 1, len(p.shape(node)))


@rule("group_norm")
def group_norm(p: Propagation, node: fx.Node) -> Field | None:
    """Whole groups go, so that the statistics of those that stay do not change."""
    vector = p.channel_vector(node.args[0], 1)  # type: ignore[arg-type]
    groups = int(node.args[1])  # type: ignore[arg-type]
    if vector is not None and groups > 1:
        p.labels.tie_along(vector.reshape(groups, -1), [1])
    for position, name in ((2, "weight"), (3, "bias")):
        p.bind(argument(node, position, name), 0, vector)
    return None if vector is None else p.lay(vector, 1, len(p.shape(node)))


@rule("layer_norm", "rms_norm")
def layer_norm(p: Propagation, node: fx.Node) -> Field | None:
    """Scale and shift follow the normalised dimensions; statistics are taken over the channels that stay."""
    x, normalised = node.args[0], node.args[1]
    assert isinstance(normalised, (list, tuple))
    found = p.field(x)
    parameters = [argument(node, 2, "weight"), argument(node, 3, "bias")]
    first = len(p.shape(node)) - len(normalised)
    if found is None or not any(axis >= first for axis in varying(found)):
        for parameter in parameters:
            p.pin(parameter)
        return found
    if len(normalised) == 1:
        vector = p.channel_vector(x, found.ndim - 1)  # type: ignore[arg-type]
        for parameter in parameters:
            p.bind(parameter, 0, vector)
        return None if vector is None else p.lay(vector, -1, found.ndim)
    found = p.labels.tie_along(found, range(first))
    for parameter in parameters:
        whole = p.field(parameter)
        if whole is not None:
            p.labels.tie(whole, found.reshape(found.shape[first:]))
    return found


@rule("prelu", "_prelu_kernel")
def prelu(p: Propagation, node: fx.Node) -> Field | None:
    """One slope per channel, or one for all."""
    slope = node.args[1]
    assert isinstance(slope, fx.Node)
    if int(np.prod(p.shape(slope))) > 1 and slope.op == "get_attr":
        p.bind(slope, 0, p.channel_vector(node.args[0], 1))  # type: ignore[arg-type]
    return compress(p.field(node.args[0]))
