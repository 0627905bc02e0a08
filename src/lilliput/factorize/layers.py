"""The layers of a traced network whose weights can be rewritten, and why the others cannot."""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError
from lilliput.core.patterns import matching
from lilliput.graph.fold import CONVOLUTIONS, TRANSPOSED
from lilliput.graph.recurrent import is_recurrent
from lilliput.graph.rules import argument
from lilliput.graph.shapes import shapes
from lilliput.graph.trace import Traced, trace

aten = torch.ops.aten
LAYERS = frozenset({*CONVOLUTIONS, aten.linear.default})


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution or a linear layer whose weight no one else uses.

    `node` is the name of its node, `shape` the weight's, `(out, in / groups, *kernel)`. `inputs` and `outputs` are the sides of
    the images that it reads and makes, for a linear layer the extents before the last (tokens); the other spatial settings
    are empty for a linear layer.
    """

    name: str
    node: str
    weight: str
    bias: str | None
    shape: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def kernel(self) -> tuple[int, ...]:
        """Sides of the kernel; empty for a linear layer."""
        return self.shape[2:]

    @property
    def positions(self) -> int:
        """Results per sample that share the weight: pixels of the output, or tokens."""
        return math.prod(self.outputs)

    @property
    def params(self) -> int:
        """Weights, biases aside."""
        return math.prod(self.shape)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample."""
        return self.positions * self.params


def prepared(model: nn.Module, data: Any, method: str) -> Traced:
    """A traced copy of the model in evaluation; raises `PreconditionError` where it cannot be traced, or is quantized."""
    if not isinstance(model, Traced) and data is None:
        raise PreconditionError("an untraced model needs an example to trace it: pass data=, or trace it first")
    traced = model if isinstance(model, Traced) else trace(model, data.example())
    if any(n.op == "call_module" or "lilliput" in str(n.target) for n in traced.graph.nodes):
        raise PreconditionError(f"this network is quantized: apply {method} first, then quantize")
    return copy.deepcopy(traced).eval()


def node_of(traced: Traced, layer: Layer) -> fx.Node:
    """The layer's node in this network or a copy of it."""
    found: fx.Node = next(n for n in traced.graph.nodes if n.name == layer.node)
    return found


def matrix(weight: Tensor) -> Tensor:
    """The weight as `(out, in * kernel)`, in double precision."""
    return weight.detach().double().flatten(1)


def find(traced: Traced, exclude: tuple[str, ...] = ()) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """Every layer in the order in which they run, and a note for each that has to stay as it is.

    Left out are layers that match a pattern of `exclude`, that share their weight, whose weight is computed, that pad
    unevenly, transposed convolutions, and recurrent layers. Raises `UnknownNameError` for a pattern that matches nothing.
    """
    uses = Counter(str(n.target) for n in traced.graph.nodes if n.op == "get_attr" for _ in n.users)
    found: list[Layer] = []
    notes = [f"{node.name} left as it is: a recurrent layer" for node in traced.graph.nodes if is_recurrent(node)]
    sizes = shapes(traced)
    nodes = {node: _name(node) for node in traced.graph.nodes if node.op == "call_function" and node.target in (*LAYERS, *TRANSPOSED)}
    excluded = matching(exclude, nodes.values())
    for node, name in nodes.items():
        weight = node.args[1]
        reason = "excluded" if name in excluded else _refusal(node, uses)
        if not reason and _padding(node, tuple(sizes[weight][2:])) is None:
            reason = "it pads one side more than the other"
        if reason:
            notes.append(f"{name} left as it is: {reason}")
        else:
            found.append(_layer(traced, node, name, (sizes[node.args[0]], sizes[node])))
    return tuple(found), tuple(notes)


def _name(node: fx.Node) -> str:
    """The module's whose weight the node uses, or the node's own."""
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    return str(weight.target).rpartition(".")[0] or str(weight.target) if weight.op == "get_attr" else node.name


def _refusal(node: fx.Node, uses: Counter[str]) -> str:
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    if weight.op != "get_attr":
        return "its weight is computed in the graph"
    if node.target in TRANSPOSED:
        return "a transposed convolution"
    if uses[str(weight.target)] > 1:
        return "its weight is used more than once"
    bias = argument(node, 2, "bias")
    if isinstance(bias, fx.Node) and bias.op != "get_attr":
        return "its bias is computed in the graph"
    return ""


def _padding(node: fx.Node, kernel: tuple[int, ...]) -> tuple[int, ...] | None:
    """Zeros on either side; `None` where `"same"` needs more of them on one."""
    padding = argument(node, 4, "padding", 0)
    if not isinstance(padding, str):
        return _settings(padding, len(kernel))
    dilation = _settings(argument(node, 5, "dilation", 1), len(kernel))
    total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
    return None if any(t % 2 for t in total) else tuple(t // 2 for t in total)


def _layer(traced: Traced, node: fx.Node, name: str, sizes: tuple[tuple[int, ...], tuple[int, ...]]) -> Layer:
    weight, bias = node.args[1], argument(node, 2, "bias")
    assert isinstance(weight, fx.Node)
    shape = tuple(traced.tensor(str(weight.target)).shape)
    kernel, linear = shape[2:], node.target is aten.linear.default
    span = slice(1, -1) if linear else slice(2, None)
    spatial: dict[str, tuple[int, ...]] = {} if linear else {
        "stride": _settings(argument(node, 3, "stride", 1), len(kernel)), "padding": _padding(node, kernel) or (),
        "dilation": _settings(argument(node, 5, "dilation", 1), len(kernel))}
    return Layer(name=name, node=node.name, weight=str(weight.target), bias=str(bias.target) if isinstance(bias, fx.Node) else None,
                 shape=shape, inputs=tuple(sizes[0][span]), outputs=tuple(sizes[1][span]), **spatial,
                 groups=1 if linear else int(argument(node, 6, "groups", 1)))


def _settings(value: object, dims: int) -> tuple[int, ...]:
    items: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    return tuple(int(v) for v in items) if len(items) == dims else (int(items[0]),) * dims
