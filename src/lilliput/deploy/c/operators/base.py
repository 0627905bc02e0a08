"""What every integer operator of the generated C code is: a pure function of int8 buffers, in numpy and as one call of a C kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.arithmetic import Rounding, multipliers_of

Array = NDArray[Any]
LOW, HIGH = -128, 127


@dataclass(frozen=True, kw_only=True, eq=False)
class Buffer:
    """A tensor at run time: int8 codes in `shape`, channels last where there are channels; real value `(code - zero) scale`."""

    name: str
    shape: tuple[int, ...]
    scale: float
    zero: int

    @property
    def size(self) -> int:
        """Elements, and so bytes."""
        return prod(self.shape)


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

    `scratch` is memory that it needs while it runs. A step with `in_place` finds that input where its output comes to lie.
    """

    in_place: ClassVar[int | None] = None

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


def clip(codes: Array, low: int = LOW, high: int = HIGH) -> Array:
    """Within the range of int8 or less."""
    return np.clip(codes, low, high)


def scales(factors: Array) -> dict[str, Array]:
    """The arrays `multipliers` (int32) and `shifts` (int8) of real factors."""
    multipliers, shifts = multipliers_of(factors)
    return {"multipliers": multipliers, "shifts": shifts.astype(np.int8)}
