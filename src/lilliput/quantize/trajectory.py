"""Quantizing a denoiser on what it sees while it samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from lilliput.core.report import Report
from lilliput.core.step import Result
from lilliput.data import NormalTimes, Sampler, trajectory
from lilliput.data.sampling import Times
from lilliput.graph.trace import trace
from lilliput.quantize.posttraining import Static


@dataclass(frozen=True, kw_only=True)
class OnTrajectory:
    """A Step: `inner` calibrated on samples from walks of `sampler` with the float network, at times that `times` draws.

    What a denoiser reads changes with the time step, and noised images are not what it meets on the way, since its own errors are
    in that. (shang2023ptq4dm)
    """

    sampler: Sampler
    times: Times = field(default_factory=NormalTimes)
    inner: Static = field(default_factory=Static)
    seed: int = 0

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The simulated quantized denoiser; `data` is that of `data.noisy`."""
        traced = trace(model, data.example()).eval()
        walked = trajectory(traced, data, self.sampler, times=self.times, samples=self.inner.samples, seed=self.seed)
        result = self.inner(traced, walked)
        return Result(result.model, Report(tuple(replace(entry, recipe=repr(self)) for entry in result.report.entries)))
