"""Whether a plan is sound: the program replayed over the bytes of the arena.

Nothing here comes from the planner: neither lifetimes nor lags. Every byte of the arena knows which buffer was last written over it, a step
finds the bytes of its inputs as they were written, and the order in which a kernel reads and writes is followed pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.operators import (
    Buffer,
    Convolution,
    InPlacePointwise,
    Normalisation,
    Operator,
    Softmax,
    Table,
    Window,
    sub_byte,
)
from lilliput.deploy.c.operators.elementwise import Binary
from lilliput.deploy.c.operators.pooling import Pool
from lilliput.deploy.c.plan.lifetimes import ALIGNMENT, Plan

Array = NDArray[Any]


def faults(plan: Plan, *, samples: Sequence[Sequence[Array]] = (), pixels_at_once: int = 2) -> list[str]:
    """What is wrong with a plan; nothing for a sound one.

    With samples of the inputs, in codes, every step is computed from the bytes in the arena too, and the outputs are compared with the
    program's.
    """
    replay = _Replay(plan, pixels_at_once)
    replay.run(None)
    for sample in samples:
        if not replay.found:
            replay.run(sample)
    return replay.found


@dataclass(eq=False)
class _Replay:
    plan: Plan
    at_once: int
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        program = self.plan.program
        scratch = [step.scratch for step in program.steps if step.scratch is not None]
        self.numbers = {buffer: i for i, buffer in enumerate([*program.buffers, *scratch])}
        self.names = [buffer.name for buffer in self.numbers]
        for buffer in self.numbers:
            start = self.plan.offsets.get(buffer, -1)
            if start < 0 or start + buffer.bytes > self.plan.arena or start % ALIGNMENT:
                self.found.append(f"{buffer.name} lies at {start}, outside of the arena or not aligned")

    def run(self, sample: Sequence[Array] | None) -> None:
        """All steps; with codes if there are any."""
        if self.found:
            return
        program = self.plan.program
        self.owner = np.full(self.plan.arena, -1, np.int64)
        self.codes = np.zeros(self.plan.arena, np.int8)
        for i, port in enumerate(program.inputs):
            self._write(port.buffer, None if sample is None else np.asarray(sample[i], np.int8))
        for step in program.steps:
            self._step(step, sample is not None)
        for port in program.outputs:
            self._owned(port.buffer, "the caller")
        if sample is not None:
            for port, want in zip(program.outputs, program(*sample), strict=True):
                if (port.buffer.unpack(self.codes[self._place(port.buffer)]) != want).any():
                    self.found.append(f"output {port.name} differs from the program's")

    def _place(self, buffer: Buffer) -> slice:
        start = self.plan.offsets[buffer]
        return slice(start, start + buffer.bytes)

    def _write(self, buffer: Buffer, codes: Array | None) -> None:
        self.owner[self._place(buffer)] = self.numbers[buffer]
        if codes is not None:
            self.codes[self._place(buffer)] = buffer.pack(codes)

    def _owned(self, buffer: Buffer, reader: str) -> None:
        other = self.owner[self._place(buffer)]
        if (other != self.numbers[buffer]).any():
            over = int(other[other != self.numbers[buffer]][0])
            self.found.append(f"{reader} reads {buffer.name}, overwritten by {self.names[over] if over >= 0 else 'nothing'}")

    def _step(self, step: Operator, compute: bool) -> None:
        program = self.plan.program
        inputs = [b for b in step.inputs if b not in program.constants]
        for buffer in inputs:
            self._owned(buffer, step.layer)
        if compute:
            arrays = [(program.constants[b] if b in program.constants else b.unpack(self.codes[self._place(b)])).astype(np.int64)
                      for b in step.inputs]
        if step.scratch is not None:
            if any(self._overlap(step.scratch, b) for b in (*inputs, step.output)):
                self.found.append(f"{step.layer}: scratch memory lies over an input or the output")
            self._write(step.scratch, None)
        for index, buffer in enumerate(step.inputs):
            if buffer in program.constants:
                continue
            if index == step.in_place:
                if self.plan.offsets[buffer] != self.plan.offsets[step.output]:
                    self.found.append(f"{step.layer}: works in place, but input and output are apart")
            elif self._overlap(buffer, step.output):
                self._order(step, index)
        self._write(step.output, step.run(arrays, program.rounding).astype(np.int8) if compute else None)

    def _overlap(self, a: Buffer, b: Buffer) -> bool:
        x, y = self._place(a), self._place(b)
        return bool(x.start < y.stop and y.start < x.stop)

    def _order(self, step: Operator, index: int) -> None:
        """An input under the output: each byte is written only when it has been read for the last time."""
        buffer = step.inputs[index]
        written = np.arange(buffer.bytes) + self.plan.offsets[buffer] - self.plan.offsets[step.output]
        before = written_before(step, index, self.at_once)
        late = (written >= 0) & (written < step.output.bytes) & (written < before)
        if late.any():
            self.found.append(f"{step.layer}: byte {int(late.argmax())} of {buffer.name} is overwritten before it is read")


def written_before(step: Operator, index: int, at_once: int = 1) -> Array:
    """For each byte of an input, how many bytes of the output may be written before it is read for the last time; int64."""
    size = step.inputs[index].size
    if step.narrow:
        return _written_before_narrow(step, index)
    if isinstance(step, InPlacePointwise):
        return np.arange(size) // step.image[2] * int(step.weights.shape[0])
    if isinstance(step, Convolution | Pool) and step.lag(index) is not None:
        depth = step.weights.shape[0] if isinstance(step, Convolution) else step.image[2]
        pixels = np.where(readers := _last_reader(step.window, step.image[:2]), readers - 1 + at_once, 0)
        found: Array = np.repeat(np.minimum(pixels * depth, step.output.size), step.image[2])
        return found
    if isinstance(step, Table | Softmax | Normalisation) or (isinstance(step, Binary) and size == step.output.size):
        return np.arange(size)
    return np.full(size, step.output.size)


def _written_before_narrow(step: Operator, index: int) -> Array:
    """The same for sub-byte kernels, four bytes of a buffer of fewer than 8 bits together."""
    source, output = step.inputs[index], step.output
    if isinstance(step, Convolution | Pool) and step.lag(index) is not None:
        readers = _last_reader(step.window, step.image[:2])
        depth = step.weights.shape[0] if isinstance(step, Convolution) else step.image[2]
        if isinstance(step, Convolution):
            readers = sub_byte.block_starts(step.window, step.image, depth)[np.maximum(readers - 1, 0)]
        elements = np.repeat(readers * depth, step.image[2])
    elif isinstance(step, Table) or (isinstance(step, Binary) and source.size == output.size):
        ends = np.array([0, *sub_byte.runs(output.size, step.inputs[-1].size)])
        elements = ends[np.searchsorted(ends, np.arange(source.size), side="right") - 1]
    else:
        return np.full(source.bytes, output.bytes)
    found = np.array([output.held(n) for n in range(output.size + 1)])[elements]
    per = 1 if source.bits == 8 else 32 // source.bits
    padded = np.pad(found, (0, -found.size % per)).reshape(-1, per).max(1)
    return padded if per == 1 else np.repeat(padded, 4)


def _last_reader(window: Window, size: tuple[int, int]) -> Array:
    """For each pixel of an image the number of the last output pixel whose window covers it, from 1; 0 for none."""
    numbers = np.arange(1, size[0] * size[1] + 1).reshape(*size, 1)
    covered = window.patches(numbers, 0).reshape(-1, window.kernel[0] * window.kernel[1])
    found = np.zeros(size[0] * size[1] + 1, np.int64)
    np.maximum.at(found, covered, np.arange(1, len(covered) + 1)[:, None])
    return found[1:]
