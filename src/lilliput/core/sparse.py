"""Products of floats and weights with blocks of zeros, which cost nothing.

The same bits on every instruction set. Weights are packed once (`pack_sparse`) and used many times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lilliput import _native
from lilliput.core.errors import DataError, PreconditionError
from lilliput.core.kernels import run, workspace
from lilliput.core.signs import Instructions, chosen

PANEL = 16
"""Rows of weights that share the columns stored of them."""


@dataclass(frozen=True, eq=False)
class SparseWeights:
    """Weights `(rows, inputs)` without their blocks of zeros, as the kernels want them (`csrc/gemm_sparse.h`); made by `pack_sparse`.

    `values (stored, 16)` are the columns of all panels of 16 rows, one panel after the other, `columns (stored)` where they stand, and
    `starts (panels + 1)` where each panel's begin.
    """

    values: NDArray[np.float32]
    columns: NDArray[np.uint32]
    starts: NDArray[np.uint64]
    rows: int
    inputs: int

    def __post_init__(self) -> None:
        values, columns, starts = self.values, self.columns, self.starts
        typed = values.dtype == np.float32 and columns.dtype == np.uint32 and starts.dtype == np.uint64
        laid = all(array.flags.c_contiguous for array in (values, columns, starts))
        if not (typed and laid) or columns.ndim != 1 or values.shape != (columns.size, PANEL):
            raise PreconditionError("sparse weights are values (stored, 16), columns (stored) and starts (panels + 1): make them with pack_sparse")
        if self.rows < 0 or self.inputs < 0 or starts.shape != (-(-self.rows // PANEL) + 1,):
            raise PreconditionError(f"{self.rows} x {self.inputs} weights do not have {starts.size} starts of panels: make them with pack_sparse")
        falling = starts[0] != 0 or starts[-1] != columns.size or bool((starts[1:] < starts[:-1]).any())
        if falling or (columns.size and int(columns.max()) >= self.inputs):
            raise PreconditionError(f"starts or columns of these weights leave {self.rows} x {self.inputs}: make them with pack_sparse")

    @property
    def density(self) -> float:
        """The share of the weights that is stored, and of the multiplications that is done."""
        return self.columns.size * PANEL / max(self.rows * self.inputs, 1)

    def unpack(self) -> NDArray[np.float32]:
        """The weights with their zeros."""
        panels = np.zeros((self.starts.size - 1, self.inputs, PANEL), np.float32)
        counts = np.diff(self.starts).astype(np.int64)
        panels[np.repeat(np.arange(counts.size), counts), self.columns] = self.values
        return panels.transpose(0, 2, 1).reshape(counts.size * PANEL, self.inputs)[: self.rows].copy()


def pack_sparse(weights: ArrayLike) -> SparseWeights:
    """Pack floats `(rows, inputs)`: of every 16 rows the columns in which not all are zero.

    Blocks of zeros 16 rows high, or a multiple of it, vanish, however wide; of others what spans 16 rows.

    >>> pack_sparse(np.kron(np.eye(2), np.ones((16, 8)))).density
    0.5

    Raises `PreconditionError` for another number of axes, `DataError` for what is not a real number.
    """
    array = np.asarray(weights)
    if array.ndim != 2 or array.shape[1] >= 2**32:
        raise PreconditionError(f"weights are (rows, inputs), not {array.shape}: reshape them")
    if array.size and array.dtype.kind not in "iufb":
        raise DataError(f"only real numbers can be weights, not {array.dtype}")
    rows, inputs = array.shape
    count = -(-rows // PANEL)
    panels = np.zeros((count * PANEL, inputs), np.float32)
    panels[:rows] = array
    panels = panels.reshape(count, PANEL, inputs).transpose(0, 2, 1)
    stored = (panels != 0).any(2)
    starts = np.concatenate([[0], np.cumsum(stored.sum(1))]).astype(np.uint64)
    return SparseWeights(np.ascontiguousarray(panels[stored]), np.nonzero(stored)[1].astype(np.uint32), starts, rows, inputs)


def gemm_sparse(a: NDArray[np.float32], weights: SparseWeights, *, out: NDArray[np.float32] | None = None,
                instructions: Instructions | None = None) -> NDArray[np.float32]:
    """`C = A W^T` with float32 `A (..., K)`, packed weights `W (N, K)` and `C (..., N)`.

    Terms are added in the order of the columns, each by a fused multiply-add; those of zeros that are not stored are left out, so that
    they stay out where `A` has infinities. `out` receives the result where it is given. Raises `PreconditionError` for shapes and types
    that do not fit.
    """
    if a.dtype != np.float32 or a.ndim < 1 or a.shape[-1] != weights.inputs:
        raise PreconditionError(f"activations {a.dtype} {a.shape} do not meet weights (N, {weights.inputs}): pass float32 "
                                f"(..., {weights.inputs})")
    path, shape = chosen(instructions), (*a.shape[:-1], weights.rows)
    c = np.empty(shape, np.float32) if out is None else out
    if c.shape != shape or c.dtype != np.float32 or not c.flags.c_contiguous or not c.flags.writeable:
        raise PreconditionError(f"out must be a writeable, contiguous float32 array of shape {shape}, not {c.dtype} {c.shape}")
    mnk = (math.prod(a.shape[:-1]), weights.rows, weights.inputs)
    work = workspace(_native.gemm_sparse_workspace(path, mnk[0], mnk[2]))
    packed = (weights.values.reshape(-1), weights.columns, weights.starts)
    run(_native.gemm_sparse(path, np.ascontiguousarray(a).reshape(-1), packed, mnk, c.reshape(-1), work))
    return c
