"""Drawing: the samples to calibrate or measure on, from all over a split and always the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from lilliput.core.errors import DataError, PreconditionError

_BATCH = 32
# Bytes that what is kept of all samples may take: fewer samples are used where it would take more.
ROOM = 2**30


class Drawable(Protocol):
    """What is asked of a split."""

    def __len__(self) -> int: ...

    def batches(self, size: int, /) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in order, not augmented."""
        ...

    def head(self, count: int, /) -> Drawable:
        """At most `count` samples from all over the split, always the same."""
        ...


def check_samples(samples: object) -> None:
    """Raise `PreconditionError` for what is no positive number of samples."""
    if not isinstance(samples, int) or samples < 1:
        raise PreconditionError(f"calibration needs samples, a whole number of them such as 512; samples={samples!r} asks for none")


def labelled_batches(split: Drawable, samples: int, size: int = _BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `samples` inputs and targets from all over a split (of all of it where there are fewer), not augmented.

    The first ones would be of one class where the split is sorted by class, as image folders are. Raises `DataError` where there
    are none, or where inputs are not finite.
    """
    check_samples(samples)
    part = split.head(samples) if samples < len(split) else split
    seen = 0
    for inputs, targets in part.batches(size):
        if inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
            bad = int((~torch.isfinite(inputs.flatten(1)).all(1)).nonzero()[0])
            raise DataError(f"sample {seen + bad} of those drawn for calibration holds NaN or infinity: clean the data first")
        seen += len(inputs)
        if len(inputs):
            yield inputs, targets
    if not seen:
        raise DataError("the split is empty and has no samples to calibrate or measure on: pass data with some")


def sample_batches(split: Drawable, samples: int) -> Iterator[Tensor]:
    """The inputs of `labelled_batches`."""
    for inputs, _ in labelled_batches(split, samples):
        yield inputs


def batches_within(split: Drawable, samples: int, each: float, *, room: int = ROOM) -> tuple[list[Tensor], list[str]]:
    """The inputs of up to `samples` samples, as many as there is room for at `each` bytes to one, and notes.

    Raises `DataError` without samples.
    """
    fitting = max(int(room / each), 1)
    fits = f"{fitting} samples of {samples} were used, so that what is kept of them fits {room / 2**20:.0f} MiB"
    batches = [inputs for inputs in sample_batches(split, min(samples, fitting)) if len(inputs)]
    if not batches:
        raise DataError("the training split has no samples to calibrate on: pass data with some")
    return batches, [fits] if fitting < samples else []
