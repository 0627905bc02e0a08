"""Ranges: which interval of a tensor's values the grid covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.grids import SMALLEST_SCALE, Grid, Integer, Parameters
from lilliput.quantize.streams import Extremes, Histogram, Stream

_TOGETHER = 32  # candidate intervals that are tried at once


class Ranges(Protocol):
    """A range rule: `stream()` says what to remember of the data, the call turns that into `(low, high)`."""

    def stream(self) -> Stream:
        """A fresh stream for one tensor."""

    def __call__(self, stream: Stream, grid: Grid) -> tuple[float, float]:
        """The interval to cover, within the extremes seen."""


@runtime_checkable
class RowRanges(Protocol):
    """A range rule that finds the ranges of all rows of a tensor at once, for symmetric integer grids."""

    def limits(self, rows: Tensor, grid: Integer) -> Tensor:
        """The largest magnitude to cover of every row, `(rows,)`, float32."""


def channel_bounds(ranges: Ranges, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Apply a range rule to a tensor at hand: `low`, `high` of shape `()`, or `(x.shape[axis],)` where the grid has an axis."""
    x = x.detach().float()
    rows = x.reshape(1, -1) if grid.axis is None else x.movedim(grid.axis, 0).reshape(x.shape[grid.axis], -1)
    if isinstance(ranges, MinMax):
        low, high = rows.amin(1), rows.amax(1)
    elif isinstance(ranges, RowRanges) and isinstance(grid, Integer) and grid.symmetric and grid.signed:
        limit = ranges.limits(rows, grid)
        low, high = torch.maximum(rows.amin(1), -limit), torch.minimum(rows.amax(1), limit)
    else:
        pairs = []
        for row in rows:
            stream = ranges.stream()
            stream.update(row)
            pairs.append(ranges(stream, grid))
        low, high = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    return (low.reshape(()), high.reshape(())) if grid.axis is None else (low, high)


def filled(stream: Stream) -> Histogram:
    """The stream as a histogram; raises `PreconditionError` where it is none, or empty."""
    if not isinstance(stream, Histogram) or not stream.count:
        raise PreconditionError("this range needs a histogram of at least one value: calibrate with the stream that it asks for")
    return stream


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """Everything that was seen: `[min x, max x]`. (jacob2018quantization)"""

    def stream(self) -> Stream:
        """Extremes suffice."""
        return Extremes()

    def __call__(self, stream: Stream, grid: Grid) -> tuple[float, float]:  # noqa: ARG002
        """The extremes."""
        return stream.low, stream.high


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """Clip the tails: the interval between the `100 - p` and `p` percentiles of the values, to a bin's width.

    On a symmetric grid the percentile is that of the magnitudes.
    """

    percentile: float = 99.999
    bins: int = 4096

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise RecipeError(f"percentile lies above 50 and up to 100, not {self.percentile!r}")

    def stream(self) -> Stream:
        """A histogram."""
        return Histogram(self.bins)

    def __call__(self, stream: Stream, grid: Grid) -> tuple[float, float]:
        """Upper edges of the bins at which the cumulative share passes the percentile."""
        histogram = filled(stream)
        tail = histogram.count * (1 - self.percentile / 100)
        if grid.symmetric:
            magnitude, order = histogram.centers.abs().sort()
            reached = histogram.counts[order].cumsum(0) >= histogram.count - tail
            limit = float(magnitude[int(reached.int().argmax())]) + histogram.width / 2
            return max(histogram.low, -limit), min(histogram.high, limit)
        edges = (torch.arange(histogram.bins + 1, dtype=torch.float64) + histogram.start) * histogram.width
        below = histogram.counts.cumsum(0)
        first = int((below > tail).int().argmax())
        last = int((below >= histogram.count - tail).int().argmax())
        return max(histogram.low, float(edges[first])), min(histogram.high, float(edges[last + 1]))


