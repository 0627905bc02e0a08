"""The settings of one training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from lilliput.core.errors import RecipeError
from lilliput.train.optimizers import SGD, Optimizer
from lilliput.train.schedules import Cosine, Schedule

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How to train: `repr` is the record.

    `batch_size` counts samples per step over all processes. `schedule` is evaluated in the middle of every step.
    The mixed precisions keep weights in float32; "16-mixed" needs the loss scaling of `quantize.mixed_precision_training`.
    `devices` is the number of processes, on as many GPUs where the machine has them and on the CPU otherwise; more
    than one trains data-parallel, batch normalisation then using each process's share of the batch. A script that
    asks for several needs the usual `if __name__ == "__main__":`, and model, data and hooks that pickle.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: Optimizer = field(default_factory=SGD)
    schedule: Schedule = field(default_factory=Cosine)
    precision: Precision = "32-true"
    seed: int = 0
    devices: int = 1
    channels_last: bool = False

    def __post_init__(self) -> None:
        for name, low in (("epochs", 0), ("batch_size", 1), ("devices", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise RecipeError(f"Fit({name}=...) is a whole number from {low}, not {value!r}")
        if self.batch_size % self.devices:
            raise RecipeError(f"batch_size={self.batch_size} does not divide over devices={self.devices}: use a multiple")
        if self.precision not in get_args(Precision):
            raise RecipeError(f"precision is one of {', '.join(get_args(Precision))}, not {self.precision!r}")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where to save training: after every epoch, and every `every` steps where that is set."""

    path: Path
    every: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if self.every is not None and self.every < 1:
            raise RecipeError(f"Checkpoint(every=...) is a number of steps from 1, not {self.every!r}")
