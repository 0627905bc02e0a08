"""APoT: normalised weights on sums of powers of two, with learned clips."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError
from lilliput.quantize.grids import Integer
from lilliput.quantize.levels import AdditivePowersOfTwo
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.simulations.base import OnGrid, leave_, one_sided, positive, replaced
from lilliput.quantize.simulations.dorefa import expanded


class Clipped(OnGrid):
    """`a q(clip(x / a))` with the reparameterised gradient: `dy/da` is the sign beyond the clip, and `q(x / a) - x / a` inside
    it.
    """

    def __init__(self, grid: AdditivePowersOfTwo, start: Tensor) -> None:
        super().__init__(grid)
        self.clip = nn.Parameter(start.detach().clone())

    @property
    def limited(self) -> list[nn.Parameter]:
        """The clip."""
        return [self.clip]

    def spread(self, x: Tensor, clip: Tensor) -> Tensor:
        """The clipped values, smooth in `x` and `clip`, with the grid's part of the gradient to `clip`."""
        low = 0.0 if self.levels[0] >= 0 else -1.0
        ratio = (x / clip).clamp(low, 1.0)
        return clip * replaced(ratio, self.nearest(ratio, torch.ones_like(clip)))

    def forward(self, x: Tensor) -> Tensor:
        """Activations: the gradient stops at the clip."""
        return replaced(self.spread(x, self.clip), self.nearest(x, self.clip))

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """The clip as it is last."""
        quantizer.regrid(self.grid)
        leave_(quantizer, self.clip)
        return None


class Normalised(Clipped):
    """The same of `(w - mean w) / std w`, mean and deviation of the whole weight as constants; the gradient passes the clip.

    What comes out is multiplied with `unit`, the deviation at the start.
    """

    def __init__(self, grid: AdditivePowersOfTwo, w: Tensor, start: Tensor) -> None:
        super().__init__(grid, start)
        self.register_buffer("unit", positive(w.detach().float().std()))

    def forward(self, w: Tensor) -> Tensor:
        """The levels."""
        normal = (w - w.detach().mean()) / positive(w.detach().std())
        # Where the clip cuts, the gradient of the weight is that of the identity.
        passed = normal + (self.spread(normal.detach(), self.clip) - normal.detach())
        clip = expanded(self.clip * self.get_buffer("unit"), self.grid, w)
        return replaced(passed * self.get_buffer("unit"), self.nearest(normal * self.get_buffer("unit"), clip))

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The clip as it is last, times the deviation."""
        assert tensor is not None
        leave_(quantizer, expanded(self.clip * self.get_buffer("unit"), self.grid, tensor))
        return self.forward(tensor)


@dataclass(frozen=True, kw_only=True)
class PowersOfTwoClip:
    """Values become sums of powers of two between learned clips, `a q(clip(x / a))`; weights are normalised to zero mean and unit
    variance first.

    `dy/da` is `sign(x)` where `|x| > a` and `q(x / a) - x / a` elsewhere; a weight's own gradient passes unchanged, as in the
    authors' code. Departs from the paper: normalised weights are multiplied with the deviation that they had at the start, as the
    factor of `TanhLevels`; the clip of weights starts at `start` deviations, that of activations where calibration put it.
    (li2020apot)
    """

    start: float = 3.0
    base_bits: int = 2

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install the clip; activations that are never negative change to the table without signs."""
        grid = quantizer.grid
        if tensor is not None:
            if not isinstance(grid, AdditivePowersOfTwo):
                raise PreconditionError(f"{quantizer.layer}: sums of powers of two need the grid AdditivePowersOfTwo(), not "
                                        f"{grid}; pass it in the scheme")
            quantizer.simulation = Normalised(grid, tensor, torch.full((), self.start, device=tensor.device))
            return
        if not isinstance(grid, Integer) or not one_sided(quantizer):
            raise PreconditionError(f"{quantizer.layer}: sums of powers of two without signs are for activations that are never "
                                    "negative; see Roles(signed=...)")
        table = AdditivePowersOfTwo(bits=grid.bits, signed=False, base_bits=self.base_bits)
        quantizer.simulation = Clipped(table, quantizer.scale * grid.qmax)
        quantizer.regrid(table)
