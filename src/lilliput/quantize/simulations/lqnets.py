"""LQ-Nets: levels from a basis that follows the values by least squares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.estimators import mean_magnitude
from lilliput.quantize.grids import Integer
from lilliput.quantize.levels import BitPlanes
from lilliput.quantize.levels_op import codes_of
from lilliput.quantize.quantizer import Quantizer, Simulation
from lilliput.quantize.simulations.base import leave_, levels_nearest, one_sided, positive, replaced
from lilliput.quantize.simulations.planes import encodings, fitted, sorted_levels


class LearnedBasis(Simulation):
    """Values move to the nearest level of a basis; in training the basis moves a little towards the one that fits them best.

    One basis to each slice along `axis` for weights, whose gradient passes unchanged; one for all activations, whose gradient
    stops at the largest level.
    """

    def __init__(self, basis: Tensor, axis: int | None, *, signed: bool, keep: float) -> None:
        super().__init__()
        self.axis, self.signed, self.keep = axis, signed, keep
        self.register_buffer("basis", basis.detach().clone())
        self.register_buffer("codes", encodings(basis.shape[-1], signed=signed, device=basis.device), persistent=False)

    def rows(self, x: Tensor) -> Tensor:
        """Values of each basis, `(channels, N)` or `(N,)`."""
        return x.flatten() if self.axis is None else x.movedim(self.axis, 0).flatten(1)

    def fit_(self, x: Tensor, keep: float) -> None:
        """One iteration of the paper's algorithm 1: bits for the basis, a basis for the bits, `v <- keep v + (1 - keep) v'`."""
        basis = self.get_buffer("basis")
        with torch.no_grad():
            scale, _, thresholds, codes = sorted_levels(basis, self.get_buffer("codes"))
            values = x.detach().float()
            found = self.rows(codes_of(values, scale, thresholds, -1 if self.axis is None else self.axis))
            wanted = found[..., None].expand(*found.shape, codes.shape[-1])
            bits = codes[found] if self.axis is None else torch.gather(codes, 1, wanted)
            basis.lerp_(fitted(self.rows(values), bits, basis), 1 - keep)

    def forward(self, x: Tensor) -> Tensor:
        """The levels of the basis as it was before this batch."""
        scale, levels, thresholds, _ = sorted_levels(self.get_buffer("basis"), self.get_buffer("codes"))
        value = levels_nearest(x, scale, levels, thresholds, self.axis)
        if self.training:
            self.fit_(x, self.keep)
        return replaced(x if self.signed else torch.where(x > scale, scale, x), value)

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The table of the basis as it is last."""
        scale, levels, thresholds, _ = sorted_levels(self.get_buffer("basis"), self.get_buffer("codes"))
        quantizer.tabulate(levels, thresholds)
        leave_(quantizer, scale)
        return None if tensor is None else self(tensor)


@dataclass(frozen=True, kw_only=True)
class QuantizationErrorMinimisation:
    """Levels are `v b` over all codes `b` in {-1, 1} for weights, {0, 1} for activations; the basis `v` follows the values.

    In each forward pass of training `v <- keep v + (1 - keep) argmin |x - B v|^2`. Weights start with the basis that `iterations`
    of that find for them, activations with one that covers the calibrated range evenly. (zhang2018lqnets)
    """

    keep: float = 0.9
    iterations: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.keep < 1:
            raise RecipeError(f"keep is the share of the basis that stays in one step, in [0, 1), not {self.keep!r}")

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install the basis; activations that are never negative change to a table without signs."""
        grid = quantizer.grid
        if tensor is not None:
            if not isinstance(grid, BitPlanes):
                raise PreconditionError(f"{quantizer.layer}: a basis of bits needs the grid BitPlanes(), not {grid}; pass it in "
                                        "the scheme")
            # Levels that no weight takes at the start would never be taken.
            largest = tensor.detach().float().abs().amax([dim for dim in range(tensor.ndim) if dim != grid.axis])
            reach = torch.minimum((1 + grid.bits / 2) * mean_magnitude(tensor, grid.axis), largest)
            basis = LearnedBasis(_even(positive(reach), grid.bits), grid.axis, signed=True, keep=self.keep)
            for _ in range(self.iterations):
                basis.fit_(tensor, 0.0)
            quantizer.simulation = basis
            return
        if not isinstance(grid, Integer) or not one_sided(quantizer):
            raise PreconditionError(f"{quantizer.layer}: a basis of bits 0 and 1 is for activations that are never negative; see"
                                    " Roles(signed=...)")
        quantizer.simulation = LearnedBasis(_even(quantizer.scale * grid.qmax, grid.bits), None, signed=False, keep=self.keep)
        quantizer.regrid(BitPlanes(bits=grid.bits, signed=False))


def _even(reach: Tensor, bits: int) -> Tensor:
    """The basis 1, 2, 4... scaled so that all bits together make `reach`."""
    powers = 2.0 ** torch.arange(bits, device=reach.device)
    return reach.detach()[..., None] * powers / powers.sum()
