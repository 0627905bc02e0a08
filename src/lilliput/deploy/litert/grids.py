"""Simulated quantization, as it stands in an exported graph, becomes the pairs that LiteRT's converter fuses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from lilliput.core.errors import PreconditionError
from lilliput.deploy.litert.extra import needed
from lilliput.deploy.litert.flatbuffer import Value
from lilliput.graph.products import LAYERS

# LiteRT's weights have no code -128: kernels multiply them in pairs that would leave sixteen bits.
_WEIGHTS = 127
_ACCUMULATOR = 2**31 - 1
aten = torch.ops.aten
# Kernels that write to one grid, whatever is asked for: scale and zero point of their result.
FIXED = {aten.softmax.int: (1 / 256, -128), aten.sigmoid.default: (1 / 256, -128), aten.tanh.default: (1 / 128, 0)}


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A quantized activation: its name in the ONNX file, its grid in int8, its values to a sample, and the two nodes that stand for it."""

    name: str
    scale: float
    zero_point: int
    size: int
    pair: tuple[fx.Node, fx.Node]

    def same(self, value: Value) -> bool:
        """Whether a tensor of the file has as many values on this grid."""
        return (value.kind == "INT8" and value.scale.tolist() == [self.scale] and value.zero_point.tolist() == [self.zero_point]
                and math.prod(value.shape) == self.size)


def to_pairs_(graph: fx.GraphModule) -> dict[str, Edge]:
    """Replace every simulated quantizer, in place; the edges by the name of the node whose values they round.

    Activations get the pair per tensor, constants per channel; biases become their values, which the converter turns back into the
    accumulator's integers. LiteRT's softmax, sigmoid and tanh write to grids of their own, and these edges take them over.

    Raises `PreconditionError` where there is none, or a grid that int8 does not hold.
    """
    nodes = [node for node in graph.graph.nodes if node.op == "call_function" and _name(node).startswith("lilliput::")]
    if not nodes:
        raise PreconditionError("the network is not quantized, and a full-integer file has no floating point: "
                                "first lilliput.quantize.minmax()(model, data), or another static method")
    needed("torch.ao.quantization.fx._decomposed")  # defines the operators of the pairs
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    names = {node: "input" if len(inputs) == 1 else f"input_{i}" for i, node in enumerate(inputs, 1)}
    fixed = {_owner(node): FIXED[node.args[0].target] for node in nodes if isinstance(node.args[0], fx.Node) and node.args[0].target in FIXED}
    edges: dict[str, Edge] = {}
    for node in nodes:
        if _name(node) != "lilliput::fake_quantize":
            raise PreconditionError(f"{node.name}: {_name(node).partition('::')[2]} has no integer form in LiteRT, whose grids are integer and "
                                    "static; quantize with a static method (quantize.minmax), or export to ONNX")
        source = node.args[0]
        assert isinstance(source, fx.Node)
        with graph.graph.inserting_before(node):
            if source.op == "get_attr":
                new = _constant(graph, node, source)
            else:
                edge = _activation(graph, node, names.get(source, source.name), fixed.get(_owner(node)))
                new = edge.pair[1]
                edges[source.name if source.name not in edges else node.name] = edge
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return edges


def _owner(node: fx.Node) -> str:
    """The scale that a quantizer rounds with, by name: operators that only move values have that of their input."""
    return str(node.args[1].target) if isinstance(node.args[1], fx.Node) else ""


def _name(node: fx.Node) -> str:
    target = node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else ""


def _tensor(graph: fx.GraphModule, node: object, of: str) -> Tensor:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        raise PreconditionError(f"{of}: scale and zero point must be constant to be exported; call .eval() on the network first")
    owner, _, leaf = str(node.target).rpartition(".")
    value = getattr(graph.get_submodule(owner), leaf)
    assert isinstance(value, Tensor)
    return value.detach()


def _limits(node: fx.Node) -> tuple[int, int]:
    low, high = node.args[3], node.args[4]
    assert isinstance(low, int)
    assert isinstance(high, int)
    return low, high


