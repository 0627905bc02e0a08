"""The one operator of simulated quantization: `lilliput::fake_quantize`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lilliput import _native


def along(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """Shape `values` to broadcast along `axis` of `like`; scalars and per-tensor values pass."""
    if axis < 0 or values.ndim == 0:
        return values.reshape(()) if values.numel() == 1 else values
    return values.reshape([-1 if dim == axis else 1 for dim in range(like.ndim)])


_KERNELS = {
    torch.float32: (_native.fake_quantize_f32, _native.fake_quantize_backward_f32, torch.float32),
    # The kernel takes bfloat16 as its bits.
    torch.bfloat16: (_native.fake_quantize_bf16, _native.fake_quantize_backward_bf16, torch.uint16),
}
_WIDEST = 2**20


def _limits(scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> tuple[float, float, float] | None:
    """Scale and limits for the kernel that does it all in one pass; None where only torch can."""
    if scale.ndim or zero_point.ndim or scale.device.type != "cpu" or max(-qmin, qmax) > _WIDEST:
        return None
    zero = int(zero_point)
    return float(scale), float(qmin - zero), float(qmax - zero)


def _flat(x: Tensor, kind: torch.dtype) -> Tensor:
    """The values in the order in which they lie in memory, `(N,)`."""
    return x.detach().as_strided((x.numel(),), (1,)).view(kind)


def _wide(x: Tensor) -> torch.dtype:
    """Half precisions are rounded in single, double in double, where sums of products are exact (`exact`)."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


@torch.library.custom_op("lilliput::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int) -> Tensor:
    """Round to an integer grid and back: `(clamp(round(x / s) + z, qmin, qmax) - z) * s`, half to even.

    `x` has any shape; `scale` (float32) and `zero_point` (int32) are `()` with `axis=-1`, or `(x.shape[axis],)`.
    The arithmetic is that of ONNX QuantizeLinear followed by DequantizeLinear, bit for bit. Gradients: to `x`
    straight through where the clamp leaves the code alone, zero elsewhere; to `scale` the step-size gradient of
    Esser 2020 (equation 3), with `v = x / s`:
    `round(v) - v` for `qmin - z < v < qmax - z`, `qmin - z` below and `qmax - z` above. (esser2020lsq)
    """
    kernel, limits = _KERNELS.get(x.dtype), _limits(scale, zero_point, qmin, qmax)
    if kernel is not None and limits is not None and x.device.type == "cpu" and _dense(x):
        out = torch.empty_like(x)
        if kernel[0](_flat(x, kernel[2]), _flat(out, kernel[2]), *limits):
            return out
    s, z = along(scale, x, axis), along(zero_point, x, axis)
    y = (x.to(_wide(x)) / s).round_()
    if z.ndim == 0 and z.device.type == "cpu":
        y.clamp_(qmin - int(z), qmax - int(z))
    else:
        y.clamp_(qmin - z, qmax - z)
    return y.mul_(s).to(x.dtype)


@fake_quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, scale, zero_point, ctx.qmin, ctx.qmax, ctx.axis = inputs
    ctx.save_for_backward(x, scale, zero_point)


def _fast_backward(x: Tensor, grad: Tensor, scale: Tensor, limits: tuple[float, float, float] | None) -> tuple[Tensor, Tensor] | None:
    """Both gradients by the kernel, where it can."""
    kernel = _KERNELS.get(x.dtype)
    if kernel is None or limits is None or x.device.type != "cpu" or not _dense(x) or grad.dtype != x.dtype:
        return None
    grad_x = torch.empty_like(x)
    grad = grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)
    done, total = kernel[1](_flat(x, kernel[2]), _flat(grad, kernel[2]), _flat(grad_x, kernel[2]), *limits)
    return (grad_x, scale.new_tensor(total)) if done else None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
    x, scale, zero_point = ctx.saved_tensors
    fast = _fast_backward(x, grad, scale, _limits(scale, zero_point, ctx.qmin, ctx.qmax))
    if fast is not None:
        return fast[0], fast[1] if ctx.needs_input_grad[1] else None, None, None, None, None
    s, z = along(scale, x, ctx.axis), along(zero_point, x, ctx.axis)
    v = x.to(_wide(x)) / s
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
