"""SYQ: signs or ternary codes with a learned scale for every row of the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.estimators import mean_magnitude
from lilliput.quantize.levels import Binary, Ternary
from lilliput.quantize.op import along
from lilliput.quantize.quantizer import Quantizer, Simulation
from lilliput.quantize.simulations.base import leave_, positive


class _Scaled(torch.autograd.Function):
    """`a c`; gradients: to `a` the sum of `g c`, to the weight `g a` where its magnitude is above the threshold and `g` where it
    is not.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, codes: Tensor, scale: Tensor, above: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(codes, scale, above)
        return codes * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor, None]:
        codes, scale, above = ctx.saved_tensors
        grad = grads[0]
        return grad * torch.where(above, scale, 1.0), None, (grad * codes).sum_to_size(scale.shape), None


class Rows(Simulation):
    """Codes of a weight times a scale, a parameter, for each slice along `axis`, or for the whole weight."""

    def __init__(self, scale: Tensor, axis: int | None, share: float, *, binary: bool) -> None:
        super().__init__()
        self.axis, self.share, self.binary = axis, share, binary
        self.scale = nn.Parameter(scale)

    @property
    def limited(self) -> list[nn.Parameter]:
        """The scales."""
        return [self.scale]

    def forward(self, w: Tensor) -> Tensor:
        """The scaled codes."""
        magnitude = w.detach().abs()
        above = magnitude > self.share * magnitude.max()
        codes = torch.where(w.detach() >= 0, 1.0, -1.0) if self.binary else w.detach().sign() * above
        scale = along(self.scale, w, -1 if self.axis is None else self.axis)
        result: Tensor = _Scaled.apply(w, codes, scale, above)  # type: ignore[no-untyped-call]
        return result

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The scales as they are last."""
        assert tensor is not None
        leave_(quantizer, self.scale)
        return self.forward(tensor)


@dataclass(frozen=True, kw_only=True)
class RowScales:
    """Weights become signs (`Binary`) or signs and zeros (`Ternary`) times a scale learned for each row of the kernel.

    Zero are magnitudes up to `share` of the layer's largest. Scales start at the mean magnitude of their row; their gradient is
    the sum of `dL/dq c`, the weight's is `a dL/dq`, or `dL/dq` where the magnitude is at most the threshold, as in the authors'
    code. Of the paper's subgroups these are the rows; those of single positions would need a scale along two dimensions. Weights
    without a kernel have one scale, as in the paper. (faraone2018syq)
    """

    share: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise RecipeError(f"share of the largest magnitude lies in [0, 1), not {self.share!r}")

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install the rows."""
        if tensor is None or not isinstance(quantizer.grid, Binary | Ternary):
            raise PreconditionError(f"{quantizer.layer}: scales of rows are for weights on Binary() or Ternary(), not "
                                    f"{quantizer.grid}; see the scheme")
        axis = 2 if tensor.ndim > 2 else None
        start = positive(mean_magnitude(tensor, axis))
        quantizer.grid = quantizer.grid.along(axis)
        quantizer.simulation = Rows(start, axis, self.share, binary=isinstance(quantizer.grid, Binary))