def _activation(graph: fx.GraphModule, node: fx.Node, name: str, fixed: tuple[float, int] | None) -> Edge:
    scale, zero_point = (_tensor(graph, argument, name) for argument in node.args[1:3])
    low, high = _limits(node)
    if scale.numel() != 1:
        raise PreconditionError(f"{name} has a scale to the channel, and LiteRT's activations one to the tensor: quantize activations with axis=None")
    if (low, high) not in ((0, 255), (-128, 127)):
        raise PreconditionError(f"{name} has codes from {low} to {high}, and LiteRT's activations all 256 of eight bits: "
                                "quantize activations with Integer(bits=8, signed=False, symmetric=False), the default")
    step, moved = fixed or (float(scale), int(zero_point) - (128 if low == 0 else 0))
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return Edge(name=name, scale=step, zero_point=moved, size=math.prod(source.meta["val"].shape[1:]),
                pair=per_tensor(graph, source, step, moved))


def per_tensor(graph: fx.GraphModule, x: Any, scale: float, zero_point: int) -> tuple[fx.Node, fx.Node]:
    """The pair behind `x`."""
    operators, arguments = torch.ops.quantized_decomposed, (scale, zero_point, -128, 127, torch.int8)
    first = graph.graph.call_function(operators.quantize_per_tensor.default, (x, *arguments))
    return first, graph.graph.call_function(operators.dequantize_per_tensor.default, (first, *arguments))


def _constant(graph: fx.GraphModule, node: fx.Node, source: fx.Node) -> fx.Node:
    """The constant with its values on the grid: as they are on the accumulator's, behind a pair otherwise."""
    name = str(source.target)
    scale, zero_point = (_tensor(graph, argument, name) for argument in node.args[1:3])
    axis = node.args[5]
    assert isinstance(axis, int)
    values = torch.ops.lilliput.fake_quantize(_tensor(graph, source, name), scale, zero_point, *_limits(node), axis)
    key = f"{node.name}_values"
    graph.register_buffer(key, values)
    held = graph.graph.get_attr(key)
    if _limits(node)[1] == _ACCUMULATOR:
        return held
    if axis < 0 and _limits(node) == (0, 255) and not _weighs(node):
        return per_tensor(graph, held, float(scale), int(zero_point) - 128)[1]
    _weight_fits(name, values, scale, zero_point, axis)
    if axis < 0:
        return per_tensor(graph, held, float(scale), 0)[1]
    operators = torch.ops.quantized_decomposed
    parameters = []
    for suffix, tensor in (("scales", scale), ("zeros", torch.zeros(len(scale), dtype=torch.int64))):
        graph.register_buffer(f"{node.name}_{suffix}", tensor.clone())
        parameters.append(graph.graph.get_attr(f"{node.name}_{suffix}"))
    arguments: tuple[Any, ...] = (*parameters, axis, -_WEIGHTS, _WEIGHTS, torch.int8)
    first = graph.graph.call_function(operators.quantize_per_channel.default, (held, *arguments))
    return graph.graph.call_function(operators.dequantize_per_channel.default, (first, *arguments))


def _weighs(node: fx.Node) -> bool:
    """Whether a layer takes the node for its weight."""
    return any(user.target in LAYERS and user.args[1] is node for user in node.users)


def _weight_fits(name: str, values: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> None:
    if zero_point.any():
        raise PreconditionError(f"{name} has a zero point, and LiteRT's weights have none: quantize weights with Integer(symmetric=True, axis=0)")
    shape = [-1 if dim == axis else 1 for dim in range(values.ndim)] if axis >= 0 else []
    codes = np.rint((values / scale.reshape(shape)).numpy())
    if codes.size and np.abs(codes).max() > _WEIGHTS:
        raise PreconditionError(f"{name} has codes from {codes.min():.0f} to {codes.max():.0f}, and LiteRT's weights lie in [-127, 127]: "
                                "quantize weights with Integer(bits=8, symmetric=True, axis=0), the default, whose codes end there")
