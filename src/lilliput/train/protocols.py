"""What the loop asks of data: the contract of `lilliput.data`, stated structurally."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class Split(Protocol):
    """Samples of one purpose.

    Without a seed `batches` yields every sample in order, not augmented; with one it is shuffled and augmented, as
    a pure function of `(seed, epoch)`. `size` counts samples for one of `world` processes; all get equally many batches.
    """

    def __len__(self) -> int: ...

    def batches(self, size: int, *, seed: int | None = None, epoch: int = 0, rank: int = 0,
                world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of inputs (N, ...) and targets, N at most `size`."""
        ...

    def head(self, count: int) -> Split:
        """A copy of at most `count` samples from all over the split, always the same."""
        ...


class Dataset(Protocol):
    """Training and validation splits; `num_classes` is zero where targets are values, not classes."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def train(self) -> Split:
        """What the network learns from."""
        ...

    @property
    def val(self) -> Split:
        """What choices are made on."""
        ...

    @property
    def num_classes(self) -> int:
        """Classes; 0 for none."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        ...
