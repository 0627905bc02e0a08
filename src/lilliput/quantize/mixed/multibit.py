"""Weights that are sums of binary vectors:

`sum_i a_i b_i` with signs `b_i` and as many coordinates `a_i` as a channel has bits.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.grids import Parameters
from lilliput.quantize.levels import Table
from lilliput.quantize.levels_op import codes_of, fake_levels
from lilliput.quantize.quantizer import Quantizer, Simulation


@cache
def patterns(bases: int) -> Tensor:
    """All `2^bases` combinations of signs, `(2^bases, bases)`."""
    codes = torch.arange(1 << bases)
    return 2.0 * (codes[:, None] >> torch.arange(bases) & 1).float() - 1


def sums(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """All sums `sum_i +-a_i` of each row of coordinates `(channels, bases)`, ascending, and the pattern of each.

    A coordinate of zero makes every level twice, which changes nothing.
    """
    levels = torch.zeros(len(coordinates), 1 << coordinates.shape[1]).to(coordinates)
    # Added one by one, so that equal sums come out equal to the last bit.
    for a, signs in zip(coordinates.T, patterns(coordinates.shape[1]).to(coordinates).T, strict=True):
        levels = levels + a[:, None] * signs
    levels, order = levels.sort(stable=True, dim=1)
    return levels, order


@cache
def normal_coordinates(bits: int) -> tuple[float, ...]:
    """`a` of least `E (x - sum_i a_i b_i)^2` for a normal variable of mean magnitude 1, in descending order.

    By alternation on 4,001 quantiles: nearest levels, then least squares for the coordinates.

    >>> [round(a, 3) for a in normal_coordinates(1)]
    [1.0]
    """
    x = torch.special.ndtri((torch.arange(4001, dtype=torch.float64) + 0.5) / 4001)
    x /= x.abs().mean()
    a = 2.0 ** torch.arange(bits, dtype=torch.float64) / 2.0 ** max(bits - 1, 0)
    for _ in range(300):
        levels, order = sums(a[None])
        signs = patterns(bits).double()[order[0]][torch.bucketize(x, (levels[0, 1:] + levels[0, :-1]) / 2)]
        a = torch.linalg.solve(signs.T @ signs, signs.T @ x).abs()
    return tuple(float(v) for v in a.sort(descending=True).values)


@dataclass(frozen=True, kw_only=True)
class MultiBit(Table):
    """`{s sum_i +-a_i}` with the coordinates that suit normally distributed weights best, up to 6 of them. (zhao2021dmbq)"""

    bits: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or not 1 <= self.bits <= 6:
            raise RecipeError(f"multi-bit weights have 1 to 6 bases, not {self.bits!r}")

    @property
    def levels(self) -> tuple[float, ...]:
        """All sums, scaled to reach 1."""
        found = sums(torch.tensor([normal_coordinates(self.bits)], dtype=torch.float64))[0][0]
        return tuple(float(v) for v in found / found[-1])


class Bases(Simulation):
    """Weights on the sums of their channel's coordinates, `(channels, bases)`: one bit for each that is left."""

    coordinates: Tensor

    def __init__(self, grid: MultiBit, channels: int) -> None:
        super().__init__()
        self.grid, self.axis = grid, 0 if grid.axis is None else grid.axis
        self.register_buffer("coordinates", torch.zeros(channels, grid.bits))

    @property
    def bits(self) -> Tensor:
        """Bits of every channel, `(channels,)`, int64."""
        return (self.coordinates > 0).sum(1)

    @abstractmethod
    def scores(self, weight: Tensor) -> Tensor:
        """What dropping a bit costs, `(channels, choices)`, a choice to each channel or coordinate; infinite without one."""

    @abstractmethod
    def drop_(self, dropped: Tensor) -> None:
        """Drop the bits that are marked, shaped like the scores."""

    def update_(self, weight: Tensor) -> None:
        """After a step of the optimizer: fit what is not the optimizer's."""

    def table(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scale `(channels,)`, levels relative to it `(channels, levels)`, and the thresholds half-way between them."""
        levels, _ = sums(self.coordinates)
        scale = torch.where(levels[:, -1] > 0, levels[:, -1], 1.0)
        levels = levels / scale[:, None]
        return scale, levels, (levels[:, 1:] + levels[:, :-1]) / 2

    def signs(self, x: Tensor) -> Tensor:
        """The signs of every weight's nearest sum, `(channels, weights, bases)`."""
        scale, _, thresholds = self.table()
        codes = codes_of(x.detach(), scale, thresholds, self.axis).movedim(self.axis, 0).flatten(1)
        order = sums(self.coordinates)[1]
        return patterns(self.coordinates.shape[1]).to(x)[order.gather(1, codes)]

    def nearest(self, x: Tensor) -> Tensor:
        """Every weight's nearest sum; the gradient passes between the outermost ones."""
        scale, levels, thresholds = self.table()
        result: Tensor = fake_levels(x, scale, levels, thresholds, self.axis)
        return result

    def settle(self, quantizer: Quantizer, tensor: Tensor | None) -> Tensor | None:
        """Leave the channels' own tables."""
        assert tensor is not None
        scale, levels, thresholds = self.table()
        quantizer.regrid(self.grid)
        quantizer.tabulate(levels, thresholds)
        quantizer.set(Parameters(scale, torch.zeros_like(scale, dtype=torch.int32), torch.zeros_like(scale, dtype=torch.bool)))
        return self.nearest(tensor)
