"""Rules for what moves elements: views of positions, which cost nothing until somebody needs another order, and copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.lowering.context import Context, Grid
from lilliput.deploy.c.lowering.elementwise import scalar
from lilliput.deploy.c.lowering.graph import constant, describe, ints, label, number, shape_of, text
from lilliput.deploy.c.lowering.layout import Placed, copies, in_order
from lilliput.deploy.c.operators import Buffer, Copy, Move, rescaling

Array = NDArray[Any]
_NEAREST: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor, "ceil": np.ceil, "round_prefer_ceil": lambda x: np.floor(x + 0.5), "round_prefer_floor": lambda x: np.ceil(x - 0.5)}
View = Callable[[ir.Node, Array], list[Array]]


def _shaped(node: ir.Node, positions: Array) -> list[Array]:
    """Reshape, Flatten, Squeeze, Unsqueeze: the shape that inference found."""
    shape = shape_of(node.outputs[0])
    if positions.size != int(np.prod(shape)):
        raise PreconditionError(f"{describe(node)} makes {shape} of {positions.size} elements: its shape was fixed for another batch; export the model "
                                f"with a batch of one")
    return [positions.reshape(shape)]


def _same(node: ir.Node, positions: Array) -> list[Array]:
    del node
    return [positions]


def _transposed(node: ir.Node, positions: Array) -> list[Array]:
    return [positions.transpose(ints(node, "perm", list(range(positions.ndim))[::-1]))]


def _list(node: ir.Node, index: int, name: str) -> list[int] | None:
    """An input of older or newer opsets that once was an attribute."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return ints(node, name, []) if name in node.attributes else None
    found = constant(value)
    if found is None:
        raise PreconditionError(f"{describe(node)}: its {name} are computed at run time; generated code has fixed shapes")
    return [int(v) for v in found.reshape(-1)]


def _sliced(node: ir.Node, positions: Array) -> list[Array]:
    starts, ends = _list(node, 1, "starts"), _list(node, 2, "ends")
    axes, steps = _list(node, 3, "axes"), _list(node, 4, "steps")
    assert starts is not None
    assert ends is not None
    index: list[slice] = [slice(None)] * positions.ndim
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = (axes[i] if axes else i), (steps[i] if steps else 1)
        index[axis] = slice(start, end if end > -(2**31) and not (step < 0 and end < -positions.shape[axis]) else None, step)
    return [positions[tuple(index)]]


def _split(node: ir.Node, positions: Array) -> list[Array]:
    axis = number(node, "axis", 0)
    sizes = [shape_of(value)[axis] for value in node.outputs]
    return np.split(positions, np.cumsum(sizes)[:-1], axis=axis)


def _gathered(node: ir.Node, positions: Array) -> list[Array]:
    index = constant(node.inputs[1])
    if index is None:
        raise PreconditionError(f"{describe(node)} gathers by an index that is computed at run time; generated code has none such")
    return [np.take(positions, index, axis=number(node, "axis", 0))]


def _expanded(node: ir.Node, positions: Array) -> list[Array]:
    return [np.broadcast_to(positions, shape_of(node.outputs[0]))]


def _space(node: ir.Node, positions: Array) -> list[Array]:
    n, c, h, w = positions.shape
    b = number(node, "blocksize", 1)
    if node.op_type == "SpaceToDepth":
        return [positions.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)]
    if text(node, "mode", "DCR") == "DCR":
        return [positions.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)]
    return [positions.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)]


def _resized(node: ir.Node, positions: Array) -> list[Array]:
    """Resize to the nearest: which element each one repeats, for every axis."""
    mode, place = text(node, "mode", "nearest"), text(node, "coordinate_transformation_mode", "half_pixel" if node.op_type == "Resize" else "asymmetric")
    nearest = text(node, "nearest_mode", "round_prefer_floor" if node.op_type == "Resize" else "floor")
    if mode != "nearest" or place not in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        raise PreconditionError(f"{describe(node)} resizes by {mode} ({place}); generated code repeats the nearest element: use mode nearest, or a "
                                f"transposed convolution")
    for axis, size in enumerate(shape_of(node.outputs[0])):
        old = positions.shape[axis]
        i = np.arange(size)
        if place == "asymmetric":
            x = i * old / size
        elif place == "align_corners":
            x = i * (old - 1) / max(size - 1, 1)
        else:
            x = (i + 0.5) * old / size - 0.5 if size > 1 or place == "half_pixel" else 0.0 * i
        positions = np.take(positions, np.clip(_NEAREST[nearest](x), 0, old - 1).astype(int), axis=axis)
    return [positions]


