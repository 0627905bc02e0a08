"""Schedules: when sparsity comes, as pure functions of the share of training done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Curve = Callable[[float], float]


def linear(t: float) -> float:
    """`t`."""
    return t


def cubic(t: float) -> float:
    """`1 - (1 - t)^3` (Zhu 2018, `zhu2018prune`): fast while much is redundant, slow near the end."""
    return 1 - (1 - t) ** 3


@dataclass(frozen=True)
class OneShot:
    """All at once, before recovery."""


@dataclass(frozen=True, kw_only=True)
class Gradual:
    """Masks tighten along `curve` while training, from `start` to `end` (shares of training), then stay fixed.

    Masks are recomputed `updates` times in between; masked weights are held at zero.
    """

    curve: Curve = cubic
    start: float = 0.0
    end: float = 0.7
    updates: int = 50

    def fraction(self, t: float) -> float:
        """The share of the final sparsity at `t`."""
        position = min(max((t - self.start) / (self.end - self.start), 0.0), 1.0)
        return self.curve(round(position * self.updates) / self.updates)


@dataclass(frozen=True)
class Soft:
    """Zero what is pruned after every epoch and let it grow back (He 2018, `he2018sfp`); it goes for good at the end."""


Schedule = OneShot | Gradual | Soft
