"""Coded weights: integers, tables and bases from which a weight is rebuilt exactly, and what they cost in bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lilliput.factorize.bases import Basis, restored
from lilliput.factorize.entropy import Codes
from lilliput.factorize.rate import symbols_bits

Single = NDArray[np.float32]
Exponents = NDArray[np.int8]
# What names the bases of a layer, and one number in single precision.
_HEADER = 8
_FLOAT = 32


class Coded(Protocol):
    """A weight as an entropy coder would store it; every field is an array of integers, or one number."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's."""
        ...

    @property
    def bits(self) -> dict[str, float]:
        """Bits by kind, all that a decoder needs besides the network: codes, and tables and side information."""
        ...

    def decode(self) -> Single:
        """The weight, of `shape`; the same for the same fields, bit for bit on one machine."""
        ...


def total_bits(coded: Coded) -> float:
    """Bits of everything."""
    return math.fsum(coded.bits.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class TransformCoded:
    """Coefficients in orthonormal bases of outputs, inputs and kernel positions, on steps that follow their importance.

    Coefficient `(o, j)` is `codes.values()[o, j] * step * 2^((row_steps[o] + column_steps[j]) / 2)`.
    """

    shape: tuple[int, ...]
    bases: tuple[Basis, Basis, Basis]
    step: float
    row_steps: Exponents
    column_steps: Exponents
    codes: Codes

    @property
    def bits(self) -> dict[str, float]:
        """Codes at their empirical entropy, tables, labels that choose among them, steps, and bases."""
        steps = _FLOAT + symbols_bits(self.row_steps) + symbols_bits(self.column_steps)
        return self.codes.bits | {"steps": steps, "bases": _HEADER + sum(basis.bits for basis in self.bases)}

    @property
    def steps(self) -> NDArray[np.float64]:
        """Every coefficient's step."""
        exponents = self.row_steps.astype(np.float64)[:, None] + self.column_steps[None, :]
        return np.float64(np.float32(self.step)) * 2.0 ** (exponents / 2)

    def decode(self) -> Single:
        """Coefficients back to weights."""
        out, inside = self.shape[:2]
        coefficients = (self.codes.values() * self.steps).reshape(out, inside, -1)
        return restored(coefficients, self.bases).reshape(self.shape).astype(np.float32)
