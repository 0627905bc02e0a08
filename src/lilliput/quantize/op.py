"""The one operator of simulated quantization: `lilliput::fake_quantize`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def along(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """Shape `values` to broadcast along `axis` of `like`; scalars and per-tensor values pass."""
    if axis < 0 or values.ndim == 0:
        return values.reshape(()) if values.numel() == 1 else values
    return values.reshape([-1 if dim == axis else 1 for dim in range(like.ndim)])


@torch.library.custom_op("lilliput::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int) -> Tensor:
    """Round to an integer grid and back: `(clamp(round(x / s) + z, qmin, qmax) - z) * s`, half to even.

    `x` has any shape; `scale` (float32) and `zero_point` (int32) are `()` with `axis=-1`, or `(x.shape[axis],)`.
    The arithmetic is that of ONNX QuantizeLinear followed by DequantizeLinear, bit for bit. Gradients: to `x`
    straight through where the clamp leaves the code alone, zero elsewhere; to `scale` the step-size gradient of
    Esser 2020 (equation 3), with `v = x / s`:
    `round(v) - v` for `qmin - z < v < qmax - z`, `qmin - z` below and `qmax - z` above. (esser2020lsq)
    """
    s, z = along(scale, x, axis), along(zero_point, x, axis)
    y = (x.to(torch.float32) / s).round_()
    if z.ndim == 0 and z.device.type == "cpu":
        y.clamp_(qmin - int(z), qmax - int(z))
    else:
        y.clamp_(qmin - z, qmax - z)
    return y.mul_(s).to(x.dtype)


@fake_quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x, memory_format=torch.contiguous_format) if not x.is_contiguous() else torch.empty_like(x)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, scale, zero_point, ctx.qmin, ctx.qmax, ctx.axis = inputs
    ctx.save_for_backward(x, scale, zero_point)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
    x, scale, zero_point = ctx.saved_tensors
    s, z = along(scale, x, ctx.axis), along(zero_point, x, ctx.axis)
    v = x.to(torch.float32) / s
    low, high = ctx.qmin - z, ctx.qmax - z
    rounded = v.round()
    grad_x = grad_scale = None
    if ctx.needs_input_grad[0]:
        grad_x = grad * ((rounded >= low) & (rounded <= high))
    if ctx.needs_input_grad[1]:
        slope = torch.where(v <= low, low, torch.where(v >= high, high, rounded.sub_(v))) * grad
        dims = [dim for dim in range(x.ndim) if ctx.axis < 0 or dim != ctx.axis]
        grad_scale = (slope.sum(dims) if dims else slope).reshape(scale.shape)
    return grad_x, grad_scale, None, None, None, None


fake_quantize.register_autograd(_backward, setup_context=_setup)
