"""The operator of quantization with a range from the values at hand: `lilliput::dynamic_quantize`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_SMALLEST = 2.0**-100


@torch.library.custom_op("lilliput::dynamic_quantize", mutates_args=())
def dynamic_quantize(x: Tensor, rows: bool) -> Tensor:
    """Round to 8-bit integers whose range is that of `x` itself, and back, half to even.

    Without `rows`: `s = (max(x, 0) - min(x, 0)) / 255`, `z = round(-min(x, 0) / s)`, `(clamp(round(x / s) + z, 0, 255) - z) s`,
    bit for bit ONNX DynamicQuantizeLinear and DequantizeLinear. With `rows`, every slice along the last dimension has its own
    `s = max|x| / 127` and no zero point. Gradients pass straight through.
    """
    v = x.to(torch.float32)
    if rows:
        scale = (v.abs().amax(-1, keepdim=True) / 127).clamp(min=_SMALLEST)
        y = (v / scale).round_().clamp_(-127, 127).mul_(scale)
    else:
        low, high = (end.clamp(max=0) if i == 0 else end.clamp(min=0) for i, end in enumerate(torch.aminmax(v)))
        scale = (high - low) / 255
        scale = torch.where(scale == 0, 1.0, scale)
        zero = (-low / scale).clamp(0, 255).round()
        y = (v / scale).round_().add_(zero).clamp_(0, 255).sub_(zero).mul_(scale)
    # Strides as `register_fake` promises them.
    return torch.empty_like(x).copy_(y)


@dynamic_quantize.register_fake
def _(x: Tensor, rows: bool) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ARG001
    return grad, None


dynamic_quantize.register_autograd(_backward)