@dataclass(frozen=True, kw_only=True)
class MSE:
    """The interval of least squared error: `argmin sum (x - q(x))^2`, by search. (sung2015resiliency)

    Tried are fractions of the extremes in linear and in geometric steps, for two-sided tensors all pairs of coarse ones;
    then each end is moved over the same fractions and around where it stands, while the error falls. `steps` is the
    number of fractions of each kind.
    """

    steps: int = 64
    bins: int = 4096

    def stream(self) -> Stream:
        """A histogram."""
        return Histogram(self.bins)

    def __call__(self, stream: Stream, grid: Grid) -> tuple[float, float]:
        """The best interval found; the extremes are among the candidates."""
        histogram = filled(stream)
        used = histogram.counts > 0
        values, counts = histogram.centers[used], histogram.counts[used]
        linear = torch.linspace(1 / self.steps, 1, self.steps, dtype=torch.float64)
        share = torch.cat([linear, 2.0 ** -torch.linspace(0, 12, self.steps, dtype=torch.float64)]).sort().values
        bottom, top = min(histogram.low, 0.0), max(histogram.high, 0.0)
        one_end = grid.symmetric or bottom == 0 or top == 0
        coarse = share[:: max(self.steps // 12, 1)].flip(0)
        pairs = (bottom * share, top * share) if one_end else torch.cartesian_prod(bottom * coarse, top * coarse).unbind(1)
        best, low, high = _least(values, counts, grid, *pairs)
        while True:
            if one_end:
                near = 0.5 + linear
                error, new_low, new_high = _least(values, counts, grid, (low * near).clamp(min=bottom), (high * near).clamp(max=top))
            else:
                ends = torch.cat([bottom * share, (low * (0.5 + linear)).clamp(min=bottom)]).sort(descending=True).values
                _, new_low, _ = _least(values, counts, grid, ends, torch.full_like(ends, high))
                ends = torch.cat([top * share, (high * (0.5 + linear)).clamp(max=top)]).sort().values
                error, new_low, new_high = _least(values, counts, grid, torch.full_like(ends, new_low), ends)
            if not error < best * (1 - 1e-6):
                return low, high
            best, low, high = error, new_low, new_high

    def limits(self, rows: Tensor, grid: Integer) -> Tensor:
        """For a symmetric grid the limit of every row of a tensor at hand, all rows at once: `(rows,)`, float32."""
        reach = rows.abs().amax(1)
        linear = torch.linspace(1 / self.steps, 1, self.steps)
        shares = torch.cat([linear, 2.0 ** -torch.linspace(0, 12, self.steps)]).sort(descending=True).values
        start = reach
        for tried in (shares, 1 + (linear - 0.5) / 8):
            least, limit = torch.full_like(reach, torch.inf), start
            for share in tried.tolist():
                scale = (start * share / grid.qmax).clamp(min=SMALLEST_SCALE)[:, None]
                coded = (rows / scale).round_().clamp_(grid.qmin, grid.qmax).mul_(scale)
                error = coded.sub_(rows).square_().sum(1)
                # Of equal errors the widest interval: it clips least of what was not seen.
                limit, least = torch.where(error < least, start * share, limit), torch.minimum(error, least)
            start = torch.minimum(limit, reach)
        return start


def _least(values: Tensor, counts: Tensor, grid: Grid, low: Tensor, high: Tensor) -> tuple[float, float, float]:
    """Squared error of the best candidate and its ends, for candidate intervals `low`, `high` of shape `(candidates,)`."""
    parts = []
    for ends in zip(torch.split(low, _TOGETHER), torch.split(high, _TOGETHER), strict=True):
        coded = grid.nearest(values, Parameters(*(parameter[:, None] for parameter in grid.parameters(*ends))))
        parts.append(coded.sub_(values).square_() @ counts)
    errors = torch.cat(parts)
    # Of equal errors the widest interval: it clips least of what was not seen.
    at = int((errors <= errors.min() * (1 + 1e-12)).nonzero()[-1])
    return float(errors[at]), float(low[at]), float(high[at])


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """The interval whose quantized distribution loses least information: `argmin_t KL(P_t || Q_t)`.

    `P_t` is the histogram clipped to `[-t, t]`, the tails added to its end bins; `Q_t` the same without the tails,
    merged into as many levels as the grid has and spread back over the occupied bins. Departs from the paper in
    `steps` thresholds instead of every bin; the histogram keeps its sign, so that one-sided tensors use all levels; and
    the bin of zero counts like its larger neighbour, since zero is exact on every grid and the spike that a ReLU leaves
    there would otherwise decide everything. (migacz2017tensorrt)
    """

    steps: int = 128
    bins: int = 2048

    def stream(self) -> Stream:
        """A histogram."""
        return Histogram(self.bins)

    def __call__(self, stream: Stream, grid: Grid) -> tuple[float, float]:
        """The best interval; the extremes are among the candidates."""
        histogram = filled(stream)
        reach = max(abs(histogram.low), abs(histogram.high))
        levels = grid.steps + 1
        best, answer = float("inf"), (histogram.low, histogram.high)
        counts = histogram.counts.clone()
        if 0 <= -histogram.start < histogram.bins:
            counts[-histogram.start] = 0
            counts[-histogram.start] = counts[max(-histogram.start - 1, 0): -histogram.start + 2].max()
        for step in range(self.steps, 0, -1):
            limit = reach * step / self.steps
            low, high = max(histogram.low, -limit), min(histogram.high, limit)
            if low > high or (high - low) / histogram.width < levels:
                break
            loss = _divergence(histogram.centers, counts, low, high, levels)
            if loss < best:
                best, answer = loss, (low, high)
        return answer


def _divergence(centers: Tensor, counts: Tensor, low: float, high: float, levels: int) -> float:
    """`KL(P || Q)` in nats for the histogram clipped to `[low, high]` and merged into `levels` levels."""
    inside = (centers >= low) & (centers <= high)
    q_counts, middle = counts[inside], centers[inside]
    if not len(middle):
        return float("inf")
    p = q_counts.clone()
    p[0] += counts[centers < low].sum()
    p[-1] += counts[centers > high].sum()
    level = ((middle - low) / max(high - low, 1e-300) * levels).long().clamp_(0, levels - 1)
    occupied = (q_counts > 0).double()
    mass = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, q_counts)
    size = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, occupied)
    q = torch.where(occupied > 0, (mass / size.clamp(min=1))[level], 0.0)
    p, q = p / p.sum(), q / q.sum().clamp(min=1e-300)
    some = p > 0
    # A bin that holds only clipped tails has no mass in Q: the tiny floor makes that costly, not infinite.
    return float((p[some] * (p[some] / q[some].clamp(min=1e-12)).log()).sum())
