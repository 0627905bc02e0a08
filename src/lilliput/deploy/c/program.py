"""A program: integer operators in order over named buffers, and its execution in numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import DataError
from lilliput.deploy.c.arithmetic import DoubleRounding, Rounding
from lilliput.deploy.c.operators import Buffer, Operator

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Port:
    """An input or output: its buffer, the model's own name and shape for it, and where each element of that shape lies in the buffer."""

    name: str
    buffer: Buffer
    positions: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The model's shape, the batch of one included."""
        return tuple(self.positions.shape)

    def codes(self, real: Array) -> Array:
        """Codes of real values in the model's shape, in the buffer's layout, int8: `clip(rint(x / s) + z)`, half to even."""
        if tuple(np.shape(real)) != self.shape:
            raise DataError(f"input {self.name} has shape {self.shape}, not {tuple(np.shape(real))}")
        found = np.clip(np.rint(np.asarray(real, np.float64) / self.buffer.scale) + self.buffer.zero, -128, 127).astype(np.int8)
        return self.placed(found)

    def placed(self, codes: Array) -> Array:
        """Codes in the model's shape, brought to the buffer's layout."""
        out = np.empty(self.buffer.size, codes.dtype)
        out[self.positions.reshape(-1)] = codes.reshape(-1)
        return out.reshape(self.buffer.shape)

    def real(self, codes: Array) -> Array:
        """Real values in the model's shape from the buffer's codes, float64."""
        found: Array = (codes.reshape(-1)[self.positions].astype(np.float64) - self.buffer.zero) * self.buffer.scale
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """What the C code does, step by step; `constants` are buffers that lie in flash."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    steps: tuple[Operator, ...]
    constants: Mapping[Buffer, Array] = field(default_factory=dict)
    rounding: Rounding = field(default_factory=DoubleRounding)

    def __call__(self, *arrays: Array) -> list[Array]:
        """Codes of the outputs, int8 in their buffers' shapes, from codes of the inputs in theirs: the integer reference."""
        found = self.values(*arrays)
        return [found[port.buffer] for port in self.outputs]

    def values(self, *arrays: Array) -> dict[Buffer, Array]:
        """Codes of every buffer, int8."""
        if len(arrays) != len(self.inputs):
            raise DataError(f"the program has {len(self.inputs)} inputs, not {len(arrays)}")
        found: dict[Buffer, Array] = {buffer: np.asarray(codes, np.int8) for buffer, codes in self.constants.items()}
        for port, array in zip(self.inputs, arrays, strict=True):
            if array.size != port.buffer.size:
                raise DataError(f"input {port.name} has {port.buffer.size} elements, not {array.size}")
            found[port.buffer] = np.asarray(array, np.int8).reshape(port.buffer.shape)
        for step in self.steps:
            out = step.run([found[buffer].astype(np.int64) for buffer in step.inputs], self.rounding)
            found[step.output] = out.astype(np.int8)
        return found

    def real(self, *arrays: Array) -> list[Array]:
        """Real values of the outputs in the model's shapes, from real inputs in theirs, one sample."""
        codes = [port.codes(array) for port, array in zip(self.inputs, arrays, strict=True)]
        return [port.real(out) for port, out in zip(self.outputs, self(*codes), strict=True)]

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Those that need memory at run time, in the order in which they come to life."""
        return (*(port.buffer for port in self.inputs), *(step.output for step in self.steps))

    def readers(self) -> dict[Buffer, list[int]]:
        """The steps that read each buffer."""
        found: dict[Buffer, list[int]] = {buffer: [] for buffer in self.buffers}
        for i, step in enumerate(self.steps):
            for buffer in step.inputs:
                if buffer not in self.constants:
                    found[buffer].append(i)
        return found

    def reordered(self, order: Sequence[int]) -> Program:
        """The same program with its steps in another order."""
        return Program(inputs=self.inputs, outputs=self.outputs, steps=tuple(self.steps[i] for i in order), constants=self.constants,
                       rounding=self.rounding)

    def __iter__(self) -> Iterator[Operator]:
        """Step by step."""
        return iter(self.steps)

    @property
    def macs(self) -> int:
        """Multiplications of all steps."""
        return sum(step.macs for step in self.steps)
