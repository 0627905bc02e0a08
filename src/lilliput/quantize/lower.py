"""Lowering: rewrite operators that hide float arithmetic inside into operators whose edges can all be quantized."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.graph.fold import drop_unused_tensors_, foldable, set_parameter_
from lilliput.graph.shapes import fake_values
from lilliput.graph.trace import Traced

aten = torch.ops.aten
Values = dict[fx.Node, Any]
_CONVOLUTION = {3: aten.conv1d.default, 4: aten.conv2d.default, 5: aten.conv3d.default}
_BINARY = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.rsub.Scalar,
           aten.add.Scalar, aten.sub.Scalar, aten.mul.Scalar, aten.div.Scalar)


def lower_(traced: Traced) -> None:
    """Rewrite the graph in place; in evaluation its outputs stay the same up to rounding.

    Attention becomes products and a softmax; a batch norm that could not be folded a depthwise convolution; arithmetic
    with Python numbers arithmetic with constants; the mean over all positions a pooling; idle dropouts go.
    """
    values = fake_values(traced, traced.example)
    rules: dict[Any, Callable[[Traced, fx.Node, Values], fx.Node | None]] = {
        aten.scaled_dot_product_attention.default: _attention,
        aten.batch_norm.default: _depthwise,
        aten.mean.dim: _pooling,
        aten.dropout.default: _no_dropout,
        **dict.fromkeys(_BINARY, _constant),
    }
    for node in list(traced.graph.nodes):
        rule = rules.get(node.target) if node.op == "call_function" else None
        if rule is None:
            continue
        with traced.graph.inserting_before(node):
            new = rule(traced, node, values)
        if new is not None:
            values[new] = values[node]  # for the rules of those who read it
            node.replace_all_uses_with(new)
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    drop_unused_tensors_(traced)
    traced.recompile()


def _attention(traced: Traced, node: fx.Node, values: Values) -> fx.Node:
    """`softmax(q k' s + mask) v`, the scale applied to the queries, the smaller of the two tensors."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    query, key, value = (given[name] for name in names[:3])
    scale = given.get("scale") or 1 / math.sqrt(values[query].shape[-1])
    call = traced.graph.call_function
    if given.get("enable_gqa"):
        times = int(values[query].shape[-3]) // int(values[key].shape[-3])
        key, value = (call(aten.repeat_interleave.self_int, (n, times, -3)) for n in (key, value))
    scaled = call(aten.mul.Tensor, (query, _number(traced, node, scale)))
    scores = call(aten.matmul.default, (scaled, call(aten.transpose.int, (key, -2, -1))))
    mask = given.get("attn_mask")
    if given.get("is_causal"):
        sizes = [call(aten.sym_size.int, (n, -2)) for n in (query, key)]
        ones = call(aten.ones.default, (sizes,), {"dtype": torch.bool, "device": values[query].device})
        scores = call(aten.masked_fill.Scalar, (scores, call(aten.logical_not.default, (call(aten.tril.default, (ones,)),)), -math.inf))
    elif mask is not None and values[mask].dtype == torch.bool:
        scores = call(aten.masked_fill.Scalar, (scores, call(aten.logical_not.default, (mask,)), -math.inf))
    elif mask is not None:
        scores = call(aten.add.Tensor, (scores, mask))
    weights = call(aten.softmax.int, (scores, -1))
    if given.get("dropout_p"):
        weights = call(aten.dropout.default, (weights, given["dropout_p"], False))
    return call(aten.matmul.default, (weights, value))


def _number(traced: Traced, node: fx.Node, number: float) -> fx.Node:
    """A constant tensor of no dimensions."""
    name = f"constants.{node.name}"
    set_parameter_(traced, name, torch.tensor(float(number)), requires_grad=False)
    return traced.graph.get_attr(name)


def _constant(traced: Traced, node: fx.Node, values: Values) -> fx.Node | None:
    """Turn `x op number` into addition of, or multiplication with, a constant."""
    left, right = node.args[0], node.args[1]
    if node.kwargs or len(node.args) > 2:
        return None
    swapped = not isinstance(left, fx.Node)
    tensor, number = (right, left) if swapped else (left, right)
    if not isinstance(tensor, fx.Node) or not isinstance(number, int | float) or isinstance(number, bool):
        return None
    value = values[tensor]
    if not isinstance(value, Tensor) or not value.is_floating_point() or not math.isfinite(number):
        return None
    kind = str(node.target).split(".")[1]
    if kind == "rsub" or (swapped and kind in ("sub", "div")) or (kind == "div" and number == 0):
        return None
    number = -number if kind == "sub" else 1 / number if kind == "div" else number
    target = aten.add.Tensor if kind in ("add", "sub") else aten.mul.Tensor
    return traced.graph.call_function(target, (tensor, _number(traced, node, number)))


def _depthwise(traced: Traced, node: fx.Node, values: Values) -> fx.Node | None:
    """`x g / sqrt(v + e) + (beta - m g / sqrt(v + e))` per channel, as a depthwise convolution with kernel size one."""
    x, *tensors = node.args[:5]
    assert isinstance(x, fx.Node)
    target = _CONVOLUTION.get(values[x].ndim)
    if foldable(traced, node):
        return None  # stays part of the layer before it while that is trained
    if target is None or tensors[2] is None or tensors[3] is None:
        return None
    gain, shift, mean, variance = (traced.tensor(str(n.target)).detach().double() if isinstance(n, fx.Node) else None for n in tensors)
    eps = node.args[7]
    assert isinstance(eps, float)
    assert mean is not None
    assert variance is not None
    factor = (variance + eps).rsqrt() * (1 if gain is None else gain)
    bias = (0 if shift is None else shift) - mean * factor
    owner = str(tensors[2].target).rpartition(".")[0] if isinstance(tensors[2], fx.Node) else node.name
    constants = []
    for leaf, value in (("weight", factor.reshape(-1, *[1] * (values[x].ndim - 1))), ("bias", bias)):
        # The normalisation's own parameters keep their names, so the new ones go beside them.
        name = f"{owner}.folded_{leaf}" if owner else f"folded_{leaf}"
        set_parameter_(traced, name, value.to(values[x].dtype))
        constants.append(traced.graph.get_attr(name))
    ones = [1] * (values[x].ndim - 2)
    return traced.graph.call_function(target, (x, *constants, ones, [0] * len(ones), ones, len(factor)))


def _pooling(traced: Traced, node: fx.Node, values: Values) -> fx.Node | None:
    """The mean over both spatial dimensions."""
    x, dims = node.args[:2]
    assert isinstance(x, fx.Node)
    if values[x].ndim != 4 or not isinstance(dims, list | tuple) or {int(d) % 4 for d in dims} != {2, 3} or node.kwargs:  # type: ignore[arg-type]
        return None
    pooled = traced.graph.call_function(aten.adaptive_avg_pool2d.default, (x, [1, 1]))
    keep = len(node.args) > 2 and node.args[2]
    return pooled if keep else traced.graph.call_function(aten.flatten.using_ints, (pooled, 1))


def _no_dropout(traced: Traced, node: fx.Node, values: Values) -> fx.Node | None:  # noqa: ARG001
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source if node.args[1] == 0 else None


def is_float(value: Any) -> bool:
    """Whether a recorded value is one tensor of floating point."""
    return isinstance(value, Tensor) and value.is_floating_point()


def parts(node: fx.Node) -> list[fx.Node]:
    """The nodes that pick single results out of a node with several."""
    return [user for user in node.users if user.target is operator.getitem]