VIEWS: dict[str, View] = {
    "Identity": _same, "Dropout": _same, "Reshape": _shaped, "Flatten": _shaped, "Squeeze": _shaped, "Unsqueeze": _shaped,
    "Transpose": _transposed, "Slice": _sliced, "Split": _split, "Gather": _gathered, "Expand": _expanded, "DepthToSpace": _space,
    "SpaceToDepth": _space, "Resize": _resized, "Upsample": _resized,
}


def view(context: Context, node: ir.Node) -> bool:
    """Make a view of a tensor whose codes are known; False where they are not, or the operator is none."""
    rule = VIEWS.get(node.op_type)
    source = node.inputs[0] if node.inputs else None
    if rule is None or source is None or source not in context.placed:
        return False
    tensor, found = context.placed[source], rule(node, context.placed[source].positions)
    if any(positions.size != tensor.buffer.size for positions in found):
        # A part or repetition of an input of the program: its layout is settled here.
        context.free.discard(tensor.buffer)
    for value, positions in zip(node.outputs, found, strict=False):
        context.placed[value] = Placed(tensor.buffer, positions)
    return True


def _gather(context: Context, value: ir.Value, tensors: list[Placed], places: list[Array], shape: tuple[int, ...], grid: Grid, fill: int | None,
            layer: str) -> None:
    """Copy tensors into one; `places` are the indices of each tensor's elements in `(shape)`, flat and in the model's order."""
    biggest = max(tensors, key=lambda t: t.positions.size)
    positions = in_order(shape, biggest.order if len(biggest.shape) == len(shape) else tuple(range(len(shape))))
    out = context.buffer(value.name, [shape[k] for k in biggest.order] if len(biggest.shape) == len(shape) else shape, grid)
    parts: list[Copy] = []
    buffers: list[Buffer] = []
    for tensor, place in zip(tensors, places, strict=True):
        context.free.discard(tensor.buffer)
        if tensor.buffer not in buffers:
            buffers.append(tensor.buffer)
        target = positions.reshape(-1)[place.reshape(-1)]
        order = np.argsort(target, kind="stable")
        codes = None if grid.same(tensor.buffer) else rescaling(tensor.buffer, out, context.rounding)
        parts += copies(buffers.index(tensor.buffer), tensor.positions.reshape(-1)[order], targets=target[order], table=codes)
    step = Move(inputs=tuple(buffers), output=out, layer=layer, copies=tuple(parts), fill=fill)
    context.emit(step, value, positions)


def concat(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    """Concat: one copy for each input, through a table where its grid is another."""
    shape, axis = shape_of(value), number(node, "axis", 1)
    tensors = [context.known(v, node) for v in node.inputs]
    index = np.split(np.arange(int(np.prod(shape))).reshape(shape), np.cumsum([t.shape[axis] for t in tensors])[:-1], axis=axis)
    _gather(context, target, tensors, index, shape, grid, None, label(node))


def pad(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    """Pad with a constant, or by repeating or mirroring the edge."""
    tensor, amounts = context.known(node.inputs[0], node), _list(node, 1, "pads")
    axes = _list(node, 3, "axes") or list(range(len(tensor.shape)))
    assert amounts is not None
    widths = [(0, 0)] * len(tensor.shape)
    for i, axis in enumerate(axes):
        widths[axis] = (amounts[i], amounts[i + len(axes)])
    if min(min(w) for w in widths) < 0:
        raise PreconditionError(f"{describe(node)} has negative padding; slice its input instead")
    mode = text(node, "mode", "constant")
    if mode != "constant":
        found = np.pad(tensor.positions, widths, mode="reflect" if mode == "reflect" else "wrap" if mode == "wrap" else "edge")
        context.placed[target] = Placed(tensor.buffer, found)
        return
    real = scalar(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(())
    if real is None:
        raise PreconditionError(f"{describe(node)} pads with a value that is computed at run time; make it a constant")
    shape = shape_of(value)
    index = np.arange(int(np.prod(shape))).reshape(shape)
    inner = index[tuple(slice(before, size - after) for (before, after), size in zip(widths, shape, strict=True))]
    _gather(context, target, [tensor], [inner], shape, grid, grid.code(float(real)), label(node))
