"""Streams: what calibration remembers of a tensor, in memory that does not grow with the samples seen."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from lilliput.core.errors import DataError


class Stream(Protocol):
    """Takes values of any shape, batch by batch; `low` and `high` are the extremes so far."""

    low: float
    high: float
    count: int

    def update(self, x: Tensor) -> None:
        """Take in all values of `x`; raises `DataError` if one is NaN or infinite."""


def _extremes(x: Tensor) -> tuple[float, float]:
    low, high = (float(v) for v in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError("values are NaN or infinite")
    return low, high


class Extremes:
    """Running minimum and maximum."""

    def __init__(self) -> None:
        self.low, self.high, self.count = math.inf, -math.inf, 0

    def update(self, x: Tensor) -> None:
        """Widen the extremes to those of `x`."""
        if x.numel():
            low, high = _extremes(x)
            self.low, self.high, self.count = min(self.low, low), max(self.high, high), self.count + x.numel()


class Histogram:
    """Counts in a fixed number of bins whose width is a power of two and doubles when the range grows.

    Bin `i` holds values in `[(start + i) * width, (start + i + 1) * width)`. Doubling merges neighbours, so no
    count is ever split between bins and the result does not depend on the order of the batches.
    """

    def __init__(self, bins: int = 4096) -> None:
        self.bins = bins
        self.low, self.high, self.count = math.inf, -math.inf, 0
        self.width, self.start = 0.0, 0
        self.counts = torch.zeros(bins, dtype=torch.float64)

    def update(self, x: Tensor) -> None:
        """Widen the bins if need be, then count the values of `x`."""
        if not x.numel():
            return
        low, high = _extremes(x)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._cover()
        x = x.detach().float().flatten()
        # Whole passes over slices that fit the cache; the subtraction of an integer keeps bin edges exact.
        for part in torch.split(x, 1 << 20):
            index = (part / self.width).floor_().sub_(float(self.start)).clamp_(0, self.bins - 1)
            self.counts += torch.histc(index, self.bins, -0.5, self.bins - 0.5).double()
        self.count += x.numel()

    def _cover(self) -> None:
        if self.width == 0.0:
            largest = max(abs(self.low), abs(self.high))
            # Indices below 2**24 stay exact in float32 even when the values crowd far from zero.
            finest = max((self.high - self.low) / self.bins, largest * 2.0**-22, 2.0**-120)
            self.width = 2.0 ** math.ceil(math.log2(finest))
            self.start = math.floor(self.low / self.width)
        while True:
            first, last = math.floor(self.low / self.width), math.floor(self.high / self.width)
            if last - first < self.bins:
                break
            self._double()
        self._shift(first, last)

    def _double(self) -> None:
        if self.start % 2:
            self._place(self.start - 1, grow=1)
        pairs = self.counts.reshape(-1, 2).sum(1)
        self.counts = torch.cat([pairs, torch.zeros(self.bins - len(pairs), dtype=torch.float64)])
        self.width, self.start = self.width * 2, self.start // 2

    def _place(self, start: int, grow: int) -> None:
        self.counts = torch.cat([torch.zeros(self.start - start, dtype=torch.float64), self.counts,
                                 torch.zeros(grow, dtype=torch.float64)])
        self.start = start

    def _shift(self, first: int, last: int) -> None:
        """Move the window so that it holds bins `first` to `last`; occupied bins lie inside that span."""
        if first >= self.start and last < self.start + self.bins and len(self.counts) == self.bins:
            return
        moved = torch.zeros(self.bins, dtype=torch.float64)
        kept = self.counts[max(first - self.start, 0):]
        offset = max(self.start - first, 0)
        size = min(len(kept), self.bins - offset)
        moved[offset: offset + size] = kept[:size]
        self.counts, self.start = moved, first

    @property
    def centers(self) -> Tensor:
        """Middle of each bin, `(bins,)`, float64, moved inside the observed extremes."""
        middle = (torch.arange(self.bins, dtype=torch.float64) + self.start + 0.5) * self.width
        return middle.clamp(self.low, self.high)
