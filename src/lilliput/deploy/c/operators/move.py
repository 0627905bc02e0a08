"""Moving codes without computing: slices, concatenations, padding, repeated pixels and transpositions are copies with strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.arithmetic import Rounding
from lilliput.deploy.c.operators import sub_byte
from lilliput.deploy.c.operators.base import HIGH, LOW, Call, Operator

Array = NDArray[Any]
RANK = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Copy:
    """`out[offset_out + sum i_k stride_out_k] = in[offset_in + sum i_k stride_in_k]` for all `i` in `shape`, through a table of codes if given.

    `source` numbers the input; strides and offsets are in elements, and a stride of 0 on the input repeats.
    """

    source: int
    shape: tuple[int, ...]
    strides_in: tuple[int, ...]
    strides_out: tuple[int, ...]
    offset_in: int = 0
    offset_out: int = 0
    table: Array | None = None

    def merged(self) -> Copy:
        """The same copy in as few dimensions as can be, the innermost one contiguous where one is."""
        dims = [d for d in zip(self.shape, self.strides_in, self.strides_out, strict=True) if d[0] != 1]
        dims.sort(key=lambda d: (-d[2], -d[1]))
        found: list[tuple[int, int, int]] = []
        for size, a, b in dims:
            if found and found[-1][1] == size * a and found[-1][2] == size * b:
                found[-1] = (found[-1][0] * size, a, b)
            else:
                found.append((size, a, b))
        shape, strides_in, strides_out = zip(*(found or [(1, 1, 1)]), strict=True)
        return Copy(source=self.source, shape=shape, strides_in=strides_in, strides_out=strides_out, offset_in=self.offset_in,
                    offset_out=self.offset_out, table=self.table)

    def indices(self) -> tuple[Array, Array]:
        """Flat indices into input and output, in order."""
        grid = np.indices(self.shape).reshape(len(self.shape), -1)
        return self.offset_in + np.asarray(self.strides_in) @ grid, self.offset_out + np.asarray(self.strides_out) @ grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Move(Operator):
    """Copies one after the other, over `fill` where that is given."""

    sub_byte: ClassVar[bool] = True

    copies: tuple[Copy, ...]
    fill: int | None = None

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        del rounding
        out = np.full(self.output.size, 0 if self.fill is None else self.fill, np.int64)
        for copy in self.copies:
            source, target = copy.indices()
            values = arrays[copy.source].reshape(-1)[source]
            out[target] = values if copy.table is None else copy.table.astype(np.int64)[values + 128]
        return out.reshape(self.output.shape)

    def calls(self) -> tuple[Call, ...]:
        """`lp_fill_s8` and a `lp_copy_s8` or `lp_copy_table_s8` for each copy, which take all inputs."""
        found = [] if self.fill is None else [Call(kernel="fill_s8", structure="fill", reads=(),
                                              fields={"value": int(self.output.pack(np.full(self.output.size, self.fill))[0]), "count": self.output.bytes})]
        for copy in (c.merged() for c in self.copies):
            missing = RANK - len(copy.shape)
            assert missing >= 0, "the lowering keeps copies within the rank of the kernel"
            fields = {"offset_in": copy.offset_in, "offset_out": copy.offset_out}
            for k, (size, a, b) in enumerate([(1, 0, 0)] * missing + list(zip(copy.shape, copy.strides_in, copy.strides_out, strict=True))):
                fields |= {f"size[{k}]": size, f"stride_in[{k}]": a, f"stride_out[{k}]": b}
            arrays = {} if copy.table is None else {"table": copy.table.astype(np.int8)}
            source = self.inputs[copy.source]
            if source.bits < 8 or self.output.bits < 8:
                how = sub_byte.members("in", source) | sub_byte.members("out", self.output)
                found.append(sub_byte.inside(Call(kernel="copy_s8", structure="copy", fields=fields, arrays=arrays, reads=(copy.source,)), how))
            else:
                found.append(Call(kernel="copy_s8" if copy.table is None else "copy_table_s8", structure="copy", fields=fields, arrays=arrays,
                                  reads=(copy.source,)))
        return tuple(found)

    def span(self, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Of all that is copied, and the fill."""
        found = [] if self.fill is None else [(self.fill, self.fill)]
        if self.fill is None and sum(prod(copy.shape) for copy in self.copies) < self.output.size:
            return LOW, HIGH
        for copy in self.copies:
            low, high = spans[copy.source]
            moved = np.arange(low, high + 1) if copy.table is None else copy.table[low + 128: high + 129]
            found.append((int(moved.min()), int(moved.max())))
        return min(low for low, _ in found), max(high for _, high in found)


@dataclass(frozen=True, kw_only=True, eq=False)
class Place(Move):
    """The first input with parts of it replaced by copies from the others, where it lies; of as many bits as that."""

    in_place: ClassVar[int | None] = 0
    sub_byte: ClassVar[bool] = False

    def run(self, arrays: Sequence[Array], rounding: Rounding) -> Array:
        """See `Operator`."""
        del rounding
        out = arrays[0].reshape(-1).copy()
        for copy in self.copies:
            source, target = copy.indices()
            out[target] = arrays[copy.source].reshape(-1)[source]
        return out.reshape(self.output.shape)
