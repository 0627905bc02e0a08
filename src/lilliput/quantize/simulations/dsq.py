"""DSQ: a staircase made of tanh pieces, which training makes steeper."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.estimators import step_of_mean
from lilliput.quantize.grids import Integer, Parameters
from lilliput.quantize.op import along, fake_quantize
from lilliput.quantize.quantizer import Quantizer, Simulation
from lilliput.quantize.simulations.base import replaced

# How flat and how steep a piece may become.
_LEAST, _MOST = 0.01, 0.5


def soft_steps(v: Tensor, softness: Tensor) -> Tensor:
    """`i + (1 + tanh(k (v - i - 1/2)) / tanh(k / 2)) / 2` for `i = floor v`, `k = log(2 / a - 1)`.

    `a = 1 - tanh(k / 2)` is the softness: with none these are the steps of rounding, with all of it the identity. (gong2019dsq)
    """
    whole = v.detach().floor()
    k = (2 / softness - 1).log()
    return whole + (1 + torch.tanh(k * (v - whole - 0.5)) / (1 - softness)) / 2


class Staircase(Simulation):
    """The nearest level forward, the slope of `soft_steps` backward; scale and softness are parameters, a range is `scale` times
    codes.
    """

    def __init__(self, grid: Integer, scale: Tensor, zero_point: Tensor, softness: float) -> None:
        super().__init__()
        self.grid = grid
        self.scale = nn.Parameter(scale.detach().clone())
        self.softness = nn.Parameter(torch.full((), softness, device=scale.device))
        self.register_buffer("zero_point", zero_point.detach().clone())

    @property
    def limited(self) -> list[nn.Parameter]:
        """Scale and softness."""
        return [self.scale, self.softness]

    def forward(self, x: Tensor) -> Tensor:
        """The nearest level."""
        axis = -1 if self.grid.axis is None else self.grid.axis
        scale, zero = along(self.scale, x, axis), along(self.get_buffer("zero_point"), x, axis)
        with torch.no_grad():
            value = fake_quantize(x, self.scale, self.get_buffer("zero_point"), self.grid.qmin, self.grid.qmax, axis)
        codes = (x / scale + zero).clamp(self.grid.qmin, self.grid.qmax)
        return replaced((soft_steps(codes, self.softness.clamp(_LEAST, _MOST)) - zero) * scale, value)

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The scale as it is last; the zero point was fixed."""
        scale = self.scale.detach()
        quantizer.set(Parameters(scale, self.get_buffer("zero_point"), torch.zeros_like(scale, dtype=torch.bool)))
        return None if tensor is None else self(tensor)


@dataclass(frozen=True, kw_only=True)
class SoftStaircase:
    """Rounding has the slope of tanh pieces, one between neighbouring levels, whose softness `a` is learned, as is the range.

    Forward are the hard steps. Departs from the paper: the range is a learned scale, with the calibrated zero point, instead of
    two learned ends, so that zero stays exact; and the softness has no penalty, only limits. The scale of weights starts as that
    of `LSQ`. (gong2019dsq)
    """

    softness: float = 0.2

    def __post_init__(self) -> None:
        if not _LEAST <= self.softness <= _MOST or not math.isfinite(self.softness):
            raise RecipeError(f"softness lies in [{_LEAST}, {_MOST}], not {self.softness!r}")

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install the staircase."""
        if not isinstance(quantizer.grid, Integer):
            raise PreconditionError(f"{quantizer.layer}: a soft staircase has even steps, those of integer grids, not of "
                                    f"{quantizer.grid}; see the scheme")
        scale = quantizer.scale if tensor is None else step_of_mean(tensor, quantizer.grid, quantizer.scale)
        quantizer.simulation = Staircase(quantizer.grid, scale, quantizer.zero_point, self.softness)
