"""Learning-rate schedules: pure functions from progress `t` in [0, 1] to a factor on the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from lilliput.core.errors import RecipeError


class Schedule(Protocol):
    """`t` in [0, 1], the share of training done, to the factor on the optimizer's learning rate."""

    def __call__(self, t: float, /) -> float:
        """The factor at `t`."""


def _cosine(t: float, start: float, end: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise RecipeError(f"{name} is a share of training in [0, 1), not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Factor 1 throughout.

    >>> Constant()(0.3)
    1.0
    """

    def __call__(self, _t: float, /) -> float:
        """Always 1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up over the share `warmup`, then half a cosine from 1 down to `floor`.

    >>> [round(Cosine(warmup=0.2)(t), 3) for t in (0.0, 0.1, 0.2, 0.6, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    warmup: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_share("warmup", self.warmup)

    def __call__(self, t: float, /) -> float:
        """The factor at `t`."""
        if t < self.warmup:
            return t / self.warmup
        return _cosine((t - self.warmup) / (1 - self.warmup), 1.0, self.floor)


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Cosine from `start` up to 1 at the share `peak`, then down to `end`; momentum stays as it is.

    >>> [round(OneCycle(peak=0.25, start=0.1)(t), 3) for t in (0.0, 0.25, 1.0)]
    [0.1, 1.0, 0.0]
    """

    peak: float = 0.3
    start: float = 0.04
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_share("peak", self.peak)

    def __call__(self, t: float, /) -> float:
        """The factor at `t`."""
        if t < self.peak:
            return _cosine(t / self.peak, self.start, 1.0)
        return _cosine((t - self.peak) / (1 - self.peak), 1.0, self.end)
