"""What reconstruction learns: for each weight whether it is rounded up or down, and the scales of activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError
from lilliput.quantize.grids import Integer, Parameters
from lilliput.quantize.op import along, fake_quantize
from lilliput.quantize.quantizer import Quantizer, Simulation

# The sigmoid is stretched to (ZETA, GAMMA) and cut to (0, 1), so that it reaches both ends.
ZETA, GAMMA = 1.1, -0.1


class SoftRounding(Simulation):
    """`s clip(floor(w / s) + h(V), n, p)` with `h(V) = clip(sigmoid(V) (zeta - gamma) + gamma, 0, 1)`.

    Starts at the weight itself (within the range of the grid), which has `h(V) = w / s - floor(w / s)`; ends with `h` rounded
    to 0 or 1. (nagel2020adaround)
    """

    below: Tensor
    scale: Tensor

    def __init__(self, quantizer: Quantizer, weight: Tensor) -> None:
        super().__init__()
        grid = quantizer.grid
        if not isinstance(grid, Integer):
            raise PreconditionError(f"{quantizer.layer}: rounding is learned on integer grids, not {grid}; take integers for its weights")
        axis = -1 if grid.axis is None else grid.axis
        scale, zero = along(quantizer.scale.detach(), weight, axis), along(quantizer.zero_point, weight, axis)
        steps = weight.detach().float() / scale
        self.register_buffer("scale", scale)
        self.register_buffer("below", steps.floor())
        self.register_buffer("least", (grid.qmin - zero).to(steps.dtype))
        self.register_buffer("most", (grid.qmax - zero).to(steps.dtype))
        rest = steps - self.below
        self.v = nn.Parameter(-torch.log((ZETA - GAMMA) / (rest - GAMMA) - 1))

    @property
    def h(self) -> Tensor:
        """How far each weight is rounded up, from 0 to 1."""
        return (self.v.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def undecided(self, beta: float) -> Tensor:
        """`sum 1 - |2 h - 1|^beta`: the number of weights that are between up and down, in a sense that `beta` makes strict."""
        return (1 - (2 * self.h - 1).abs().pow(beta)).sum()

    def forward(self, x: Tensor) -> Tensor:
        """The weight as it is rounded now."""
        return self._values(self.h).to(x.dtype)

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """The weight with every `h` rounded."""
        return None if tensor is None else self._values((self.v >= 0).to(self.below.dtype)).to(tensor.dtype)

    def _values(self, up: Tensor) -> Tensor:
        return (self.below + up).clamp(self.get_buffer("least"), self.get_buffer("most")) * self.scale


class LearnedScale(Simulation):
    """An activation's scale `s e^t`, with the gradient of Esser 2020; the zero point stays. (esser2020lsq)"""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        assert isinstance(quantizer.grid, Integer)
        self._quantizer = (quantizer,)  # a tuple, so that it is no submodule
        self.t = nn.Parameter(torch.zeros_like(quantizer.scale))

    def forward(self, x: Tensor) -> Tensor:
        """Quantize with the scale as it is now."""
        (quantizer,) = self._quantizer
        grid = quantizer.grid
        assert isinstance(grid, Integer)
        axis = -1 if grid.axis is None else grid.axis
        result: Tensor = fake_quantize(x, quantizer.scale.detach() * self.t.exp(), quantizer.zero_point, grid.qmin, grid.qmax, axis)
        return result

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> None:  # noqa: ARG002
        """Leave the learned scale in the quantizer."""
        scale = quantizer.scale.detach() * self.t.detach().exp()
        quantizer.set(Parameters(scale, quantizer.zero_point, torch.zeros_like(scale, dtype=torch.bool)))
