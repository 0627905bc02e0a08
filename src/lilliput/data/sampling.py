"""Sampling: images out of noise by any denoiser, and what a denoiser sees on the way as data to calibrate on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.core.errors import DataError, PreconditionError
from lilliput.data.base import Data
from lilliput.data.diffusion import Diffusion
from lilliput.data.order import Index
from lilliput.data.samples import Memory, Samples

Denoiser = Callable[[Tensor], Tensor]
"""`Diffusion.inputs` to the noise in them: a network, quantized or not."""


class Moment(NamedTuple):
    """One step: time, what the network saw, the noise it found, and the images after the step."""

    time: int
    inputs: Tensor
    noise: Tensor
    after: Tensor


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """From noise to images in `steps` steps, evenly spaced over those of `process` [song2021ddim].

    `x_s = sqrt(a_s) y + sqrt(1 - a_s - v^2) e + v z` with `e` the noise found in `x_t`, `y = (x_t - sqrt(1 - a_t) e) / sqrt(a_t)`
    the image this leaves, `z` new noise, and `v = eta sqrt((1 - a_s) / (1 - a_t) (1 - a_t / a_s))`. `eta` 0 is DDIM, which is
    deterministic; `eta` 1 with all steps is the ancestral sampler of DDPM with the smaller of its variances [ho2020ddpm].
    `y` is clipped to -1..1, and `e` is then that which leads there.
    """

    process: Diffusion
    steps: int = 50
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= self.process.steps or not 0 <= self.eta <= 1:
            raise DataError(f"sampling takes 1 to {self.process.steps} steps, those of the process, and an eta in 0 to 1, "
                            f"not {self.steps} and {self.eta}")

    def times(self) -> Index:
        """The time steps visited, from the last one down to 0, `(steps + 1,)`."""
        return np.linspace(self.process.steps, 0, self.steps + 1).round().astype(np.int64)

    def walk(self, model: Denoiser, shape: tuple[int, ...], *, seed: int = 0) -> Iterator[Moment]:
        """Yield every step for a batch of `shape` `(N, C, H, W)`; the last one's `after` are the images.

        Raises `PreconditionError` for a network in training mode.
        """
        if isinstance(model, nn.Module) and model.training:
            raise PreconditionError("the network is in training mode: call .eval() on it before sampling")
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(shape, generator=generator)
        times = self.times().tolist()
        for t, s in pairwise(times):
            inputs = self.process.inputs(x, torch.full((shape[0],), t))
            with torch.no_grad():
                found = model(inputs)
            x = self._step(x, found, (t, s), generator)
            yield Moment(t, inputs, found, x)

    def __call__(self, model: Denoiser, shape: tuple[int, ...], *, seed: int = 0) -> Tensor:
        """Images `(N, C, H, W)` in -1..1."""
        for moment in self.walk(model, shape, seed=seed):
            x = moment.after
        return x

    def _step(self, x: Tensor, noise: Tensor, times: tuple[int, int], generator: torch.Generator) -> Tensor:
        a, b = (float(self.process.signal[t]) for t in times)
        image = ((x - (1 - a) ** 0.5 * noise) / a**0.5).clamp(-1, 1)
        noise = (x - a**0.5 * image) / (1 - a) ** 0.5
        spread = self.eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        x = b**0.5 * image + max(1 - b - spread**2, 0.0) ** 0.5 * noise
        return x + spread * torch.randn(x.shape, generator=generator) if spread else x


class Times(Protocol):
    """A distribution over time steps."""

    def __call__(self, count: int, steps: int, generator: np.random.Generator, /) -> Index:
        """`count` time steps from 1 to `steps`."""


@dataclass(frozen=True, kw_only=True)
class UniformTimes:
    """Every time step equally likely."""

    def __call__(self, count: int, steps: int, generator: np.random.Generator, /) -> Index:
        """`count` time steps from 1 to `steps`."""
        return generator.integers(1, steps + 1, count)


@dataclass(frozen=True, kw_only=True)
class NormalTimes:
    """Time steps from a normal distribution cut off at both ends, mean and deviation in shares of all steps [shang2023ptq4dm].

    A mean below one half favours what is closer to an image. The defaults are those of the authors' code; the paper writes
    `N(mean, T/2)` and does not say whether that is a deviation or a variance. With `std` 0 all come from one time step.
    """

    mean: float = 0.4
    std: float = 0.4

    def __call__(self, count: int, steps: int, generator: np.random.Generator, /) -> Index:
        """`count` time steps from 1 to `steps`."""
        drawn = np.floor(generator.normal(self.mean, self.std, count) * steps).astype(np.int64)
        return 1 + drawn.clip(0, steps - 1)


def trajectory(model: Denoiser, data: Data, sampler: Sampler, *, times: Times = NormalTimes(), samples: int = 512,
               seed: int = 0) -> Data:
    """`data` whose training split is what `model` sees as it samples: an input of each of `samples` walks, timed by `times`.

    Targets are the noise that `model` finds, so that a quantized network can be compared. Of the steps that the sampler takes,
    the nearest to each time drawn counts. `data` is that of `noisy`; its validation and test splits stay. [shang2023ptq4dm]
    """
    if samples < 1:
        raise DataError(f"calibration needs samples; samples={samples} asks for none")
    channels, height, width = data.input_shape
    shape = (samples, channels - sampler.process.features, height, width)
    visited = sampler.times()[:-1]
    drawn = times(samples, sampler.process.steps, np.random.default_rng(seed))
    chosen = torch.from_numpy(visited[np.abs(visited[None] - drawn[:, None]).argmin(1)])
    inputs, noise = torch.empty(samples, channels, height, width), torch.empty(shape)
    for moment in sampler.walk(model, shape, seed=seed):
        mine = chosen == moment.time
        inputs[mine], noise[mine] = moment.inputs[mine], moment.noise[mine]
    return replace(data, name=f"{data.name}_trajectory", train=Samples(Memory(inputs), noise))
