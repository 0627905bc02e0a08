"""Operators that move codes and compute nothing."""

from __future__ import annotations

import math

import numpy as np
from onnx import helper

from lilliput.deploy.tflite import options
from lilliput.deploy.tflite.builder import Builder
from lilliput.deploy.tflite.schema import Tensor


def _same_grid(b: Builder, *tensors: Tensor) -> None:
    if any(not b.grid(tensor).same(b.grid(tensors[0])) for tensor in tensors):
        raise b.corrupt("moves codes between tensors of different scales")


def reshape(b: Builder) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: the shape that the file records for the result."""
    x, out = b.tensor(0), b.tensor(0, output=True)
    _same_grid(b, x, out)
    if math.prod(x.shape) != math.prod(out.shape):
        raise b.corrupt(f"makes a tensor of shape {out.shape} from one of {x.shape}")
    b.keep(out, b.node("Reshape", [b.codes(x), b.constant(np.array(out.shape, np.int64), "shape")]))


def transpose(b: Builder) -> None:
    """TRANSPOSE."""
    x, out, order = b.tensor(0), b.tensor(0, output=True), b.whole_numbers(1)
    _same_grid(b, x, out)
    if sorted(order) != list(range(len(x.shape))):
        raise b.corrupt(f"transposes {len(x.shape)} axes by {order}")
    b.keep(out, b.node("Transpose", [b.codes(x)], attributes={"perm": order}))


def concatenate(b: Builder) -> None:
    """CONCATENATION, inputs on other grids rescaled."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.ConcatenationOptions)
    tensors, out = [b.tensor(k) for k in range(len(b.operator.inputs))], b.tensor(0, output=True)
    if not tensors or not -len(out.shape) <= o.axis < len(out.shape):
        raise b.corrupt(f"concatenates {len(tensors)} tensors along axis {o.axis}")
    found = b.node("Concat", [b.real(tensor) for tensor in tensors], attributes={"axis": o.axis})
    b.give(out, b.limited(found, o.activation, out))


def split(b: Builder) -> None:
    """SPLIT into equal parts."""
    assert b.operator is not None
    axis, x = b.whole_numbers(0), b.tensor(1)
    parts = [b.tensor(k, output=True) for k in range(len(b.operator.outputs))]
    _same_grid(b, x, *parts)
    if len(axis) != 1 or not -len(x.shape) <= axis[0] < len(x.shape) or not parts or any(len(p.shape) != len(x.shape) for p in parts):
        raise b.corrupt(f"splits {len(x.shape)} axes along {axis}")
    names = [b.unique(f"SPLIT_{b.operator.index}.{k}") for k in range(len(parts))]
    sizes = b.constant(np.array([part.shape[axis[0]] for part in parts], np.int64), "sizes")
    b.nodes.append(helper.make_node("Split", [b.codes(x), sizes], names, name=names[0], axis=axis[0]))
    for part, name in zip(parts, names, strict=True):
        b.keep(part, name)


def _slice(b: Builder, x: Tensor, out: Tensor, slices: list[slice]) -> str:
    """The part of a tensor that lies in the slices, one for each axis; as many elements as `out` has."""
    found = [s.indices(n) for s, n in zip(slices, x.shape, strict=True)]
    if math.prod(len(range(*limits)) for limits in found) != math.prod(out.shape):
        raise b.corrupt(f"slices a tensor of shape {out.shape} from one of {x.shape}")
    # -1 as an end means the last element in ONNX; what lies before the first is -n - 1.
    limits = [[start for start, _, _ in found], [end if end >= 0 else -n - 1 for (_, end, _), n in zip(found, x.shape, strict=True)],
              list(range(len(found))), [step for _, _, step in found]]
    return b.node("Slice", [b.codes(x), *(b.constant(np.array(limit, np.int64), "limits") for limit in limits)])


