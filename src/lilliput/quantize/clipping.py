"""Clipping: ranges from formulas that weigh what is clipped against the size of the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.grids import Grid, Integer
from lilliput.quantize.ranges import filled
from lilliput.quantize.streams import Histogram, Stream


@cache
def laplace_ratio(bits: int, *, one_sided: bool = False) -> float:
    """The best clip over the mean deviation `b` of a Laplace distribution, `W(3 4^bits)`, with Lambert's W. (banner2019aciq)

    It minimises `2 b^2 e^(-a / b) + a^2 / (3 4^bits)`, what is clipped and what is rounded. A `one_sided` distribution has
    steps half as wide, which is as good as one more bit.

    >>> [round(laplace_ratio(bits), 2) for bits in (2, 3, 4)]
    [2.83, 3.9, 5.03]
    """
    from scipy.special import lambertw

    return float(lambertw((12 if one_sided else 3) * 4.0**bits).real)


@cache
def gauss_ratio(bits: int, *, one_sided: bool = False) -> float:
    """The best clip over the standard deviation of a normal distribution: the `a` with `2 (p(a) - a Q(a)) = a / (3 4^bits)`.

    `p` is the density and `Q` the upper tail. (banner2019aciq)

    >>> [round(gauss_ratio(bits), 2) for bits in (2, 3, 4)]
    [1.71, 2.15, 2.56]
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    share = 1 / ((12 if one_sided else 3) * 4.0**bits)

    def slope(a: float) -> float:
        return float(2 * (math.exp(-a * a / 2) / math.sqrt(2 * math.pi) - a * ndtr(-a)) - share * a)

    return float(brentq(slope, 1e-6, 40.0))


def _clip(mean_deviation: Tensor, deviation: Tensor, bits: int, *, one_sided: bool = False) -> Tensor:
    """The best clip for the likelier of the two distributions, elementwise."""
    # -log(2 b) - 1 and -log(2 pi e s^2) / 2 are the mean logarithms of the two densities at their best parameters.
    laplace = (2 * mean_deviation).log() + 1 < (2 * math.pi * math.e * deviation.square()).log() / 2
    best = laplace_ratio(bits, one_sided=one_sided) * mean_deviation, gauss_ratio(bits, one_sided=one_sided) * deviation
    return torch.where(laplace, *best)


@dataclass(frozen=True, kw_only=True)
class Analytic:
    """The range of least expected squared error, for a Laplace or a normal distribution, whichever is likelier. (banner2019aciq)

    Around the mean, where the grid is affine; from zero, where values have one sign: those at zero then count for nothing.
    """

    bins: int = 4096

    def stream(self) -> Stream:
        """A histogram."""
        return Histogram(self.bins)

    def __call__(self, stream: Stream, grid: Grid) -> tuple[float, float]:
        """The clipped interval, within the extremes."""
        histogram = filled(stream)
        values, counts = histogram.centers, histogram.counts
        one_sided = histogram.low >= 0 or histogram.high <= 0
        if one_sided:
            some = values.abs() >= histogram.width
            values, counts = values[some], counts[some]
        total = counts.sum()
        if not float(total):
            return histogram.low, histogram.high
        center = torch.zeros(()) if one_sided or grid.symmetric else (values * counts).sum() / total
        distance = (values - center).abs()
        first, second = ((distance**power * counts).sum() / total for power in (1, 2))
        limit = float(_clip(first, second.sqrt(), grid.bits, one_sided=one_sided))
        return max(histogram.low, float(center) - limit), min(histogram.high, float(center) + limit)

    def limits(self, rows: Tensor, grid: Integer) -> Tensor:
        """The clip of every row."""
        magnitude = rows.abs()
        clip = _clip(magnitude.mean(1), magnitude.square().mean(1).sqrt(), grid.bits)
        reach = magnitude.amax(1)
        return torch.where(reach > 0, torch.minimum(clip, reach), reach)


@dataclass(frozen=True, kw_only=True)
class NewtonClip:
    """The clip `s` of least squared error, by Newton's iteration. (sakr2022octav)

    `s <- E[|x| 1(|x| > s)] / (4^-B / 3 P(0 < |x| <= s) + P(|x| > s))` from `E|x|` on, until it moves by less than `tolerance`;
    without negative values, whose grid has steps half as wide, with 12 for 3.
    """

    iterations: int = 50
    tolerance: float = 1e-6
    bins: int = 4096

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise RecipeError(f"Newton's iteration takes one step or more, not {self.iterations}")

    def stream(self) -> Stream:
        """A histogram."""
        return Histogram(self.bins)

    def __call__(self, stream: Stream, grid: Grid) -> tuple[float, float]:
        """The clipped interval, within the extremes."""
        histogram = filled(stream)
        values = histogram.centers
        # The bin of zero is the only one that holds zeros, which no clip changes.
        counts = torch.where(values.abs() < histogram.width, 0.0, histogram.counts)
        if not float(counts.sum()):
            return histogram.low, histogram.high
        limit = float(self.iterate(values.abs()[None], grid.bits, one_sided=histogram.low >= 0, weights=counts[None]))
        return max(histogram.low, -limit), min(histogram.high, limit)

    def limits(self, rows: Tensor, grid: Integer) -> Tensor:
        """The clip of every row."""
        magnitude = rows.abs()
        return torch.minimum(self.iterate(magnitude, grid.bits), magnitude.amax(1))

    def iterate(self, magnitude: Tensor, bits: int, *, one_sided: bool = False, start: Tensor | None = None,
                weights: Tensor | None = None) -> Tensor:
        """The clip of each row of magnitudes, `(rows,)`, each value counted `weights` times; zeros where a row is all zero.

        From below it grows steadily, since the slope of the error is concave; from too wide a `start` it falls below first.
        """
        share = 4.0**-bits / (12 if one_sided else 3)
        counts = (magnitude > 0).to(magnitude.dtype) if weights is None else weights
        total = counts.sum(1).clamp(min=1e-30)
        products = magnitude * counts
        clip = products.sum(1) / total if start is None else start
        for _ in range(self.iterations):
            beyond = magnitude > clip[:, None]
            outside = (counts * beyond).sum(1)
            found = (products * beyond).sum(1) / (share * (total - outside) + outside)
            done = (found - clip).abs() <= self.tolerance * clip
            clip = found
            if bool(done.all()):
                break
        return clip
