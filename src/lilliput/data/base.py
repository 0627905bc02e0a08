"""Data and Split: what every step may ask of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from lilliput.core.errors import DataError


class Split(Protocol):
    """Samples that can be walked through in batches, as often as needed."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def batches(
        self, size: int, *, seed: int | None = None, epoch: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(inputs, targets)` batches of `size`, the last one with what is left.

        Without a seed: in order, every sample once, not augmented; the ranks partition the samples. With one:
        shuffled and augmented, a pure function of `(seed, epoch)` whatever `size` and `world`; every rank
        gets the same number of batches of the same sizes (the first samples of the order fill up the rest).
        """
        ...

    def head(self, count: int) -> Split:
        """A smaller copy: `count` samples from all over the split, always the same ones, in order."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the samples and targets, in hex."""
        ...


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set: `train` to learn from, `val` to choose by, `test` to look at once.

    `num_classes` is 0 where targets are not classes (regression, reconstruction); `classes` are their names
    where they have some. Raises `DataError` when a split is empty.
    """

    name: str
    train: Split
    val: Split
    test: Split
    num_classes: int
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            if len(getattr(self, name)) == 0:
                raise DataError(f"the {name} split of {self.name!r} is empty; every split needs at least one sample")

    def example(self, n: int = 2) -> Tensor:
        """The first `n` validation inputs, `(n, *input_shape)`: real samples to trace and check with."""
        return next(self.val.batches(n))[0]

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch: `(channels, height, width)` for images."""
        return tuple(self.example(1).shape[1:])

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex over the content of the three splits; computed at first use."""
        total = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            total.update(bytes.fromhex(split.digest))
        return total.hexdigest()

    def head(self, n: int) -> Data:
        """A copy with at most `n` samples in each split, for quick runs."""
        return replace(self, train=self.train.head(n), val=self.val.head(n), test=self.test.head(n))


def check(data: Data, *, channels: int | None = None, outputs: int | None = None) -> None:
    """Raise `DataError` unless `data` suits a model that takes `channels` channels and returns `outputs` scores.

    `channels` is the size of the first dimension of one input. `outputs` may exceed the number of classes.
    """
    shape = data.input_shape
    if channels is not None and shape[0] != channels:
        hint = ""
        if len(shape) == 3 and shape[-1] == channels:
            hint = f"; its last dimension is {channels}, so the channels may be there: x.transpose(0, 3, 1, 2) puts them first"
        raise DataError(f"the model takes {channels} channels, but inputs of {data.name!r} have shape {shape}, that is "
                        f"{shape[0]}{hint}; or create the model with in_chans={shape[0]}")
    if outputs is not None and data.num_classes > outputs:
        raise DataError(f"{data.name!r} has labels 0 to {data.num_classes - 1}, but the model returns {outputs} scores; "
                        f"create the model with num_classes={data.num_classes}")
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        inputs, _ = next(split.batches(1))
        if tuple(inputs.shape[1:]) != shape:
            raise DataError(f"{name} inputs of {data.name!r} have shape {tuple(inputs.shape[1:])}, val inputs {shape}")
        if inputs.is_floating_point() and not torch.isfinite(inputs).all():
            raise DataError(f"{name} inputs of {data.name!r} hold NaN or infinity; repair or remove these samples")
