"""Layers as matrix products: weights as rows, inputs as columns, for convolutions in groups and linear layers alike."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from lilliput.graph.fold import CONVOLUTIONS, TRANSPOSED
from lilliput.graph.receptive import per_axis

# Layers: an input, a weight and perhaps a bias, as their first three arguments.
LAYERS = frozenset({*CONVOLUTIONS, *TRANSPOSED, torch.ops.aten.linear.default})


def is_supported(layer: fx.Node) -> bool:
    """Whether `as_rows` and `patches` take the layer: all but transposed convolutions."""
    return layer.target not in TRANSPOSED


def geometry(layer: fx.Node) -> tuple[Any, Any, Any, int]:
    """Stride, padding, dilation and groups of a convolution."""
    given = [*layer.args[3:], *(None,) * 4][:4]
    defaults = zip(given, (1, 0, 1, 1), strict=True)
    stride, padding, dilation, groups = (default if value is None else value for value, default in defaults)
    assert isinstance(groups, int)
    return stride, padding, dilation, groups


def groups_of(layer: fx.Node) -> int:
    """Groups of a convolution, 1 for a linear layer."""
    return geometry(layer)[3] if layer.target in CONVOLUTIONS else 1


def as_rows(weight: Tensor, layer: fx.Node) -> Tensor:
    """The weight as `(groups, outputs, inputs)`: a row for each output, which multiplies a column of its group's `patches`."""
    groups = groups_of(layer)
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def patches(layer: fx.Node, x: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """What each row of the weight is multiplied with, `(groups, positions, inputs)`, for the layer's input and kernel size."""
    if layer.target not in CONVOLUTIONS:
        return x.reshape(1, -1, x.shape[-1])
    stride, padding, dilation, groups = geometry(layer)
    count = len(kernel)
    steps, holes = per_axis(stride, count), per_axis(dilation, count)
    x = F.pad(x, _ends(padding, kernel, holes)).contiguous()
    sizes = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(x.shape[2:], kernel, steps, holes, strict=True)]
    inner = x.stride()[2:]
    strides = [a * s for a, s in zip(inner, steps, strict=True)] + [a * d for a, d in zip(inner, holes, strict=True)]
    view = x.as_strided([*x.shape[:2], *sizes, *kernel], [*x.stride()[:2], *strides])
    # Batch, groups, inputs of a group, positions, kernel.
    grouped = view.reshape(x.shape[0], groups, -1, *sizes, *kernel)
    order = [1, 0, *range(3, 3 + count), 2, *range(3 + count, 3 + 2 * count)]
    return grouped.permute(order).reshape(groups, -1, x.shape[1] // groups * math.prod(kernel))


def _ends(padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[int]:
    """Padding as `F.pad` takes it: last dimension first, both ends."""
    if padding == "same":
        pairs = [(d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) for k, d in zip(kernel, dilation, strict=True)]
    elif padding == "valid":
        pairs = [(0, 0)] * len(kernel)
    else:
        pairs = [(p, p) for p in per_axis(padding, len(kernel))]
    return [end for pair in reversed(pairs) for end in pair]
