"""Schedules: when sparsity comes, as pure functions of the share of training done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lilliput.core.errors import RecipeError

Curve = Callable[[float], float]


def linear(t: float) -> float:
    """`t`."""
    return t


def cubic(t: float) -> float:
    """`1 - (1 - t)^3` (Zhu 2018, `zhu2018prune`): fast while much is redundant, slow near the end."""
    return 1 - (1 - t) ** 3


def constant(t: float) -> float:  # noqa: ARG001
    """1: all at once, from the start."""
    return 1.0


def cosine_decay(t: float) -> float:
    """`(1 + cos(pi t)) / 2` (Evci 2020, `evci2020rigl`): from 1 down to 0."""
    return (1 + math.cos(math.pi * t)) / 2


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

    def position(self, t: float) -> float:
        """How far `t` lies between start and end, from 0 to 1."""
        return min(max((t - self.start) / (self.end - self.start), 0.0), 1.0)

    def fraction(self, t: float) -> float:
        """The share of the final sparsity at `t`."""
        return self.curve(round(self.position(t) * self.updates) / self.updates)


@dataclass(frozen=True)
class Soft:
    """Zero what is pruned after every epoch and let it grow back (He 2018, `he2018sfp`); it goes for good at the end."""


@dataclass(frozen=True, kw_only=True)
class Progressive:
    """In `rounds` before any training, the share that is kept falling by the same factor each time; nothing is trained in between.

    Statistics of each round are of the network as it is masked by then, scores are of all weights: what went may come back (FORCE of de Jorge
    2021, `dejorge2021force`).
    """

    rounds: int = 20

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise RecipeError(f"there is at least one round, not {self.rounds}")

    def amounts(self, last: float) -> list[float]:
        """The sparsity of every round but the last one, whose is `last`: `1 - (1 - last)^(t / rounds)`."""
        return [1 - (1 - last) ** (t / self.rounds) for t in range(1, self.rounds)]


Schedule = OneShot | Gradual | Soft | Progressive
