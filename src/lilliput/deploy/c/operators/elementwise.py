"""Operators that take each element by itself: a table of 256 codes, and sums and products of two tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.arithmetic import Rounding, multiplier_of
from lilliput.deploy.c.operators import sub_byte
from lilliput.deploy.c.operators.base import HIGH, LOW, Buffer, Call, Operator, clip

Array = NDArray[Any]
_LEFT = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Table(Operator):
    """`out = table[x + 128]`: any function of one code; `table` is int8 `(256,)`."""

    sub_byte: ClassVar[bool] = True

    table: Array

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        del rounding
        found: Array = self.table.astype(np.int64)[arrays[0] + 128]
        return found.reshape(self.output.shape)

    def calls(self) -> tuple[Call, ...]:
        """`lp_table_s8`."""
        call = Call(kernel="table_s8", structure="table", fields={"count": self.output.size}, arrays={"table": self.table.astype(np.int8)})
        return (sub_byte.wrapped(call, self, "table_s8"),)

    def span(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Of what the table holds for the input's codes."""
        found = self.table[spans[0][0] + 128: spans[0][1] + 129]
        return int(found.min()), int(found.max())

    def lag(self, index: int) -> int | None:
        """In place."""
        return sub_byte.run_lag(self.inputs[index], self.output, self.output.size) if self.narrow else 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Binary(Operator):
    """An operator of two tensors; the second may be one element, or one value for each channel, repeated along the first."""

    sub_byte: ClassVar[bool] = True

    low: int = LOW
    high: int = HIGH

    def _fields(self) -> dict[str, int]:
        return {"count": self.output.size, "period": self.inputs[1].size, "zero_a": self.inputs[0].zero, "zero_b": self.inputs[1].zero,
                "out_zero": self.output.zero, "low": self.low, "high": self.high}

    def _values(self, arrays: Sequence[Array]) -> tuple[Array, Array]:
        a, b = (np.asarray(x, np.int64).reshape(-1) - buffer.zero for x, buffer in zip(arrays, self.inputs, strict=True))
        return a, np.tile(b, a.size // b.size)

    def span(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """What its activation leaves."""
        del spans
        return self.low, self.high

    def lag(self, index: int) -> int | None:
        """In place, where the element read is the element written."""
        if self.inputs[index].size != self.output.size:
            return None
        return sub_byte.run_lag(self.inputs[index], self.output, self.inputs[1].size) if self.narrow else 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Binary):
    """`s_a (a - z_a) + sign s_b (b - z_b)`, both brought to twice the larger scale with 20 more bits. (jacob2018quantization)

    TensorFlow Lite's arithmetic: `round(2^20 (a - z_a) s_a / t)` and the same of `b`, their sum times `t / (2^20 s_out)`, `t` twice
    the larger of both scales.
    """

    sign: int = 1

    def _factors(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        a, b = (buffer.scale for buffer in self.inputs)
        twice = 2 * max(a, b)
        return multiplier_of(a / twice), multiplier_of(b / twice), multiplier_of(twice / (2**_LEFT * self.output.scale))

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        a, b = self._values(arrays)
        of_a, of_b, out = self._factors()
        total = rounding(a << _LEFT, *of_a) + self.sign * rounding(b << _LEFT, *of_b)
        return clip(rounding(total, *out) + self.output.zero, self.low, self.high).reshape(self.output.shape)

    def calls(self) -> tuple[Call, ...]:
        """`lp_add_s8`."""
        names = ("a", "b", "out")
        fields = {f"multiplier_{n}": m for n, (m, _) in zip(names, self._factors(), strict=True)}
        fields |= {f"shift_{n}": s for n, (_, s) in zip(names, self._factors(), strict=True)}
        return (sub_byte.wrapped(Call(kernel="add_s8", structure="add", fields={**self._fields(), **fields, "sign": self.sign}), self, "add_s8"),)


@dataclass(frozen=True, kw_only=True, eq=False)
class Multiply(Binary):
    """`(a - z_a) (b - z_b) s_a s_b / s_out`."""

    def _factor(self) -> tuple[int, int]:
        a, b = (buffer.scale for buffer in self.inputs)
        return multiplier_of(a * b / self.output.scale)

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        a, b = self._values(arrays)
        return clip(rounding(a * b, *self._factor()) + self.output.zero, self.low, self.high).reshape(self.output.shape)

    def calls(self) -> tuple[Call, ...]:
        """`lp_multiply_s8`."""
        multiplier, shift = self._factor()
        call = Call(kernel="multiply_s8", structure="multiply", fields={**self._fields(), "multiplier": multiplier, "shift": shift})
        return (sub_byte.wrapped(call, self, "multiply_s8"),)


def rescaling(source: Buffer, target: Buffer, rounding: Rounding) -> Array:
    """The table that brings codes of one buffer to the grid of another, int8 `(256,)`."""
    codes = rounding(np.arange(LOW, HIGH + 1) - source.zero, *multiplier_of(source.scale / target.scale)) + target.zero
    return clip(codes).astype(np.int8)
