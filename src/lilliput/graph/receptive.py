"""Receptive fields: how much of the input each value of a traced network follows from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from lilliput.core.errors import PreconditionError
from lilliput.graph.fold import CONVOLUTIONS
from lilliput.graph.rules.base import argument, op_name
from lilliput.graph.shapes import shapes
from lilliput.graph.trace import Traced

_POOLS = frozenset({"max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"})
# What takes each pixel by itself, or pixels at the same place of several images.
_POINTWISE = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min", "sigmoid", "tanh", "hardswish", "hardsigmoid", "silu", "gelu", "leaky_relu",
                        "elu", "add", "sub", "mul", "div", "cat", "batch_norm", "dropout", "clone", "contiguous", "alias"})


@dataclass(frozen=True, kw_only=True)
class Field:
    """Of one pixel of an image: pixels of the input that it follows from, and how many lie between those of its neighbour, per axis.

    `size' = size + (kernel - 1) dilation stride`, `stride' = stride * step`.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a window moves, a number for each axis."""

    kernel: tuple[int, ...]
    step: tuple[int, ...]
    dilation: tuple[int, ...]

    def over(self, field: Field) -> Field:
        """The field of what the window gives."""
        grown = zip(field.size, self.kernel, self.dilation, field.stride, strict=True)
        return Field(size=tuple(size + (kernel - 1) * dilation * stride for size, kernel, dilation, stride in grown),
                     stride=tuple(stride * step for stride, step in zip(field.stride, self.step, strict=True)))


def receptive_fields(traced: Traced) -> dict[fx.Node, Field]:
    """The field of every image, `(N, C, ...)`, that is computed by windows from the only input: the largest over all ways.

    Behind operators that see all of an image (global pooling, attention) or move pixels there are none.
    Raises `PreconditionError` for networks without exactly one image as input.
    """
    inputs = [n for n in traced.graph.nodes if n.op == "placeholder"]
    known = shapes(traced)
    if len(inputs) != 1 or len(known[inputs[0]]) < 3:
        raise PreconditionError(f"receptive fields are of networks with one image (N, C, ...) as input; this one has {len(inputs)} inputs of shapes "
                                f"{[known[n] for n in inputs]}")
    axes = len(known[inputs[0]]) - 2
    found = {inputs[0]: Field(size=(1,) * axes, stride=(1,) * axes)}
    for node in traced.graph.nodes:
        fields = [found[n] for n in node.all_input_nodes if n in found]
        if not fields:
            continue
        window = geometry(node, axes, known)
        if window is not None:
            found[node] = window.over(fields[0])
        elif op_name(node) in _POINTWISE and len({field.stride for field in fields}) == 1 and len(known[node]) == axes + 2:
            found[node] = Field(size=tuple(map(max, zip(*(field.size for field in fields), strict=True))), stride=fields[0].stride)
    return found


def geometry(node: fx.Node, axes: int, known: dict[fx.Node, Any]) -> Geometry | None:
    """The window of a convolution or pooling over images of that many axes, None for other operators."""
    if node.target in CONVOLUTIONS:
        kernel: tuple[int, ...] = known[node.args[1]][2:]  # type: ignore[index]
        step, dilation = argument(node, 3, "stride"), argument(node, 5, "dilation")
        return Geometry(kernel=kernel, step=per_axis(step, axes), dilation=per_axis(dilation, axes)) if len(kernel) == axes else None
    if op_name(node) in _POOLS:
        kernel = per_axis(argument(node, 1, "kernel_size"), axes)
        step = argument(node, 2, "stride") or kernel
        dilation = argument(node, 4, "dilation") if op_name(node).startswith("max") else None
        return Geometry(kernel=kernel, step=per_axis(step, axes), dilation=per_axis(dilation, axes))
    return None


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """An operator's argument as a number for each axis: given once, for each, or not at all, which is 1."""
    values = (1,) if value is None else tuple(value) if isinstance(value, list | tuple) else (value,)
    return tuple(int(v) for v in values) * (axes if len(values) == 1 else 1)
