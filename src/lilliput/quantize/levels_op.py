"""The operator of simulated quantization on grids that are tables: `lilliput::fake_levels`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lilliput.quantize.op import along


def _rows(x: Tensor, axis: int) -> Tensor:
    return x.reshape(1, -1) if axis < 0 else x.movedim(axis, 0).reshape(x.shape[axis], -1)


def _back(rows: Tensor, like: Tensor, axis: int) -> Tensor:
    if axis < 0:
        return rows.reshape(like.shape)
    moved = like.movedim(axis, 0)
    return rows.reshape(moved.shape).movedim(0, axis)


def codes_of(x: Tensor, scale: Tensor, thresholds: Tensor, axis: int) -> Tensor:
    """Index of each value's level, int64, shaped like `x`: how many thresholds lie at or below `x / scale`."""
    v = x.to(torch.float32) / along(scale, x, axis)
    if thresholds.ndim == 1:
        return torch.bucketize(v, thresholds, right=True)
    return _back(torch.searchsorted(thresholds, _rows(v, axis).contiguous(), right=True), x, axis)


def values_of(codes: Tensor, scale: Tensor, table: Tensor, axis: int) -> Tensor:
    """The levels that codes stand for, times the scale; float32, shaped like `codes`."""
    found = table[codes] if table.ndim == 1 else _back(torch.gather(table, 1, _rows(codes, axis)), codes, axis)
    return found * along(scale, codes, axis)


@torch.library.custom_op("lilliput::fake_levels", mutates_args=())
def fake_levels(x: Tensor, scale: Tensor, table: Tensor, thresholds: Tensor, axis: int) -> Tensor:
    """Move to the levels of a table: `table[k] * s`, `k` the number of thresholds at or below `x / s`.

    `x` has any shape; `scale` (float32) is `()` with `axis=-1`, or `(x.shape[axis],)`, and may be negative; `table` (float32)
    holds the levels in ascending order, `(K,)`, or `(x.shape[axis], K)` where every slice has its own; `thresholds` the points
    between them, `(K - 1,)` or `(x.shape[axis], K - 1)`. Gradients: to `x` straight through between the outermost levels, zero
    beyond them; to `table` and `scale` those of `table[k] * s` for fixed `k`.
    """
    y = values_of(codes_of(x, scale, thresholds, axis), scale, table, axis)
    # Strides as `register_fake` promises them.
    return torch.empty_like(x).copy_(y)


@fake_levels.register_fake
def _(x: Tensor, scale: Tensor, table: Tensor, thresholds: Tensor, axis: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    *tensors, ctx.axis = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
    x, scale, table, thresholds = ctx.saved_tensors
    codes = codes_of(x, scale, thresholds, ctx.axis)
    grad_x = grad_scale = grad_table = None
    if ctx.needs_input_grad[0]:
        v = x.to(torch.float32) / along(scale, x, ctx.axis)
        low, high = (along(table[..., end], x, ctx.axis) for end in (0, -1))
        grad_x = grad * ((v >= low) & (v <= high))
    if ctx.needs_input_grad[1]:
        slope = values_of(codes, torch.ones_like(scale), table, ctx.axis) * grad
        dims = [dim for dim in range(x.ndim) if ctx.axis < 0 or dim != ctx.axis]
        grad_scale = (slope.sum(dims) if dims else slope).reshape(scale.shape)
    if ctx.needs_input_grad[2]:
        slope = grad.float() * along(scale, x, ctx.axis)
        if table.ndim == 1:
            grad_table = torch.zeros_like(table).index_add_(0, codes.flatten(), slope.flatten())
        else:
            grad_table = torch.zeros_like(table).scatter_add_(1, _rows(codes, ctx.axis), _rows(slope, ctx.axis))
    return grad_x, grad_scale, grad_table, None, None


fake_levels.register_autograd(_backward, setup_context=_setup)