def slice_(b: Builder) -> None:
    """SLICE: a begin and a size for each axis, -1 for all that is left."""
    x, out, begin, size = b.tensor(0), b.tensor(0, output=True), b.whole_numbers(1), b.whole_numbers(2)
    _same_grid(b, x, out)
    if not len(begin) == len(size) == len(x.shape) or min(begin, default=0) < 0 or min(size, default=0) < -1:
        raise b.corrupt(f"slices {x.shape} from {begin} by {size}")
    b.keep(out, _slice(b, x, out, [slice(start, None if n == -1 else start + n) for start, n in zip(begin, size, strict=True)]))


def strided_slice(b: Builder) -> None:
    """STRIDED_SLICE: masked limits are ignored; a shrunk axis is one element, and goes."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.StridedSliceOptions)
    x, out = b.tensor(0), b.tensor(0, output=True)
    _same_grid(b, x, out)
    if o.ellipsis_mask or o.new_axis_mask:
        raise b.refused("has an ellipsis or new axes", "slice every axis, and reshape")
    begin, end, steps = (b.whole_numbers(k) for k in (1, 2, 3))
    if not len(begin) == len(end) == len(steps) <= len(x.shape) or 0 in steps:
        raise b.corrupt(f"slices {x.shape} from {begin} to {end} by {steps}")
    slices = [slice(None)] * len(x.shape)
    for k, (start, stop, step) in enumerate(zip(begin, end, steps, strict=True)):
        stop = start + stop if o.offset else stop
        if o.shrink_axis_mask >> k & 1:
            slices[k] = slice(start, start + 1 or None, 1)
        else:
            slices[k] = slice(None if o.begin_mask >> k & 1 else start, None if o.end_mask >> k & 1 else stop, step)
    found = _slice(b, x, out, slices)
    b.keep(out, b.node("Reshape", [found, b.constant(np.array(out.shape, np.int64), "shape")], ".shaped") if o.shrink_axis_mask else found)


def pad(b: Builder) -> None:
    """PAD with zeros and PADV2 with a constant."""
    x, out, widths = b.tensor(0), b.tensor(0, output=True), b.whole_numbers(1)
    if len(widths) != 2 * len(x.shape) or min(widths, default=0) < 0:
        raise b.corrupt(f"pads {x.shape} by {widths}")
    value = np.zeros((), np.float32)
    filler = b.optional(2)
    if filler is not None:
        q = b.grid(filler)
        if filler.array is None or filler.array.size != 1:
            raise b.refused("computes at run time what it pads with", "make it a constant")
        value = ((filler.array.reshape(()).astype(np.int64) - q.zeros[0]) * q.scales[0]).astype(np.float32)
    pads = b.constant(np.array(widths, np.int64).reshape(-1, 2).T.reshape(-1), "pads")
    b.give(out, b.node("Pad", [b.real(x), pads, b.constant(np.asarray(value, np.float32), "filler")]))


def resize_nearest(b: Builder) -> None:
    """RESIZE_NEAREST_NEIGHBOR as two gathers: TensorFlow Lite finds its indices in float32, as no mode of ONNX's Resize does throughout."""
    assert b.operator is not None
    o = b.operator.options
    assert isinstance(o, options.ResizeNearestNeighborOptions)
    x, out, size = b.tensor(0), b.tensor(0, output=True), b.whole_numbers(1)
    _same_grid(b, x, out)
    if len(x.shape) != 4 or len(size) != 2 or min(size) < 1 or (out.shape[1:3] if len(out.shape) == 4 else ()) != tuple(size):
        raise b.corrupt(f"resizes {x.shape} to {size}")
    found = b.codes(x)
    for axis, new in zip((1, 2), size, strict=True):
        old = x.shape[axis]
        scale = np.float32(old - 1) / np.float32(new - 1) if o.align_corners and new > 1 else np.float32(old) / np.float32(new)
        place = (np.arange(new).astype(np.float32) + np.float32(0.5 if o.half_pixel_centers else 0.0)) * scale
        nearest = np.floor(place + np.float32(0.5)) if o.align_corners else np.floor(place)
        indices = np.clip(nearest.astype(np.int64), 0, old - 1)
        found = b.node("Gather", [found, b.constant(indices, "indices")], f".{axis}", {"axis": axis})
    b.keep(out, found)
