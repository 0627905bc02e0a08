"""Rules for operators that move elements: reshape, permute, concatenate, split, slice, index, pad."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from lilliput.graph.labels import Field, compress, reshape, varying
from lilliput.graph.rules.base import Propagation, argument, is_tensor, op_name, rule, tensors


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as", "squeeze", "unsqueeze", "ravel",
      "_reshape_alias")
def reshaping(p: Propagation, node: fx.Node) -> Field | None:
    """Row-major reshape, from the shapes alone."""
    found = p.field(node.args[0])
    if found is None:
        return None
    return compress(reshape(found, p.shape(node.args[0]), p.shape(node)))  # type: ignore[arg-type]


@rule("permute", "transpose", "t", "numpy_T", "swapaxes", "swapdims", "movedim", "adjoint", "mT")
def permuting(p: Propagation, node: fx.Node) -> Field | None:
    """Permutation of dimensions."""
    found = p.field(node.args[0])
    if found is None:
        return None
    name = op_name(node)
    if name == "permute":
        return found.transpose([int(d) for d in node.args[1]])  # type: ignore[union-attr, arg-type]
    if name == "movedim":
        return np.moveaxis(found, node.args[1], node.args[2])  # type: ignore[arg-type]
    if name in ("transpose", "swapaxes", "swapdims"):
        return found.swapaxes(int(node.args[1]), int(node.args[2]))  # type: ignore[arg-type]
    return found.swapaxes(-1, -2) if found.ndim > 1 else found


@rule("expand", "expand_as", "broadcast_to", "repeat", "tile")
def expanding(p: Propagation, node: fx.Node) -> Field | None:
    """Broadcasting keeps the field; repetition along a labelled dimension repeats the labels."""
    found = p.field(node.args[0])
    if found is None:
        return None
    after = p.shape(node)
    found = found.reshape((1,) * (len(after) - found.ndim) + found.shape)
    before = (1,) * (len(after) - len(p.shape(node.args[0]))) + p.shape(node.args[0])  # type: ignore[arg-type]
    for axis in varying(found):
        if after[axis] != before[axis]:
            found = np.concatenate([found] * (after[axis] // before[axis]), axis=axis)
    return found


@rule("repeat_interleave")
def repeating(p: Propagation, node: fx.Node) -> Field | None:
    """Each element repeated in place (grouped-query attention)."""
    found, times = p.field(node.args[0]), node.args[1]
    axis = argument(node, 2, "dim")
    if found is None or axis is None or not isinstance(times, int):
        p.pin(node.args[0], "repeat_interleave")
        return None
    return np.repeat(found, times, axis=axis) if found.shape[axis] > 1 else found


@rule("cat", "concat", "concatenate")
def concatenate(p: Propagation, node: fx.Node) -> Field | None:
    """Labels are concatenated; along the other dimensions the parts are tied."""
    parts = node.args[0]
    assert isinstance(parts, (list, tuple))
    nodes = [n for n in tensors(parts) if not (len(p.shape(n)) == 1 and p.shape(n)[0] == 0)]
    ndim = len(p.shape(node))
    axis = int(argument(node, 1, "dim", 0)) % ndim
    return _join_parts(p, [(p.field(n), p.shape(n)[axis]) for n in nodes], axis, ndim)


@rule("stack")
def stack(p: Propagation, node: fx.Node) -> Field | None:
    """As concatenation along a new dimension."""
    nodes, ndim = tensors([node.args[0]]), len(p.shape(node))
    axis = int(argument(node, 1, "dim", 0)) % ndim
    fields = [p.field(n) for n in nodes]
    return _join_parts(p, [(None if f is None else np.expand_dims(f, axis), 1) for f in fields], axis, ndim)


def _join_parts(p: Propagation, parts: list[tuple[Field | None, int]], axis: int, ndim: int) -> Field | None:
    present = [f for f, _ in parts if f is not None]
    if not present:
        return None
    across = [f for f in present if set(varying(f)) - {axis}]
    for other in across[1:]:
        p.labels.tie(*(f.take([0], axis=axis) if f.shape[axis] != across[0].shape[axis] else f for f in (across[0], other)))
    if across and len(across) < len(parts):  # a dense part fixes every dimension but the concatenated one
        for other in across:
            p.labels.pin(other)
    shape = [max(f.shape[d] for f in present) for d in range(ndim)]
    pieces = []
    for found, extent in parts:
        target = [*shape[:axis], extent, *shape[axis + 1 :]]
        pieces.append(np.broadcast_to(np.zeros((1,) * ndim, np.int64) if found is None else found, target))
    return compress(np.concatenate(pieces, axis=axis))


@rule("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_chunk")
def splitting(p: Propagation, node: fx.Node) -> list[Field | None]:
    """Each piece takes its run of labels."""
    found, pieces = p.field(node.args[0]), p.shapes[node]
    axis = int(argument(node, 2, "dim", 0)) % len(pieces[0])
    if found is None or found.shape[axis] == 1:
        return [found for _ in pieces]
    ends = np.cumsum([piece[axis] for piece in pieces])[:-1]
    return [compress(part) for part in np.split(found, ends, axis=axis)]


@rule("unbind")
def unbind(p: Propagation, node: fx.Node) -> list[Field | None]:
    """One piece per index, without the dimension."""
    found, pieces = p.field(node.args[0]), p.shapes[node]
    if found is None:
        return [None for _ in pieces]
    axis = int(argument(node, 1, "dim", 0)) % found.ndim
    return [compress(_index(found, axis, i)) for i in range(len(pieces))]


def _index(found: Field, axis: int, position: int) -> Field:
    """One index along an axis, the axis dropped."""
    picked = found.take([position if found.shape[axis] > 1 else 0], axis=axis)
    return picked.reshape(found.shape[:axis] + found.shape[axis + 1 :])


@rule("getitem")
def getitem(p: Propagation, node: fx.Node) -> Any:
    """One result of an operator with several."""
    found, index = p.fields.get(node.args[0]), node.args[1]  # type: ignore[arg-type]
    return found[index] if isinstance(found, list) and isinstance(index, int) else None


@rule("select")
def select(p: Propagation, node: fx.Node) -> Field | None:
    """One index along a dimension."""
    found = p.field(node.args[0])
    if found is None:
        return None
    axis, position = int(node.args[1]) % found.ndim, node.args[2]  # type: ignore[arg-type]
    if not isinstance(position, int):
        p.labels.pin(found)
        return None
    return compress(_index(found, axis, position))


@rule("slice", "narrow")
def slicing(p: Propagation, node: fx.Node) -> Field | None:
    """A run of indices along a dimension."""
    found = p.field(node.args[0])
    if found is None:
        return None
    axis = int(argument(node, 1, "dim", 0)) % found.ndim
    start, length = argument(node, 2, "start", 0) or 0, p.shape(node)[axis]
    step = argument(node, 4, "step", 1) if op_name(node) == "slice" else 1
    if found.shape[axis] == 1:
        return found
    if not isinstance(start, int) or step != 1:
        p.labels.pin(found)
        return None
    start = max(0, start + found.shape[axis]) if start < 0 else min(start, found.shape[axis])
    return compress(found.take(range(start, start + length), axis=axis))


@rule("index", "index_select", "gather", "take_along_dim")
def index(p: Propagation, node: fx.Node) -> Field | None:
    """Advanced indexing: indexed dimensions lose their labels, the others keep theirs."""
    found = p.field(node.args[0])
    if found is None:
        return None
    indices = node.args[1]
    if op_name(node) != "index" or not isinstance(indices, (list, tuple)):
        p.pin(node.args[0], op_name(node))
        return None
    axes = [d for d, i in enumerate(indices) if i is not None]
    if len(axes) != 1:
        p.pin(node.args[0], "index by several tensors")
        return None
    axis, indexer = axes[0], indices[axes[0]]
    assert isinstance(indexer, fx.Node)
    found = p.labels.tie_along(found, [axis])
    middle = (1,) * len(p.shape(indexer))
    return compress(found.reshape(found.shape[:axis] + middle + found.shape[axis + 1 :]))


@rule("roll", "flip", "rot90", "tril", "triu")
def shifting(p: Propagation, node: fx.Node) -> Field | None:
    """Moves along unlabelled dimensions only."""
    found = p.field(node.args[0])
    name = op_name(node)
    dims = argument(node, 2 if name == "roll" else 1, "dims", [])
    axes = [-2, -1] if name in ("tril", "triu", "rot90") else list(dims) or list(range(found.ndim if found is not None else 0))
    return None if found is None else p.pin_along(found, [a % found.ndim for a in axes])


@rule("pad", "constant_pad_nd")
def pad(p: Propagation, node: fx.Node) -> Field | None:
    """Padded positions along a labelled dimension cannot be removed."""
    found = p.field(node.args[0])
    if found is None:
        return None
    amounts = list(node.args[1])  # type: ignore[arg-type]
    widths = [(0, 0)] * found.ndim
    for i in range(len(amounts) // 2):
        axis = found.ndim - 1 - i
        if found.shape[axis] > 1:
            widths[axis] = (amounts[2 * i], amounts[2 * i + 1])
    if any(low < 0 or high < 0 for low, high in widths):
        p.labels.pin(found)
        return None
    return np.pad(found, widths)


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(p: Propagation, node: fx.Node) -> Field | None:
    """Blocks of r^2 channels become one channel (or the reverse), so each block is one unit."""
    found = p.field(node.args[0])
    if found is None:
        return None
    axis = found.ndim - 3
    vector = p.channel_vector(node.args[0], axis)  # type: ignore[arg-type]
    if vector is None:
        return None
    block = int(node.args[1]) ** 2  # type: ignore[arg-type]
    if op_name(node) == "pixel_unshuffle":
        return p.lay(np.repeat(vector, block), axis, found.ndim)
    rows = p.labels.tie_along(vector.reshape(-1, block), [1])
    return p.lay(rows.reshape(-1), axis, found.ndim)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(p: Propagation, node: fx.Node) -> Field | None:
    """Transpose of (groups, channels per group); a unit is one position in every group."""
    vector = p.channel_vector(node.args[0], 1)  # type: ignore[arg-type]
    if vector is None:
        return None
    groups = int(node.args[1])  # type: ignore[arg-type]
    rows = vector.reshape(groups, -1)
    p.labels.tie_along(rows, [0])
    return p.lay(rows.T.reshape(-1), 1, len(p.shape(node)))


@rule("sym_size", "size", "new_zeros", "new_ones", "new_full", "new_empty", "zeros", "ones", "full", "empty", "arange",
      "scalar_tensor", "eye", "linspace", "randn", "rand", "_assert_tensor_metadata", "_assert_async", "_assert_scalar",
      "sym_constrain_range_for_size")
def constant(p: Propagation, node: fx.Node) -> None:  # noqa: ARG001 - rules share one signature
    """No channels: sizes and constants."""
    return None


def passthrough_module(p: Propagation, node: fx.Node) -> Field | None:
    """A submodule whose result has its input's shape (a quantizer) keeps the field."""
    first = tensors(node.args)[:1]
    if first and is_tensor(p.shapes[node]) and p.shape(node) == p.shape(first[0]):
        return p.field(first[0])
    for operand in tensors(node.args):
        p.pin(operand, f"module {node.target}")
    return None


def arithmetic_on_sizes(p: Propagation, node: fx.Node) -> bool:
    """Whether the node computes with sizes, not tensors."""
    return isinstance(p.shapes.get(node), (int, float))
