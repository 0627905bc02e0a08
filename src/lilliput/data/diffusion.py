"""Diffusion as data: images with noise on them, and the noise to be found in them [ho2020ddpm]."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lilliput.core.errors import DataError
from lilliput.data.base import Data, Split
from lilliput.data.order import Order, spread
from lilliput.data.samples import tensor_content

_LARGEST = 0.999  # share of the signal's variance that one step may take, so that the last one leaves some


class Schedule(Protocol):
    """How the signal fades: `steps` to `a_1 ... a_T`, the share of the variance that is still the image's, falling from 1."""

    def __call__(self, steps: int, /) -> Tensor:
        """Float64, `(steps,)`."""


@dataclass(frozen=True, kw_only=True)
class CosineNoise:
    """`a_t = f(t) / f(0)` with `f(t) = cos^2(pi/2 (t/T + s) / (1 + s))` [nichol2021improved]; no step takes more than 99.9%."""

    offset: float = 0.008

    def __call__(self, steps: int, /) -> Tensor:
        """Float64, `(steps,)`."""
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        f = ((t + self.offset) / (1 + self.offset) * math.pi / 2).cos().square()
        kept: Tensor = (f[1:] / f[:-1]).clamp(min=1 - _LARGEST)
        return kept.cumprod(0)


@dataclass(frozen=True, kw_only=True)
class LinearNoise:
    """`a_t = prod_(i <= t) (1 - b_i)`, the `b_i` evenly spaced from `first` to `last` [ho2020ddpm].

    The two are meant for 1,000 steps, as in the paper; with fewer each step takes as much more.
    """

    first: float = 1e-4
    last: float = 0.02

    def __call__(self, steps: int, /) -> Tensor:
        """Float64, `(steps,)`."""
        taken = torch.linspace(self.first, self.last, steps, dtype=torch.float64) * (1000 / steps)
        return (1 - taken.clamp(max=_LARGEST)).cumprod(0)


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """From an image to noise in `steps` steps: `x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e`, `e` normal, `t` from 1 to `steps`.

    A network sees `x_t` and, in `features` further channels, `cos(pi 2^j t / steps)` and `sin(pi 2^j t / steps)`, `j` from 0.
    The paper embeds the time step inside the network; as channels it needs no second input.
    """

    steps: int = 100
    schedule: Schedule = field(default_factory=CosineNoise)
    features: int = 8

    def __post_init__(self) -> None:
        if self.steps < 2 or self.features < 2 or self.features % 2:
            raise DataError("a diffusion needs two steps or more and an even number of features, "
                            f"not {self.steps} and {self.features}")

    @cached_property
    def signal(self) -> Tensor:
        """`a_0 = 1, a_1, ..., a_T`, float64."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.schedule(self.steps)])

    def noised(self, images: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """`x_t` of images `(N, C, H, W)` at `times` `(N,)`."""
        a = self.signal[times].reshape(-1, 1, 1, 1)
        return (a.sqrt() * images + (1 - a).sqrt() * noise).to(images.dtype)

    def inputs(self, x: Tensor, times: Tensor) -> Tensor:
        """What the network sees: `(N, C, H, W)` and `(N,)` to `(N, C + features, H, W)`."""
        octaves = 2.0 ** torch.arange(self.features // 2, dtype=torch.float64)
        angles = math.pi / self.steps * times[:, None] * octaves
        channels = torch.cat([angles.cos(), angles.sin()], 1).to(x.dtype)
        return torch.cat([x, channels[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


@dataclass(frozen=True, eq=False)
class Noisy:
    """A split of images `(N, C, H, W)`, each of them `repeats` times an epoch at a time step and with noise of its own.

    Inputs are those of `Diffusion.inputs`, targets the noise. What is drawn is a function of seed and epoch; without a seed
    it is always the same.
    """

    images: Tensor = field(repr=False)
    process: Diffusion
    repeats: int = 1

    def __len__(self) -> int:
        return len(self.images) * self.repeats

    def batches(
        self, size: int, *, seed: int | None = None, epoch: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(inputs, noise)`; see `Split.batches`."""
        order = Order(seed=seed, epoch=epoch, rank=rank, world=world)
        draws = order.generator(1)
        times = draws.integers(1, self.process.steps + 1, len(self))
        noise = draws.standard_normal((len(self), *self.images.shape[1:]), dtype=np.float32)
        for index in order.batches(len(self), size):
            t, e = torch.from_numpy(times[index]), torch.from_numpy(noise[index])
            x = self.process.noised(self.images[torch.from_numpy(index % len(self.images))], t, e)
            yield self.process.inputs(x, t), e

    def head(self, count: int) -> Noisy:
        """At most `count` of the images, once each."""
        return Noisy(self.images[torch.from_numpy(spread(len(self.images), count))], self.process)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the images and what is done to them, in hex."""
        total = hashlib.sha256(f"{self.process!r} {self.repeats}".encode())
        for part in tensor_content(self.images):
            total.update(part)
        return total.hexdigest()


def noisy(data: Data, process: Diffusion, *, repeats: int = 1) -> Data:
    """Data to train a denoiser on: the images of `data`, not augmented, scaled to -1..1, with noise.

    The least and the largest value of the training images become -1 and 1. `repeats` makes an epoch longer: it is how often each
    training image is in it. Raises `DataError` for anything but images.
    """
    if len(data.input_shape) != 3 or not data.example().is_floating_point():
        raise DataError(f"inputs of {data.name!r} have shape {data.input_shape}; "
                        "needed are images (channels, height, width) of floats or bytes")
    if repeats < 1:
        raise DataError(f"repeats counts how often an image is in an epoch, from 1, not {repeats}")
    train, val, test = (_images(split) for split in (data.train, data.val, data.test))
    low, high = train.aminmax()
    if low == high:
        raise DataError(f"all training images of {data.name!r} are the same constant")
    parts = [2 * (images - low) / (high - low) - 1 for images in (train, val, test)]
    return Data(name=f"noisy_{data.name}", train=Noisy(parts[0], process, repeats), val=Noisy(parts[1], process),
                test=Noisy(parts[2], process), num_classes=0)


def _images(split: Split) -> Tensor:
    return torch.cat([images for images, _ in split.batches(1024)])
