"""Patterns: which weights of a layer compete with each other to stay, rows of which are outputs and columns inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.core.errors import RecipeError

Flags = NDArray[np.bool_]
Pool = tuple[range, int]


class Pattern(Protocol):
    """How many weights go from where, in rows `(groups, outputs, inputs)`."""

    @property
    def share(self) -> float | None:
        """The share of a layer that goes, where the pattern itself says it."""
        ...

    @property
    def span(self) -> int | None:
        """How many inputs in a row are decided on at once, where that is fixed; a layer has a multiple of it."""
        ...

    def keep(self, scores: Tensor, drop: int) -> Tensor:
        """What stays where `drop` of these weights go, those of the lowest scores: ones and zeros like `scores`."""
        ...

    def pools(self, outputs: int, drop: int) -> list[Pool]:
        """Outputs that lose weights together, and how many."""
        ...

    def eligible(self, kept: Flags) -> Flags:
        """Which of an output's weights may go next, `kept` being there yet."""
        ...


def shares(total: int, parts: int) -> list[int]:
    """`total` in `parts` whole numbers as equal as can be.

    >>> shares(7, 3)
    [2, 2, 3]
    """
    return [total * (part + 1) // parts - total * part // parts for part in range(parts)]


@dataclass(frozen=True)
class Whole:
    """All weights of a layer compete."""

    share = None
    span = None

    def keep(self, scores: Tensor, drop: int) -> Tensor:
        """The highest scores of all."""
        kept = torch.ones(scores.numel(), dtype=torch.bool)
        kept[scores.flatten().argsort(stable=True)[:drop]] = False
        return kept.reshape(scores.shape)

    def pools(self, outputs: int, drop: int) -> list[Pool]:
        """One."""
        return [(range(outputs), drop)]

    def eligible(self, kept: Flags) -> Flags:
        """All."""
        return kept


@dataclass(frozen=True)
class Rows:
    """The weights of one output compete, and every output loses as many, but for one where the number does not divide."""

    share = None
    span = None

    def keep(self, scores: Tensor, drop: int) -> Tensor:
        """The highest scores of every row."""
        rows = scores.flatten(0, 1)
        ranks = rows.argsort(dim=1, stable=True).argsort(1)
        kept: Tensor = ranks >= torch.tensor(shares(drop, len(rows)))[:, None]
        return kept.reshape(scores.shape)

    def pools(self, outputs: int, drop: int) -> list[Pool]:
        """One to an output."""
        return [(range(i, i + 1), count) for i, count in enumerate(shares(drop, outputs))]

    def eligible(self, kept: Flags) -> Flags:
        """All."""
        return kept


@dataclass(frozen=True, kw_only=True)
class NM:
    """`n` of every `m` weights in a row stay, along the inputs (input channels at one position of a kernel)."""

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise RecipeError(f"of every {self.m} weights some stay and some go, not n={self.n}")

    @property
    def share(self) -> float:
        """`(m - n) / m`."""
        return (self.m - self.n) / self.m

    @property
    def span(self) -> int:
        """`m`."""
        return self.m

    def keep(self, scores: Tensor, drop: int) -> Tensor:  # noqa: ARG002
        """The `n` highest scores of every `m`."""
        parts = scores.reshape(*scores.shape[:-1], -1, self.m)
        kept: Tensor = parts.argsort(dim=-1, stable=True).argsort(-1) >= self.m - self.n
        return kept.flatten(-2)

    def pools(self, outputs: int, drop: int) -> list[Pool]:
        """One to an output."""
        return [(range(i, i + 1), count) for i, count in enumerate(shares(drop, outputs))]

    def eligible(self, kept: Flags) -> Flags:
        """Weights of parts that have more than `n` left."""
        left = kept.reshape(-1, self.m).sum(1) > self.n
        found: Flags = kept & np.repeat(left, self.m)
        return found
