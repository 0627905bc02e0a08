"""A layer whose three products run in an emulated arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lilliput.quantize.low_precision.arithmetic import Arithmetic
from lilliput.quantize.low_precision.casts import Scaled
from lilliput.quantize.low_precision.windows import Dense, Geometry


class _Products(torch.autograd.Function):
    """Forward, input gradient and weight gradient, each on the operands that the forward pass rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, arithmetic: Arithmetic, geometry: Geometry) -> Tensor:
        operands, add = arithmetic.operands, arithmetic.forward
        a, w = operands.activation(x.float()), operands.weight(weight.float())
        product = add(geometry.rows(w.values), geometry.columns(a.values, w.values)) * (a.scale * w.scale)
        if bias is not None:
            product = product + bias.reshape(len(product), -1, 1)
        ctx.arithmetic, ctx.geometry, ctx.scales, ctx.bias = arithmetic, geometry, (a.scale, w.scale), bias is not None
        ctx.save_for_backward(a.values, w.values)
        return geometry.image(add.finish(product), x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        a, w = ctx.saved_tensors
        a_scale, w_scale = ctx.scales
        geometry: Geometry = ctx.geometry
        arithmetic: Arithmetic = ctx.arithmetic
        error = arithmetic.operands.error(grads[0].float())
        copied = arithmetic.operands.error_for_weight
        twin = error if copied is None else copied(grads[0].float())
        into = weight = bias = None
        if ctx.needs_input_grad[0]:
            into = geometry.input_gradient(arithmetic.backward, error.values, w, a)
            into = arithmetic.backward.finish(into * (error.scale * w_scale))
        if ctx.needs_input_grad[1]:
            weight = _weight_gradient(arithmetic, geometry, twin, Scaled(a, a_scale), w)
        if ctx.bias and ctx.needs_input_grad[2]:
            matrix = geometry.errors(twin.values)
            ones = matrix.new_ones(len(matrix), matrix.shape[2], 1)
            bias = arithmetic.gradient.finish(arithmetic.gradient(matrix, ones) * twin.scale).reshape(-1)
        return into, weight, bias, None, None


def _weight_gradient(arithmetic: Arithmetic, geometry: Geometry, error: Scaled, a: Scaled, weight: Tensor) -> Tensor:
    columns = geometry.columns(a.values, weight)
    product = arithmetic.gradient(geometry.errors(error.values), columns.transpose(1, 2)) * (error.scale * a.scale)
    return arithmetic.gradient.finish(product).reshape(weight.shape)


class Layer(nn.Module):
    """Convolution or linear layer on `(x, weight, bias)` in emulated arithmetic; in evaluation it rounds to nearest.

    The tensors may be of any float type; results and gradients are float32 tensors of the arithmetic's numbers.
    """

    def __init__(self, name: str, arithmetic: Arithmetic, geometry: Geometry = Dense()) -> None:
        super().__init__()
        self.name, self.arithmetic, self.geometry = name, arithmetic, geometry
        self._evaluation = arithmetic.nearest()

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's result."""
        arithmetic = self.arithmetic if self.training else self._evaluation
        result: Tensor = _Products.apply(x, weight, bias, arithmetic, self.geometry)  # type: ignore[no-untyped-call]
        return result

    def extra_repr(self) -> str:
        """Layer and arithmetic."""
        return f"{self.name!r}, {self.arithmetic}"
