"""The order of an epoch: a pure function of seed and epoch, cut into batches for each rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lilliput.core.errors import DataError

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which samples an epoch visits, and when.

    Without a seed, ranks partition the samples in order, so an evaluation counts each one once. With a seed,
    a permutation drawn from `(seed, epoch)` is dealt out to the ranks; when the samples do not divide by
    `world`, its first ones are dealt again, so that every rank takes the same number of steps.
    """

    seed: int | None = None
    epoch: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise DataError(f"rank must lie in 0 to world - 1, not rank={self.rank} of world={self.world}")
        if (self.seed is not None and self.seed < 0) or self.epoch < 0:
            raise DataError(f"seed and epoch must not be negative, not seed={self.seed}, epoch={self.epoch}")

    def generator(self, stream: int) -> np.random.Generator:
        """A generator fixed by seed and epoch; each `stream` is independent of the others."""
        return np.random.default_rng((self.seed or 0, self.epoch, stream))

    def batches(self, count: int, size: int) -> Iterator[Index]:
        """Yield the sample numbers of each batch, for `count` samples in batches of `size`."""
        if size < 1:
            raise DataError(f"a batch needs at least one sample, not {size}")
        if self.seed is None:
            mine = np.arange(self.rank, count, self.world, dtype=np.int64)
        else:
            order = self.generator(0).permutation(count)
            mine = np.resize(order, -(-count // self.world) * self.world)[self.rank :: self.world]
        for start in range(0, len(mine), size):
            yield mine[start : start + size]


def spread(count: int, limit: int) -> Index:
    """`limit` of `count` sample numbers, always the same, in ascending order; all of them if there are fewer."""
    if limit < 1:
        raise DataError(f"a split needs at least one sample, not {limit}")
    if limit >= count:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng(0).permutation(count)[:limit])
