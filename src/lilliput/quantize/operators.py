"""What quantization needs to know about operators."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from lilliput.graph.fold import TRANSPOSED
from lilliput.graph.products import LAYERS
from lilliput.graph.recurrent import RECURRENT_WEIGHTS, edge_of
from lilliput.graph.tables import table_of

__all__ = ["CLAMPS", "LAYERS", "TRANSPOSED", "is_mutating", "is_norm", "is_transparent", "is_zero", "joins", "keeps_grid", "layer_name", "name_of", "source_of"]

aten = torch.ops.aten

# Operators that clamp, and are absorbed by the saturation of the quantizer after them.
CLAMPS = frozenset({aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default})
# Operators that pass some of their input's values on, or zeros, and so keep its grid.
_KEEPING = frozenset({
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "max_pool2d_with_indices", "view", "reshape", "flatten", "unflatten", "transpose", "permute", "t", "mT", "swapaxes",
    "swapdims", "movedim", "numpy_T", "squeeze", "unsqueeze", "contiguous", "clone", "alias", "slice", "select", "narrow",
    "expand", "expand_as", "repeat", "repeat_interleave", "split", "split_with_sizes", "chunk", "unbind", "tensor_split",
    "constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "roll", "flip",
    "rot90", "index_select", "gather", "index", "view_as", "reshape_as", "as_strided", "unfold", "diagonal", "amax", "amin",
    "max", "min", "sort", "topk", "tril", "triu",
})
_JOINING = frozenset({"cat", "concat", "stack"})
_ZEROS = frozenset({"zeros", "new_zeros", "zeros_like"})
# Operators after which the values are those of the grid, in evaluation, without a quantizer; masked scores reach down to
# minus infinity, which no grid holds, and stay as they are up to the softmax.
_TRANSPARENT = frozenset({"dropout", "feature_dropout", "alpha_dropout", "masked_fill", "detach", "detach_", "lift_fresh_copy"})
# Operators whose parameters stay in floating point inside them.
_NORMS = frozenset({"layer_norm", "group_norm", "instance_norm", "batch_norm", "rms_norm", "prelu", "local_response_norm"})


def name_of(node: fx.Node) -> str:
    """The operator's name without namespace and overload; empty for other nodes."""
    target = node.target
    return target._schema.name.partition("::")[2] if isinstance(target, torch._ops.OpOverload) else ""


def keeps_grid(node: fx.Node) -> bool:
    """Whether the node's values are all values of its first input, or zero."""
    if node.target is operator.getitem:
        source = node.args[0]
        return isinstance(source, fx.Node) and name_of(source) in _KEEPING
    if name_of(node) in ("constant_pad_nd", "pad"):
        filled = [a for a in node.args[2:] if isinstance(a, int | float)]
        return not any(filled)
    return name_of(node) in _KEEPING


def joins(node: fx.Node) -> bool:
    """Whether the node puts tensors side by side, and so keeps their grid where they have one in common."""
    return name_of(node) in _JOINING


def is_zero(node: fx.Node) -> bool:
    """Whether the node's values are zeros, made or moved."""
    source = source_of(node)
    return name_of(node) in _ZEROS or (source is not None and keeps_grid(node) and is_zero(source))


def is_transparent(node: fx.Node) -> bool:
    """Whether a quantizer after the node would add nothing, or do harm."""
    return name_of(node) in _TRANSPARENT


def is_norm(node: fx.Node) -> bool:
    """Whether the node's parameters stay in floating point."""
    return name_of(node) in _NORMS


def is_mutating(node: fx.Node) -> bool:
    """Whether the operator changes one of its inputs."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def source_of(node: fx.Node) -> fx.Node | None:
    """The first tensor that a node reads; of a piece, what was cut."""
    source: Any = node.args[0] if node.args else None
    if node.target is operator.getitem and isinstance(source, fx.Node):
        return source_of(source)
    return source if isinstance(source, fx.Node) else None


def layer_name(node: fx.Node) -> str:
    """The name of the module whose weight the node uses, or else the node's own.

    A recurrent module has several weights, which name its layers; its other values have one name at every time step.
    """
    if node.target in LAYERS or is_norm(node):
        position = 1 if node.target in LAYERS else next((i for i, a in enumerate(node.args) if i and isinstance(a, fx.Node)), 0)
        weight = table_of(node.args[position]) or node.args[position]
        while isinstance(weight, fx.Node) and weight.op == "call_module":
            weight = weight.args[0]
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            owner, _, leaf = str(weight.target).rpartition(".")
            return str(weight.target) if leaf.startswith(RECURRENT_WEIGHTS) else owner or str(weight.target)
    return edge_of(node) or node.name
