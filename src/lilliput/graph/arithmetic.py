"""Multiply-accumulates of each operator, from concrete shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import fx

from lilliput.graph.rules.base import op_name

Shape = tuple[int, ...]
_Count = Callable[[fx.Node, Callable[[Any], Shape]], int]


def macs(node: fx.Node, shape: Callable[[Any], Shape]) -> int:
    """Multiply-accumulates of one node; `shape` gives the shape of a node's value. Zero for operators that do none.

    Convolution, linear, matrix products, einsum, attention and recurrent layers count; elementwise work, pooling and
    normalisation do not, which is how `torch.utils.flop_counter` and the literature count.
    """
    count = _COUNTS.get(op_name(node)) if node.op == "call_function" else None
    return count(node, shape) if count else 0


def _convolution(node: fx.Node, shape: Callable[[Any], Shape]) -> int:
    return math.prod(shape(node)) * math.prod(shape(node.args[1])[1:])


def _transposed(node: fx.Node, shape: Callable[[Any], Shape]) -> int:
    return math.prod(shape(node.args[0])) * math.prod(shape(node.args[1])[1:])


def _last(node: fx.Node, shape: Callable[[Any], Shape]) -> int:
    return math.prod(shape(node)) * shape(node.args[0])[-1]


def _added(node: fx.Node, shape: Callable[[Any], Shape]) -> int:
    return math.prod(shape(node)) * shape(node.args[1])[-1]


def _bilinear(node: fx.Node, shape: Callable[[Any], Shape]) -> int:
    return math.prod(shape(node)) * math.prod(shape(node.args[2])[1:])


def _einsum(node: fx.Node, shape: Callable[[Any], Shape]) -> int:
    terms = str(node.args[0]).replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, node.args[1], strict=True):  # type: ignore[arg-type]
        sizes.update(zip(term, shape(operand), strict=False))
    return math.prod(sizes.values()) if len(terms) > 1 else 0


def _attention(node: fx.Node, shape: Callable[[Any], Shape]) -> int:
    query, key, value = (shape(a) for a in node.args[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(node: fx.Node, shape: Callable[[Any], Shape]) -> int:
    steps = math.prod(shape(node.args[0])[:2])
    weights: Any = node.args[2]
    return steps * sum(math.prod(shape(w)) for w in weights if len(shape(w)) == 2)


def _cell(node: fx.Node, shape: Callable[[Any], Shape]) -> int:
    return shape(node.args[0])[0] * sum(math.prod(shape(w)) for w in node.args[2:4])


_COUNTS: dict[str, _Count] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    **dict.fromkeys(("linear", "matmul", "mm", "bmm"), _last),
    **dict.fromkeys(("addmm", "baddbmm"), _added),
    "bilinear": _bilinear,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
}
