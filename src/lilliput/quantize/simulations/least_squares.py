"""Sums of scaled signs of least squared error: one bit, the best two, or greedily as many as there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.levels import BitPlanes, Table
from lilliput.quantize.quantizer import Quantizer, Simulation
from lilliput.quantize.simulations.base import leave_, levels_nearest, positive, replaced
from lilliput.quantize.simulations.planes import encodings, sorted_levels


class Basis(Protocol):
    """Rows of values `(channels, N)` and a number of bits to the scales of that many signs, `(channels, bits)`, largest first."""

    def __call__(self, rows: Tensor, bits: int, /) -> Tensor:
        """The scales."""


@dataclass(frozen=True)
class Greedy:
    """`v_1 = E|x|`, and each further scale the mean magnitude of what the ones before leave over.

    Of least squared error for one bit. (pouransari2020leastsquares)
    """

    def __call__(self, rows: Tensor, bits: int, /) -> Tensor:
        """The scales."""
        scales, rest = [], rows.float()
        for _ in range(bits):
            scale = rest.abs().mean(1)
            scales.append(scale)
            rest = rest.abs() - scale[:, None]
        return torch.stack(scales, 1)


@dataclass(frozen=True)
class Optimal:
    """The scales of least squared error, of one bit or two.

    Two signs make two magnitudes, `v_1 + v_2` and `v_1 - v_2`, so that the best are the means of the two parts of the sorted
    magnitudes that a split leaves least to lose at; all splits are tried. (pouransari2020leastsquares)

    >>> Optimal()(torch.tensor([[1.0, -1.0, 3.0, -3.0]]), 2)
    tensor([[2., 1.]])
    """

    def __call__(self, rows: Tensor, bits: int, /) -> Tensor:
        """The scales."""
        if bits == 1:
            return Greedy()(rows, 1)
        if bits != 2:
            raise RecipeError(f"the scales of least squared error are known for one bit and two, not {bits}; use basis=Greedy()")
        ordered = rows.double().abs().sort(1).values
        count = ordered.shape[1]
        if count < 2:
            return torch.cat([ordered, torch.zeros_like(ordered)], 1).float()
        below = ordered.cumsum(1)[:, :-1]
        above = ordered.sum(1, keepdim=True) - below
        sizes = torch.arange(1, count, device=rows.device, dtype=torch.float64)
        # What is explained: the squares of the two means, times how many they stand for.
        explained = below.square() / sizes + above.square() / (count - sizes)
        at = explained.argmax(1, keepdim=True)
        low, high = (part.gather(1, at) / size for part, size in ((below, sizes[at]), (above, count - sizes[at])))
        return torch.cat([(high + low) / 2, (high - low) / 2], 1).float()


class Signs(Simulation):
    """The nearest sum of scaled signs.

    Of weights the scales are those of the present weight, for each slice along `axis`, and the gradient passes; of activations
    they are averages over the batches, `v <- keep v + (1 - keep) v'`, and the gradient stops at the largest level.
    """

    def __init__(self, basis: Basis, start: Tensor, axis: int | None, keep: float | None) -> None:
        super().__init__()
        self.basis, self.axis, self.keep = basis, axis, keep
        self.register_buffer("scales", start.detach().clone())
        self.register_buffer("codes", encodings(start.shape[-1], signed=True, device=start.device), persistent=False)

    def update_(self, x: Tensor, keep: float) -> None:
        """Move the scales towards those of `x`."""
        with torch.no_grad():
            rows = x.detach().float()
            rows = rows.reshape(1, -1) if self.axis is None else rows.movedim(self.axis, 0).flatten(1)
            scales = self.get_buffer("scales")
            scales.lerp_(self.basis(rows, scales.shape[-1]).reshape(scales.shape), 1 - keep)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        if self.keep is None:
            self.update_(x, 0.0)
        elif self.training:
            self.update_(x, self.keep)
        scale, levels, thresholds, _ = sorted_levels(self.get_buffer("scales"), self.get_buffer("codes"))
        value = levels_nearest(x, scale, levels, thresholds, self.axis)
        return replaced(x if self.keep is None else torch.where(x.abs() > scale, x.detach(), x), value)

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """The table of the scales as they are last."""
        values = None if tensor is None else self.forward(tensor)
        scale, levels, thresholds, _ = sorted_levels(self.get_buffer("scales"), self.get_buffer("codes"))
        quantizer.tabulate(levels, thresholds)
        leave_(quantizer, scale)
        return values


@dataclass(frozen=True, kw_only=True)
class LeastSquaresSigns:
    """Values become sums of scaled signs, `sum_i v_i s_i`, with the scales that `basis` finds: `Optimal` (one bit or two) or
    `Greedy`.

    Weights afresh in every step, one set to each filter; activations as averages over the batches of training.
    (pouransari2020leastsquares)
    """

    basis: Basis = Optimal()
    keep: float = 0.99

    def __post_init__(self) -> None:
        if not 0 <= self.keep < 1:
            raise RecipeError(f"keep is the share of the scales that stays in one step, in [0, 1), not {self.keep!r}")

    def equip_(self, quantizer: Quantizer, tensor: Tensor | None) -> None:
        """Install the signs."""
        grid = quantizer.grid
        if not isinstance(grid, Table) or len(grid.levels) != 2**grid.bits:
            raise PreconditionError(f"{quantizer.layer}: sums of signs need the grid Binary() or BitPlanes(), not {grid}; pass "
                                    "it in the scheme")
        if tensor is not None:
            rows = tensor.detach().reshape(1, -1) if grid.axis is None else tensor.detach().movedim(grid.axis, 0).flatten(1)
            start = self.basis(rows, grid.bits)
            quantizer.simulation = Signs(self.basis, start[0] if grid.axis is None else start, grid.axis, None)
            return
        even = BitPlanes(bits=grid.bits)
        powers = 2.0 ** torch.arange(even.bits - 1, -1, -1, device=quantizer.scale.device)
        quantizer.simulation = Signs(self.basis, positive(quantizer.scale.detach()) * powers / powers.sum(), None, self.keep)
