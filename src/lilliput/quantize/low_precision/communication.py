"""Data-parallel training whose processes send each other gradients of a few bits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lilliput.core.errors import RecipeError
from lilliput.core.report import Entry, Report
from lilliput.core.step import Result
from lilliput.graph.trace import trace
from lilliput.quantize.low_precision.gradient_levels import AdaptiveLevels, LevelRule
from lilliput.quantize.low_precision.gradient_model import Mixture
from lilliput.quantize.low_precision.step import fine_tuning
from lilliput.quantize.low_precision.wire import Codec, signed_levels
from lilliput.train import Fit, Hook, State, fit

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel


class SendLevels(Hook):
    """Exchanges gradients as codes and norms: every process sends its own to all others, and all take the mean.

    Replaces the all-reduce of data-parallel training for all gradients; needs `Fit(devices=2)` or more. Levels follow the
    gradients after steps 1, 2, 4, 8... and from then on every `every` steps, for which the processes exchange three
    numbers a bucket. `history` gains `bytes_sent`, what this process sent in the epoch (bytes handed to the process group,
    times the number of receivers), and `bytes_float32`, what a ring all-reduce of the same gradients would have sent,
    `2 (n - 1) / n * 4` bytes a value for `n` processes: a code a value to everyone saves less the more there are.
    (faghri2020alq)
    """

    def __init__(self, levels: LevelRule = AdaptiveLevels(), *, bucket: int = 8192, every: int = 1024) -> None:
        if every < 1:
            raise RecipeError(f"levels follow the gradients every so many steps, at least 1, not {every!r}")
        self.rule, self.codec, self.every = levels, Codec(bits=levels.bits, bucket=bucket), every
        self.magnitudes = levels.start()
        self.sent = self.plain = self.total_sent = self.total_plain = 0
        self.seen: list[Tensor] | None = None

    def __repr__(self) -> str:
        return f"SendLevels({self.rule}, bucket={self.codec.bucket}, every={self.every})"

    def start(self, state: State) -> None:
        """Raises `RecipeError` for a run of a single process, which sends nothing."""
        if state.fabric.world_size < 2:
            raise RecipeError("gradients are sent between processes, and this run has one: use Fit(devices=2) or more")

    def connect(self, state: State, network: DistributedDataParallel) -> None:  # noqa: ARG002
        """Take the place of the all-reduce."""
        # A lambda, since torch compares annotations by identity and finds strings here.
        network.register_comm_hook(None, lambda _, bucket: self._exchange(bucket))

    def batch(self, state: State, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Collect statistics in steps after which the levels move."""
        step = state.step + 1
        self.seen = [] if step % self.every == 0 or (step < self.every and step & (step - 1) == 0) else None
        return batch

    def gradients(self, state: State) -> None:  # noqa: ARG002
        """Move the levels, in all processes to the same place."""
        if self.seen:
            rows = torch.cat(self._gathered(torch.cat(self.seen)))
            usable = rows[torch.isfinite(rows).all(1) & (rows[:, 2] > 0)].cpu().double().numpy()
            if len(usable):  # gradients that overflowed say nothing of the next ones
                self.magnitudes = self.rule.follow(Mixture.of(usable, by_norm=self.rule.by_norm), self.magnitudes)
        self.seen = None

    def _exchange(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """The mean over processes of what they sent, for one of the blocks into which DDP puts the gradients."""
        gradient = bucket.buffer()
        if self.seen is not None:
            self.seen.append(self.codec.statistics(gradient))
        levels = signed_levels(self.magnitudes)
        payloads = self._gathered(self.codec.encode(gradient, levels))
        mean = torch.stack([self.codec.decode(payload, gradient.numel(), levels) for payload in payloads]).mean(0)
        world = len(payloads)
        self.plain += 2 * (world - 1) * gradient.numel() * 4 // world
        out: torch.futures.Future[Tensor] = torch.futures.Future()
        out.set_result(mean.to(gradient.dtype))
        return out

    def _gathered(self, mine: Tensor) -> list[Tensor]:
        """The tensors of all processes, and the bytes of this one counted."""
        world = dist.get_world_size()
        parts = [torch.empty_like(mine) for _ in range(world)]
        dist.all_gather(parts, mine.contiguous())
        self.sent += (world - 1) * mine.numel() * mine.element_size()
        return parts

    def epoch(self, state: State) -> None:
        """Report the bytes of the epoch."""
        state.history[-1] |= {"bytes_sent": float(self.sent), "bytes_float32": float(self.plain)}
        self.total_sent, self.total_plain = self.total_sent + self.sent, self.total_plain + self.plain
        self.sent = self.plain = 0

    def state_dict(self) -> dict[str, Any]:
        """Levels and counts."""
        counts = [self.sent, self.plain, self.total_sent, self.total_plain]
        return {"levels": torch.from_numpy(self.magnitudes.copy()), "counts": counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Levels and counts."""
        self.magnitudes = np.asarray(state["levels"].numpy(), dtype=np.float64)
        self.sent, self.plain, self.total_sent, self.total_plain = (int(count) for count in state["counts"])


@dataclass(frozen=True, kw_only=True)
class Communicated:
    """A Step: train in several processes that send gradients as `levels` and norms of `bucket` coordinates each.

    Departs from the paper in that codes have a fixed width, where it codes levels by their frequency, and in when levels
    move (see `SendLevels`). Weights, activations and gradients are float32 in every process. (faghri2020alq)

    Raises `RecipeError` for a `fit` of one process.
    """

    levels: LevelRule = field(default_factory=AdaptiveLevels)
    bucket: int = 8192
    fit: Fit = field(default_factory=lambda: replace(fine_tuning(), devices=2))
    hooks: tuple[Hook, ...] = ()
    checkpoint: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.fit.devices < 2:
            raise RecipeError("gradients are sent between processes: use Fit(devices=2) or more")

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The trained network, after the last epoch; `metrics` has the bytes that the first process sent, and would have sent."""
        started = time.perf_counter()
        sender = SendLevels(self.levels, bucket=self.bucket)
        trained = fit(trace(model, data.example()), data, self.fit, hooks=(sender, *self.hooks), checkpoint=self.checkpoint)
        metrics = {"bytes_sent": float(sender.total_sent), "bytes_float32": float(sender.total_plain)}
        levels = ", ".join(f"{level:.3g}" for level in sender.magnitudes)
        notes = (f"each of {self.fit.devices} processes sent {sender.total_sent} bytes of gradients; float32: {sender.total_plain}",
                 f"magnitudes of the levels at the end: {levels}")
        entry = Entry(method="quantize.alq_amq", recipe=repr(self), metrics=metrics, notes=notes,
                      seconds=time.perf_counter() - started)
        return Result(trained.model.eval(), Report((entry,)))
