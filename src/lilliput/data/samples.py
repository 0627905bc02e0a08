"""The one Split of the library: a source of samples, targets in memory, transforms."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from lilliput.data.order import Index, Order, spread
from lilliput.data.transforms import Transforms


class Source(Protocol):
    """Where untransformed inputs come from: memory, or files."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def stream(self, batches: Iterable[Index]) -> Iterator[Tensor]:
        """Yield the inputs of each batch of sample numbers, `(N, ...)`, in the order given."""
        ...

    def select(self, index: Index) -> Source:
        """A source of only these samples, in this order."""
        ...

    def content(self) -> Iterator[bytes | memoryview]:
        """Yield everything that determines the samples, for the digest."""
        ...


@dataclass(frozen=True, eq=False)
class Memory:
    """Samples in one tensor `(N, ...)`; images as bytes take a quarter of the room of floats."""

    x: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.x)

    def stream(self, batches: Iterable[Index]) -> Iterator[Tensor]:
        """Gather each batch."""
        x = self.x.numpy()
        return (torch.from_numpy(x[index]) for index in batches)

    def select(self, index: Index) -> Memory:
        """A copy of these samples."""
        return Memory(self.x[torch.from_numpy(index)])

    def content(self) -> Iterator[bytes | memoryview]:
        """Type, shape and values."""
        yield from tensor_content(self.x)


def tensor_content(tensor: Tensor) -> Iterator[bytes | memoryview]:
    """Type, shape and values of a tensor, as what a hash takes."""
    yield f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    values: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    yield memoryview(values)


@dataclass(frozen=True, eq=False)
class Samples:
    """A split: inputs from `source`, `targets` `(N, ...)` beside them, `transforms` on every batch."""

    source: Source
    targets: Tensor = field(repr=False)
    transforms: Transforms = field(default_factory=Transforms)

    def __len__(self) -> int:
        return len(self.source)

    def batches(
        self, size: int, *, seed: int | None = None, epoch: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(inputs, targets)`; see `Split.batches`."""
        order = Order(seed=seed, epoch=epoch, rank=rank, world=world)
        plan = list(order.batches(len(self), size))
        augment, normalize = self.transforms.augment, self.transforms.normalize
        draws = None if seed is None else augment.draw(order.generator(1), len(self)).numpy()
        targets = self.targets.numpy()
        for index, batch in zip(plan, self.source.stream(plan), strict=True):
            inputs = batch if draws is None else augment(batch, torch.from_numpy(draws[index]))
            yield normalize(inputs), torch.from_numpy(targets[index])

    def select(self, index: Index) -> Samples:
        """A split of only these samples, in this order."""
        return Samples(self.source.select(index), self.targets[torch.from_numpy(index)], self.transforms)

    def head(self, count: int) -> Samples:
        """A smaller copy; see `Split.head`."""
        return self.select(spread(len(self), count))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over inputs and targets, in hex; computed at first use."""
        total = hashlib.sha256()
        for part in self.source.content():
            total.update(part)
        for part in tensor_content(self.targets):
            total.update(part)
        return total.hexdigest()
