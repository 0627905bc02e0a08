"""A range from the mean magnitude, as learned steps start with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.quantize.grids import Grid, Integer
from lilliput.quantize.streams import Extremes, Stream


class Magnitudes(Extremes):
    """Running extremes, and the sum of magnitudes."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def update(self, x: Tensor) -> None:
        """Take in all values of `x`."""
        super().update(x)
        self.total += float(x.detach().abs().double().sum())


@dataclass(frozen=True, kw_only=True)
class MeanMagnitude:
    """The range whose step is `2 E|x| / sqrt(qmax)`, within the extremes: `+-2 E|x| sqrt(qmax)`. (esser2020lsq)

    With 8 bits that is wider than the extremes as a rule, so that these are the range.
    """

    def stream(self) -> Stream:
        """Extremes and the sum of magnitudes."""
        return Magnitudes()

    def __call__(self, stream: Stream, grid: Grid) -> tuple[float, float]:
        """The interval, cut to the extremes."""
        if not isinstance(stream, Magnitudes) or not stream.count:
            raise PreconditionError("this range needs the mean magnitude of at least one value: calibrate with the stream that it asks for")
        top = grid.qmax if isinstance(grid, Integer) else 1
        reach = 2 * stream.total / stream.count * top**0.5
        return max(stream.low, -reach), min(stream.high, reach)
