"""Rules for arithmetic between values: elementwise operators, reductions and contractions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import fx

from lilliput.graph.labels import Field, compress, varying
from lilliput.graph.rules.base import Propagation, argument, is_tensor, op_name, rule, tensors
from lilliput.graph.rules.layers import dense
from lilliput.graph.shapes import Shape

_POINTWISE = (
    "add sub rsub mul div pow maximum minimum where masked_fill clamp clamp_min clamp_max abs neg exp log sqrt rsqrt "
    "reciprocal sigmoid tanh relu relu6 hardtanh hardswish hardsigmoid silu gelu elu selu celu leaky_relu mish softplus "
    "logsigmoid softsign erf sin cos square sign round floor ceil threshold rrelu tanhshrink hardshrink softshrink "
    "dropout feature_dropout alpha_dropout clone contiguous to _to_copy detach alias lift_fresh_copy type_as float "
    "bitwise_not logical_not logical_and logical_or eq ne lt le gt ge isnan nan_to_num lerp addcmul addcdiv log1p expm1 "
    "zero_ fill_ zeros_like ones_like full_like floor_divide remainder fmod atan2 tan atan log2 exp2 xlogy __and__ __or__"
).split()


def elementwise(p: Propagation, operands: Sequence[tuple[Field | None, Shape]], shape: Shape) -> Field | None:
    """Tie broadcast operands; whatever meets an unlabelled operand of the same extent is pinned."""
    ndim = len(shape)
    aligned = [(None if f is None else f.reshape((1,) * (ndim - f.ndim) + f.shape), (1,) * (ndim - len(s)) + tuple(s))
               for f, s in operands]
    out: tuple[Field, Shape] | None = None
    for found, extent in aligned:
        if found is not None:
            out = (found, extent) if out is None else _join(p, out, (found, extent))
    if out is None:
        return None
    dense = {d for found, extent in aligned if found is None for d in range(ndim) if extent[d] > 1}
    if dense & set(varying(out[0])):
        p.labels.pin(out[0])
    return out[0]


def _join(p: Propagation, a: tuple[Field, Shape], b: tuple[Field, Shape]) -> tuple[Field, Shape]:
    """Tie two fields of one value. Where only one varies and the other is dense, the tie leaves no variation."""
    extent = tuple(max(s, t) for s, t in zip(a[1], b[1], strict=True))
    if varying(a[0]) and varying(b[0]) and not set(varying(a[0])) & set(varying(b[0])):
        return _choose(p, a, b), extent
    p.labels.tie(a[0], b[0])
    fields = []
    for (found, _), (other, shape) in ((a, b), (b, a)):
        for axis in varying(found):
            if shape[axis] > 1 and other.shape[axis] == 1:
                found = found.take([0], axis=axis)
        fields.append(found)
    if not varying(fields[0]) and not varying(fields[1]):
        p.labels.pin(fields[0])
    return np.broadcast_arrays(*fields)[0], extent


def _choose(p: Propagation, a: tuple[Field, Shape], b: tuple[Field, Shape]) -> Field:
    """Fields along different dimensions: one value carries one field, so the second is pinned, and whatever is dense."""
    free = [all(other[1][d] == 1 for d in varying(own[0])) for own, other in ((a, b), (b, a))]
    kept = a if free[0] else b
    for own in (a, b):
        if own is not kept or not any(free):
            p.labels.pin(own[0])
    return kept[0]


@rule(*_POINTWISE)
def pointwise(p: Propagation, node: fx.Node) -> Field | None:
    """Elementwise over all tensor operands, with broadcasting."""
    shape = p.shape(node)
    if not is_tensor(shape):
        return None
    operands = [n for n in tensors([*node.args, *node.kwargs.values()]) if is_tensor(p.shapes.get(n))]
    return elementwise(p, [(p.field(n), p.shape(n)) for n in operands], shape)


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
      "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "upsample_nearest1d", "upsample_nearest2d",
      "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d", "_upsample_nearest_exact2d",
      "upsample_trilinear3d", "lp_pool2d", "reflection_pad2d", "replication_pad2d", "max_pool2d_with_indices")
def spatial(p: Propagation, node: fx.Node) -> Any:
    """Everything behind the channel dimension is mixed; channels pass."""
    found = p.field(node.args[0])
    ndim = len(p.shape(node.args[0]))  # type: ignore[arg-type]
    kept = p.pin_along(found, range(2 if ndim > 2 else 1, ndim))
    return kept if is_tensor(p.shapes[node]) else [kept for _ in p.shapes[node]]


def _axes(dims: Any, ndim: int) -> list[int]:
    if dims is None or dims == []:
        return list(range(ndim))
    return [d % ndim for d in (dims if isinstance(dims, (list, tuple)) else [dims])]


@rule("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "prod", "logsumexp", "max", "min")
def reduction(p: Propagation, node: fx.Node) -> Any:
    """Channels that are summed over are pinned; others pass."""
    x = node.args[0]
    position = 2 if op_name(node) == "linalg_vector_norm" else 1
    dims, keep = argument(node, position, "dim"), bool(argument(node, position + 1, "keepdim", False))
    if isinstance(dims, fx.Node):  # max(a, b) is elementwise
        return pointwise(p, node)
    ndim = len(p.shape(x))  # type: ignore[arg-type]
    axes = _axes(dims, ndim)
    found = p.pin_along(p.field(x), axes)
    if found is not None and not keep:
        found = found.reshape([s for d, s in enumerate(found.shape) if d not in axes])
    return found if is_tensor(p.shapes[node]) else [found for _ in p.shapes[node]]


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum", "glu_jvp")
def along_dimension(p: Propagation, node: fx.Node) -> Field | None:
    """Operators that couple the elements of one dimension pin what varies along it."""
    ndim = len(p.shape(node))
    return p.pin_along(p.field(node.args[0]), _axes(node.args[1], ndim))


@rule("glu")
def glu(p: Propagation, node: fx.Node) -> Field | None:
    """`a * sigmoid(b)`: the halves are tied."""
    found = p.field(node.args[0])
    if found is None:
        return None
    axis = int(argument(node, 1, "dim", -1)) % found.ndim
    if found.shape[axis] == 1:
        return found
    first, second = np.split(found, 2, axis=axis)
    p.labels.tie(first, second)
    return first


Operand = tuple[Field | None, str, Shape]


def contract(p: Propagation, a: Operand, b: Operand, out: str) -> Field | None:
    """Product of two values in einsum letters: letters in both and in `out` are batch, in both only are contracted.

    Channels that are contracted are tied between the operands. Where a field varies along a batch letter too
    (attention heads), whole heads are the units, so that every head keeps its width.
    """
    shared = {k for k in a[1] if k in b[1] and k not in out}
    reduced = [_head_units(p, found, letters, shared) for found, letters, _ in (a, b)]
    for letter in sorted(shared):
        _tie_contracted(p, (reduced[0], a[1]), (reduced[1], b[1]), letter)
    parts = [_project(found, letters, out) for found, letters in ((reduced[0], a[1]), (reduced[1], b[1]))]
    dense = [tuple(shape[letters.index(k)] if k in letters else 1 for k in out) for _, letters, shape in (a, b)]
    return compress(elementwise(p, list(zip(parts, dense, strict=True)), (2,) * len(out)))


def _head_units(p: Propagation, found: Field | None, letters: str, contracted: set[str]) -> Field | None:
    if found is None:
        return None
    inner = [d for d in varying(found) if letters[d] in contracted]
    outer = [d for d in varying(found) if letters[d] not in contracted]
    return p.labels.tie_along(found, inner) if inner and outer else found


def _tie_contracted(p: Propagation, a: tuple[Field | None, str], b: tuple[Field | None, str], letter: str) -> None:
    vectors = []
    for found, letters in (a, b):
        varies = found is not None and found.shape[letters.index(letter)] > 1
        vectors.append(found.reshape(-1) if varies and found is not None else None)
    if vectors[0] is not None and vectors[1] is not None:
        p.labels.tie(vectors[0], vectors[1])
    else:
        for vector in vectors:
            if vector is not None:
                p.labels.pin(vector)


def _project(found: Field | None, letters: str, out: str) -> Field | None:
    """A field's part that survives in the output, with the output's dimensions."""
    if found is None or not any(letters[d] in out for d in varying(found)):
        return None
    for axis, letter in enumerate(letters):
        if letter not in out:
            found = found.take([0], axis=axis)
    order = [letters.index(k) for k in out if k in letters]
    drop = [d for d in range(len(letters)) if letters[d] not in out]
    moved = found.transpose(order + drop).reshape([found.shape[d] for d in order])
    shape = iter(moved.shape)
    return moved.reshape([next(shape) if k in letters else 1 for k in out])


@rule("matmul", "mm", "bmm", "addmm", "baddbmm")
def matmul(p: Propagation, node: fx.Node) -> Field | None:
    """Matrix product of two values, or of a value with a (possibly transposed) weight."""
    shift = 1 if op_name(node) in ("addmm", "baddbmm") else 0
    bias = node.args[0] if shift else None
    x, y = node.args[shift], node.args[shift + 1]
    assert isinstance(x, fx.Node)
    assert isinstance(y, fx.Node)
    weight = _weight(p, y)
    if weight is not None:
        return dense(p, node, x, weight[0], bias, out_dim=weight[1])
    if bias is not None:
        p.pin(bias)
    if len(p.shape(x)) < 2 or len(p.shape(y)) < 2:
        p.pin(x, "matrix-vector product")
        p.pin(y)
        return None
    ndim = len(p.shape(node))
    batch = "abcdefgh"[: ndim - 2]
    left, right = batch[ndim - len(p.shape(x)) :] + "ik", batch[ndim - len(p.shape(y)) :] + "kj"
    out = contract(p, (p.field(x), left, p.shape(x)), (p.field(y), right, p.shape(y)), batch + "ij")
    if shift:
        p.pin_along(out, range(ndim))
    return out


def _weight(p: Propagation, node: fx.Node) -> tuple[fx.Node, int] | None:
    """The two-dimensional parameter behind a chain of transposes, and which of its dimensions is the output."""
    out_dim = 1
    while node.op == "call_function" and op_name(node) in ("t", "transpose", "numpy_T", "permute", "swapaxes"):
        node, out_dim = node.args[0], 1 - out_dim  # type: ignore[assignment]
    if node.op == "get_attr" and len(p.shape(node)) == 2:
        return node, out_dim
    return None


@rule("einsum")
def einsum(p: Propagation, node: fx.Node) -> Field | None:
    """Two-operand einsum over values; anything else pins its operands."""
    equation, operands = str(node.args[0]).replace(" ", ""), node.args[1]
    assert isinstance(operands, (list, tuple))
    terms, arrow, out = equation.partition("->")
    letters = terms.split(",")
    if len(operands) != 2 or not arrow or "." in equation or any(len(set(t)) != len(t) for t in letters):
        for operand in operands:
            p.pin(operand, f"einsum {equation}")
        return None
    first, second = ((p.field(o), term, p.shape(o)) for o, term in zip(operands, letters, strict=True))
    return contract(p, first, second, out)


@rule("scaled_dot_product_attention")
def attention(p: Propagation, node: fx.Node) -> Field | None:
    """`softmax(q k^T + mask) v` on `(..., heads, tokens, width)`; whole heads are the units where there are several."""
    query, key, value = node.args[:3]
    mask = argument(node, 3, "attn_mask")
    shapes = [p.shape(n) for n in (query, key, value)]  # type: ignore[arg-type]
    ndim = len(shapes[0])
    batch = "abcdefgh"[: ndim - 2]
    fields = [p.field(query), _repeat_heads(p, key, query), _repeat_heads(p, value, query)]
    scores = contract(p, (fields[0], batch + "nk", shapes[0]), (fields[1], batch + "mk", shapes[1]), batch + "nm")
    extent = (*shapes[0][:-1], shapes[1][-2])
    if isinstance(mask, fx.Node):
        scores = elementwise(p, [(scores, extent), (p.field(mask), p.shape(mask))], extent)
    scores = p.pin_along(scores, [ndim - 1])
    return contract(p, (scores, batch + "nm", extent), (fields[2], batch + "mj", shapes[2]), batch + "nj")


def _repeat_heads(p: Propagation, node: Any, query: Any) -> Field | None:
    """Grouped-query attention: each key-value head serves several query heads."""
    found = p.field(node)
    if found is None or found.ndim < 3 or found.shape[-3] == 1:
        return found
    return np.repeat(found, p.shape(query)[-3] // found.shape[-3], axis=-3)
