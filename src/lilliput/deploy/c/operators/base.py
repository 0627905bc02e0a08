"""What every integer operator of the generated C code is: a pure function of int8 buffers, in numpy and as one call of a C kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.arithmetic import Rounding, multipliers_of

Array = NDArray[Any]
LOW, HIGH = -128, 127


@dataclass(frozen=True, kw_only=True, eq=False)
class Buffer:
    """A tensor at run time: int8 codes in `shape`, channels last where there are channels; real value `(code - zero) scale`.

    Codes of `base` to `base + 2^bits - 1` lie in 4 or 2 bits where `bits` says so, 8 or 16 of them in four bytes: element `i` of these in
    byte `i mod 4`, from bit `(i div 4) bits` upwards.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    zero: int
    bits: int = 8
    base: int = 0

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return self.held(self.size)

    def held(self, elements: int) -> int:
        """Bytes that so many elements take."""
        return elements if self.bits == 8 else -(-elements * self.bits // 32) * 4

    def whole(self, elements: int) -> int:
        """Bytes that so many elements take, those left out that hold others too."""
        return elements if self.bits == 8 else elements * self.bits // 32 * 4

    def pack(self, codes: Array) -> Array:
        """How codes lie in memory, int8 `(bytes,)`."""
        flat = np.asarray(codes, np.int64).reshape(-1)
        if self.bits == 8:
            return flat.astype(np.int8)
        shifts = np.arange(0, 8, self.bits)
        index = np.zeros(self.bytes * 8 // self.bits, np.int64)
        index[: flat.size] = flat - self.base
        found: Array = ((index & (1 << self.bits) - 1).reshape(-1, shifts.size, 4) << shifts[:, None]).sum(1)
        return found.reshape(-1).astype(np.uint8).view(np.int8)

    def unpack(self, memory: Array) -> Array:
        """The codes that lie in memory so, int8 in `shape`."""
        if self.bits == 8:
            return memory.reshape(self.shape)
        shifts = np.arange(0, 8, self.bits)
        index = memory.view(np.uint8).reshape(-1, 1, 4) >> shifts[:, None].astype(np.uint8) & np.uint8((1 << self.bits) - 1)
        return (index.reshape(-1)[: self.size].astype(np.int64) + self.base).astype(np.int8).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of the C function `lp_KERNEL` with a structure `lp_STRUCTURE` of constants.

    `fields` become designated initialisers, `arrays` constants of their own that the structure points to. It gets the inputs whose
    numbers are in `reads` (all of them by default), then the output, then the step's scratch memory if it says so.
    `requires` are further kernels that this one calls.
    `kernels` are members that point to further kernels.
    """

    kernel: str
    structure: str
    fields: Mapping[str, int] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    reads: tuple[int, ...] | None = None
    scratch: bool = False
    requires: tuple[str, ...] = ()
    kernels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Operator(ABC):
    """One step of a program: reads buffers, writes one. `layer` is where it stands in the model, for messages.

    `scratch` is memory that it needs while it runs. A step with `in_place` finds that input where its output comes to lie. One that is
    `sub_byte` reads and writes buffers of 4 and 2 bits too.
    """

    in_place: ClassVar[int | None] = None
    sub_byte: ClassVar[bool] = False

    inputs: tuple[Buffer, ...]
    output: Buffer
    layer: str
    scratch: Buffer | None = None

    @abstractmethod
    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """Codes of the output, int64 in its shape, from codes of the inputs, int64 in theirs: what the C code computes, bit for bit."""

    @abstractmethod
    def calls(self) -> tuple[Call, ...]:
        """The calls of C kernels that compute it, one after the other."""

    @property
    def macs(self) -> int:
        """Multiplications with a weight or another activation."""
        return 0

    @property
    def weight_bytes(self) -> int:
        """Bytes of learned constants in flash."""
        return 0

    def lag(self, index: int) -> int | None:
        """The least distance in bytes by which input `index` may start behind the output when both share memory.

        Bytes of the output never overwrite what is still to be read then. None: the two may not overlap.
        """
        del index
        return None

    @property
    def grain(self) -> int:
        """By how many bytes `lag` grows with every further pixel that a kernel computes at the same time."""
        return 0

    def span(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """The least and the largest code that the output can have, from those of the inputs."""
        del spans
        return LOW, HIGH

    def on(self, buffers: Mapping[Buffer, Buffer]) -> Self:
        """The same step on other buffers in place of its own."""
        return replace(self, inputs=tuple(buffers.get(b, b) for b in self.inputs), output=buffers.get(self.output, self.output))

    @property
    def narrow(self) -> bool:
        """Whether a buffer of it has fewer than 8 bits."""
        return any(buffer.bits < 8 for buffer in (*self.inputs, self.output))


def clip(codes: Array, low: int = LOW, high: int = HIGH) -> Array:
    """Within the range of int8 or less."""
    return np.clip(codes, low, high)


def scales(factors: Array) -> dict[str, Array]:
    """The arrays `multipliers` (int32) and `shifts` (int8) of real factors."""
    multipliers, shifts = multipliers_of(factors)
    return {"multipliers": multipliers, "shifts": shifts.astype(np.int8)}
