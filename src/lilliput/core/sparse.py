"""Products with weights that have blocks of zeros, which cost nothing: of float32, or of bytes.

The same bits on every instruction set. Weights are packed once (`pack_sparse`) and used many times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lilliput import _native
from lilliput.core.errors import DataError, PreconditionError
from lilliput.core.kernels import octets, run, workspace
from lilliput.core.signs import Instructions, chosen

PANEL = 16
"""Rows of weights that share the columns stored of them."""
LARGEST_BYTES = 2**16
"""The most columns of int8 weights, so that no sum leaves int32."""

_QUAD = 4


@dataclass(frozen=True, eq=False)
class SparseWeights:
    """Weights `(rows, inputs)` without their blocks of zeros, as the kernels want them; made by `pack_sparse`.

    A panel is 16 rows. Of float32 weights (`csrc/gemm_sparse.h`) `values (stored, 16)` are the columns of all panels, one panel after the
    other, `columns (stored)` where they stand, and `starts (panels + 1)` where each panel's begin. Of int8 weights
    (`csrc/gemm_sparse_bytes.h`) `values (stored, 16, 4)` are four columns at a time, and `columns` counts in fours.
    """

    values: NDArray[np.float32] | NDArray[np.int8]
    columns: NDArray[np.uint32]
    starts: NDArray[np.uint64]
    rows: int
    inputs: int

    def __post_init__(self) -> None:
        values, columns, starts = self.values, self.columns, self.starts
        typed = values.dtype in (np.float32, np.int8) and columns.dtype == np.uint32 and starts.dtype == np.uint64
        laid = all(array.flags.c_contiguous for array in (values, columns, starts))
        if not (typed and laid) or columns.ndim != 1 or values.shape != (columns.size, PANEL, *([_QUAD] if self.integers else [])):
            raise PreconditionError("sparse weights are values (stored, 16), or bytes (stored, 16, 4), columns (stored) and starts (panels + 1): "
                                    "make them with pack_sparse")
        if self.rows < 0 or not 0 <= self.inputs <= _most(self.integers) or starts.shape != (-(-self.rows // PANEL) + 1,):
            raise PreconditionError(f"{self.rows} x {self.inputs} weights do not have {starts.size} starts of panels: make them with pack_sparse")
        falling = starts[0] != 0 or starts[-1] != columns.size or bool((starts[1:] < starts[:-1]).any())
        if falling or (columns.size and int(columns.max()) * self.width >= self.inputs):
            raise PreconditionError(f"starts or columns of these weights leave {self.rows} x {self.inputs}: make them with pack_sparse")

    @property
    def integers(self) -> bool:
        """Whether the weights are int8."""
        return bool(self.values.dtype == np.int8)

    @property
    def width(self) -> int:
        """Columns that are stored together."""
        return _QUAD if self.integers else 1

    @property
    def density(self) -> float:
        """The share of the weights that is stored, and of the multiplications that is done."""
        return self.values.size / max(self.rows * self.inputs, 1)

    def unpack(self) -> NDArray[np.float32] | NDArray[np.int8]:
        """The weights with their zeros."""
        count, across = self.starts.size - 1, -(-self.inputs // self.width)
        panels = np.zeros((count, across, PANEL, self.width), self.values.dtype)
        panel = np.repeat(np.arange(count), np.diff(self.starts).astype(np.int64))
        panels[panel, self.columns] = self.values.reshape(-1, PANEL, self.width)
        return panels.transpose(0, 2, 1, 3).reshape(count * PANEL, across * self.width)[: self.rows, : self.inputs].copy()


def _most(integers: bool) -> int:
    return LARGEST_BYTES if integers else 2**32 - 1


def pack_sparse(weights: ArrayLike) -> SparseWeights:
    """Pack weights `(rows, inputs)`, int8 as they are and other numbers as float32: of every 16 rows the columns in which not all are zero.

    Blocks of zeros 16 rows high, or a multiple of it, vanish, however wide; of others what spans 16 rows. Columns of int8 weights go by
    four.

    >>> pack_sparse(np.kron(np.eye(2), np.ones((16, 8)))).density
    0.5

    Raises `PreconditionError` for another number of axes or more columns than `LARGEST_BYTES` of int8, `DataError` for what is not a real
    number.
    """
    array = np.asarray(weights)
    integers = array.dtype == np.int8
    if array.ndim != 2 or array.shape[1] > _most(integers):
        raise PreconditionError(f"weights are (rows, inputs), up to {_most(integers)} inputs of {array.dtype}, not {array.shape}: reshape or split them")
    if array.size and array.dtype.kind not in "iufb":
        raise DataError(f"only real numbers can be weights, not {array.dtype}")
    rows, inputs = array.shape
    width, count = _QUAD if integers else 1, -(-rows // PANEL)
    across = -(-inputs // width)
    whole: NDArray[Any] = np.zeros((count * PANEL, across * width), np.int8 if integers else np.float32)
    whole[:rows, :inputs] = array
    panels = whole.reshape(count, PANEL, across, width).transpose(0, 2, 1, 3)
    stored = (panels != 0).any((2, 3))
    values = np.ascontiguousarray(panels[stored])
    starts = np.concatenate([[0], np.cumsum(stored.sum(1))]).astype(np.uint64)
    return SparseWeights(values if integers else values[..., 0], np.nonzero(stored)[1].astype(np.uint32), starts, rows, inputs)


def gemm_sparse(a: NDArray[Any], weights: SparseWeights, *, out: NDArray[Any] | None = None,
                instructions: Instructions | None = None) -> NDArray[Any]:
    """`C = A W^T` with `A (..., K)`, packed weights `W (N, K)` and `C (..., N)`: float32 throughout, or bytes by int8 to int32.

    Floats are added in the order of the columns, each product by a fused multiply-add; those of zeros that are not stored are left out,
    so that they stay out where `A` has infinities. Bytes, int8 or uint8, are exact. `out` receives the result where it is given. Raises
    `PreconditionError` for shapes and types that do not fit.
    """
    if a.ndim < 1 or a.shape[-1] != weights.inputs or (a.dtype != np.float32 and not weights.integers):
        raise PreconditionError(f"activations {a.dtype} {a.shape} do not meet weights (N, {weights.inputs}) of {weights.values.dtype}: pass "
                                f"{'bytes' if weights.integers else 'float32'} (..., {weights.inputs})")
    path, shape = chosen(instructions), (*a.shape[:-1], weights.rows)
    kind = np.dtype(np.int32 if weights.integers else np.float32)
    flat: Any = octets(a) if weights.integers else np.ascontiguousarray(a).reshape(-1)
    c = np.empty(shape, kind) if out is None else out
    if c.shape != shape or c.dtype != kind or not c.flags.c_contiguous or not c.flags.writeable:
        raise PreconditionError(f"out must be a writeable, contiguous {kind} array of shape {shape}, not {c.dtype} {c.shape}")
    mnk = (math.prod(a.shape[:-1]), weights.rows, weights.inputs)
    packed: Any = (weights.values.reshape(-1), weights.columns, weights.starts)
    if weights.integers:
        work = workspace(_native.gemm_sparse_bytes_workspace(path, mnk[0], mnk[2]))
        run(_native.gemm_sparse_bytes(path, flat, a.dtype == np.int8, packed, mnk, c.reshape(-1), work))
    else:
        work = workspace(_native.gemm_sparse_workspace(path, mnk[0], mnk[2]))
        run(_native.gemm_sparse(path, flat, packed, mnk, c.reshape(-1), work))
    return c
