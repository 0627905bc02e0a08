"""OCTAV: training with the clip of least squared error, found anew at every step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.clipping import NewtonClip
from lilliput.quantize.estimators import Estimator
from lilliput.quantize.grids import Integer
from lilliput.quantize.op import fake_quantize
from lilliput.quantize.quantizer import Quantizer, Simulation
from lilliput.quantize.simulations.base import replaced


class NewtonRange(Simulation):
    """Quantizes with the clip `s` of the tensor at hand; gradients beyond it shrink as values do, `s / |x|`.

    (sakr2022octav)
    """

    limit: Tensor

    def __init__(self, quantizer: Quantizer, clip: NewtonClip, momentum: float) -> None:
        super().__init__()
        self._quantizer, self._clip, self._momentum = (quantizer,), clip, momentum  # a tuple, so that it is no submodule
        self.register_buffer("limit", torch.zeros_like(quantizer.scale))  # zeros: not known yet

    def forward(self, x: Tensor) -> Tensor:
        """Move the range in training, then quantize."""
        (quantizer,) = self._quantizer
        grid = quantizer.grid
        assert isinstance(grid, Integer)
        if self.training:
            self._move(x.detach().float())
        axis = -1 if grid.axis is None else grid.axis
        scale, zero = quantizer.scale.clone(), quantizer.zero_point.clone()
        with torch.no_grad():
            value: Tensor = fake_quantize(x, scale, zero, grid.qmin, grid.qmax, axis)
        if not self.training:
            return value
        shape = [-1 if dim == axis else 1 for dim in range(x.ndim)]
        share = (self.limit.reshape(shape if axis >= 0 else ()) / x.detach().abs().clamp(min=1e-30)).clamp(max=1)
        return replaced(x * share, value)

    def _move(self, x: Tensor) -> None:
        (quantizer,) = self._quantizer
        grid = quantizer.grid
        assert isinstance(grid, Integer)
        rows = x.reshape(1, -1) if grid.axis is None else x.movedim(grid.axis, 0).flatten(1)
        one_sided = not grid.symmetric and not bool((x < 0).any())
        known = bool((self.limit > 0).any())
        # From the last step's clip it takes a few iterations instead of a dozen.
        clip = replace(self._clip, iterations=3) if known else self._clip
        found = clip.iterate(rows.abs(), grid.bits, one_sided=one_sided, start=self.limit.reshape(-1) if known else None)
        found = found.reshape(quantizer.scale.shape)
        moved = torch.lerp(self.limit, found, self._momentum) if known and not quantizer.weight else found
        self.limit = moved
        low, high = (end.reshape(quantizer.scale.shape) for end in (rows.amin(1), rows.amax(1)))
        low = torch.zeros_like(moved) if one_sided else torch.maximum(low, -moved)
        ends = (-moved, moved) if grid.symmetric else (low, torch.minimum(high, moved))
        quantizer.set(grid.parameters(*ends))

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> None:  # noqa: ARG002
        """A weight's range is found once more, to the end."""
        if tensor is not None:
            self.limit = torch.zeros_like(self.limit)
            self._move(tensor.detach().float())


@dataclass(frozen=True, kw_only=True)
class NewtonClipped(Estimator):
    """Equips quantizers with ranges of least squared error, found in every step by Newton's iteration. (sakr2022octav)

    A weight's is found for the weight as it is; an activation's follows the batches as a moving average, `s <- s + m (s_batch -
    s)`, which is a departure: a fixed range is what can be deployed.
    """

    clip: NewtonClip = field(default_factory=NewtonClip)
    momentum: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.momentum <= 1:
            raise RecipeError(f"momentum lies above 0 and up to 1, not {self.momentum!r}")

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:  # noqa: ARG002
        """Give the quantizer its simulation."""
        if isinstance(quantizer.grid, Integer):
            quantizer.simulation = NewtonRange(quantizer, self.clip, self.momentum)
