"""Normalisation and augmentation of whole batches, fast enough to need no worker process.

The arithmetic is NumPy's, on one thread: batches are too small to gain from several, and where other
processes keep the cores busy, waiting for a second thread at every operation costs fifty times the work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lilliput.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """Shift and scale each channel: `(x - mean) / std`, on bytes `(x / 255 - mean) / std`.

    `mean` and `std` have one value, or one for each channel. Integer inputs other than bytes are indices and
    stay as they are.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise DataError(f"mean and std need the same length and std must be positive, not {self.mean} and {self.std}")

    def __call__(self, batch: Tensor) -> Tensor:
        """Floats of the same shape; the batch itself is left alone."""
        if batch.dtype != torch.uint8 and not batch.is_floating_point():
            return batch
        channels = len(self.mean)
        if channels not in (1, batch.shape[1]):
            raise DataError(f"normalisation is for {channels} channels, the batch has {batch.shape[1]}")
        span = 255.0 if batch.dtype == torch.uint8 else 1.0
        if span == 1.0 and set(self.mean) == {0.0} and set(self.std) == {1.0}:
            return batch
        shape = (channels, *[1] * (batch.ndim - 2))
        mean, std = (np.asarray(values, dtype=np.float32).reshape(shape) for values in (self.mean, self.std))
        values = batch.numpy().astype(np.float32)
        values *= 1 / (np.float32(span) * std)
        values -= mean / std
        return torch.from_numpy(values)


class Augmentation(Protocol):
    """Random changes to a batch, in two parts, so that they do not depend on how an epoch is batched."""

    def draw(self, generator: np.random.Generator, count: int) -> Tensor:
        """Draw the random choices for `count` samples, one row for each."""
        ...

    def __call__(self, batch: Tensor, draws: Tensor) -> Tensor:
        """Apply the choices of these samples; the shape stays."""
        ...


@dataclass(frozen=True)
class Keep:
    """No augmentation."""

    def draw(self, generator: np.random.Generator, count: int) -> Tensor:  # noqa: ARG002
        """Nothing to choose."""
        return torch.empty(count, 0, dtype=torch.int64)

    def __call__(self, batch: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG002
        """The batch as it is."""
        return batch


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """Random crop of the image padded with zeros by `padding` pixels, then a left-right flip for every other image.

    Takes `(N, C, H, W)` of any type. The usual augmentation for CIFAR [he2016resnet].
    """

    padding: int = 4
    flip: bool = True

    def draw(self, generator: np.random.Generator, count: int) -> Tensor:
        """Row and column offset, and whether to flip, for each sample: `(count, 3)`."""
        high = [2 * self.padding + 1, 2 * self.padding + 1, 2 if self.flip else 1]
        return torch.from_numpy(generator.integers(0, high, size=(count, 3)))

    def __call__(self, batch: Tensor, draws: Tensor) -> Tensor:
        """Crop and flip; raises `DataError` for anything but images."""
        if batch.ndim != 4:
            raise DataError(f"CropFlip takes images (N, C, H, W), not shape {tuple(batch.shape)}; use augment=Keep()")
        count, channels, height, width = batch.shape
        pad, (rows, columns, flips) = self.padding, draws.numpy().T
        padded = np.zeros((count, channels, height + 2 * pad, width + 2 * pad), dtype=batch.numpy().dtype)
        padded[:, :, pad : pad + height, pad : pad + width] = batch.numpy()
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        cropped = windows[np.arange(count), :, rows, columns]
        flipped = flips.astype(bool)
        cropped[flipped] = cropped[flipped][..., ::-1]
        return torch.from_numpy(cropped)


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """What is done to each batch: augmentation in training only, normalisation always, in this order."""

    normalize: Normalize = field(default_factory=Normalize)
    augment: Augmentation = field(default_factory=Keep)
