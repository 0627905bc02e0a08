"""A small classification problem that follows the data contract, and networks for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.data.order import spread


@dataclass(frozen=True)
class ToySplit:
    inputs: Tensor
    targets: Tensor
    augment: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, size: int, *, seed: int | None = None, epoch: int = 0, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for part in order.split(size * world):
            mine = part[rank::world]
            yield self.inputs[mine], self.targets[mine]

    def head(self, count: int) -> ToySplit:
        part = torch.from_numpy(spread(len(self), count))
        return ToySplit(self.inputs[part], self.targets[part], self.augment)


@dataclass(frozen=True)
class ToyData:
    train: ToySplit
    val: ToySplit
    test: ToySplit
    num_classes: int
    name: str = "toy"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.train.inputs.numpy().tobytes()).hexdigest()

    def example(self, n: int = 2) -> Tensor:
        return self.val.inputs[:n]


def toy(n: int = 96, classes: int = 3, size: int = 8, seed: int = 0) -> ToyData:
    """One bright blob per class, in noise."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(classes, 1, size, size, generator=generator)

    def split(count: int) -> ToySplit:
        targets = torch.randint(classes, (count,), generator=generator)
        return ToySplit(places[targets] + 0.8 * torch.randn(count, 1, size, size, generator=generator), targets)

    return ToyData(split(n), split(n // 2), split(n // 2), classes)


def convnet(classes: int = 3, width: int = 6, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
                         nn.Dropout(0.2), nn.Flatten(), nn.Linear(16 * width, classes))


def plain(classes: int = 3, seed: int = 0) -> nn.Sequential:
    """Without batch norm and dropout, so that the split of a batch over processes changes nothing."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, classes))


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
