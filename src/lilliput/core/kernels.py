"""Integer products of low-bit weights: signs against signs, and bytes against 4-, 2- and 1-bit weights.

Exact on every instruction set. Weights are packed once (`pack_signs`, `pack_weights`) and used many times.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lilliput import _native
from lilliput.core.bits import pack
from lilliput.core.errors import PreconditionError
from lilliput.core.signs import Instructions, Signs, chosen

LARGEST_REDUCTION = 2**20
"""The most columns of low-bit weights, so that no sum leaves int32."""

_LOWEST = {4: -8, 2: -2, 1: -1}
_KEPT = 4 * 2**20
_memory = threading.local()


def gemm_binary(a: Signs, b: Signs, *, out: NDArray[np.int32] | None = None,
                instructions: Instructions | None = None) -> NDArray[np.int32]:
    """`C = A B^T`, that is `c_ij = K - 2 popcount(a_i xor b_j)`, with `A (..., K)`, `B (N, K)`, `C (..., N)`.

    `out` receives the result where it is given. Raises `PreconditionError` for shapes and types that do not fit.
    """
    if b.words.ndim != 2 or a.columns != b.columns:
        raise PreconditionError(f"signs of shapes {a.shape} and {b.shape} have no product: pass (..., K) and (N, K)")
    path, (n, k) = chosen(instructions), b.shape
    c = result((*a.shape[:-1], n), out)
    mnk = (math.prod(a.shape[:-1]), n, k)
    run(_native.gemm_binary(path, a.flat, b.flat, mnk, c.reshape(-1), workspace(_native.gemm_binary_workspace(path, mnk))))
    return c


@dataclass(frozen=True, eq=False)
class LowWeights:
    """Weights `(rows, columns)` of 4, 2 or 1 bits as the kernels want them (`csrc/gemm_low.h`); made by `pack_weights`."""

    panels: NDArray[np.uint8]
    rows: int
    columns: int
    bits: int

    def __post_init__(self) -> None:
        panels = self.panels
        if self.bits not in _LOWEST or panels.dtype != np.uint8 or panels.ndim != 1 or not panels.flags.c_contiguous:
            raise PreconditionError("packed weights are a flat array of bytes, 4, 2 or 1 bits a weight: make them with pack_weights")
        if not (0 <= self.columns <= LARGEST_REDUCTION and self.rows >= 0):
            raise PreconditionError(f"weights have up to {LARGEST_REDUCTION} columns, not {self.rows} x {self.columns}: split them")
        if panels.size != (wanted := _native.low_size(self.rows, self.columns, self.bits)):
            raise PreconditionError(f"{self.rows} x {self.columns} weights of {self.bits} bits take {wanted} bytes, not {panels.size}: "
                                    "make them with pack_weights")


def pack_weights(weights: ArrayLike, bits: int) -> LowWeights:
    """Pack integers `(rows, columns)`: -8 to 7 in 4 bits, -2 to 1 in 2 bits (ternary weights among them), -1 and +1 in 1 bit.

    >>> pack_weights([[1, -1, 0], [0, 1, 1]], 2).panels.size
    64

    Raises `PreconditionError` for other widths, values, or more columns than `LARGEST_REDUCTION`.
    """
    array = np.asarray(weights)
    if bits not in _LOWEST:
        raise PreconditionError(f"weights can be 4, 2 or 1 bits wide, not {bits!r}")
    if array.ndim != 2 or (array.size and array.dtype.kind not in "iu"):
        raise PreconditionError(f"weights are integers (rows, columns), not {array.dtype} {array.shape}: round and reshape them")
    low, high = _LOWEST[bits], -_LOWEST[bits] - 1 if bits > 1 else 1
    if array.size and (int(array.min()) < low or int(array.max()) > high or (bits == 1 and not array.all())):
        values = f"[{low}, {high}]" if bits > 1 else "{-1, +1}"
        raise PreconditionError(f"weights of {bits} bits lie in {values}, but these reach from {array.min()} to {array.max()}: clip "
                                "them, or pack with more bits")
    rows, columns = array.shape
    if columns > LARGEST_REDUCTION:
        raise PreconditionError(f"{columns} columns are more than {LARGEST_REDUCTION}: split them and add the products")
    codes = (array > 0).astype(np.uint8) if bits == 1 else array.astype(np.int8).view(np.uint8) & np.uint8(2**bits - 1)
    panels = np.empty(_native.low_size(rows, columns, bits), np.uint8)
    run(_native.low_pack(pack(codes, bits), (rows, columns), bits, panels))
    return LowWeights(panels, rows, columns, bits)


def gemm_low(a: NDArray[np.int8] | NDArray[np.uint8], weights: LowWeights, *, out: NDArray[np.int32] | None = None,
             instructions: Instructions | None = None) -> NDArray[np.int32]:
    """`C = A W^T` with bytes `A (..., K)`, int8 or uint8, packed weights `W (N, K)` and `C (..., N)`.

    `out` receives the result where it is given. Raises `PreconditionError` for shapes and types that do not fit.
    """
    if a.ndim < 1 or a.shape[-1] != weights.columns:
        raise PreconditionError(f"activations {a.shape} do not meet weights (N, {weights.columns}): pass (..., {weights.columns})")
    path, values = chosen(instructions), octets(a)
    c = result((*a.shape[:-1], weights.rows), out)
    mnk = (math.prod(a.shape[:-1]), weights.rows, weights.columns)
    work = workspace(_native.gemm_low_workspace(path, mnk[0], mnk[2]))
    run(_native.gemm_low(path, values, a.dtype == np.int8, (weights.panels, weights.bits), mnk, c.reshape(-1), work))
    return c


def octets(a: NDArray[np.int8] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """int8 or uint8 activations as flat bytes; raises `PreconditionError` for other types."""
    if a.dtype not in (np.int8, np.uint8):
        raise PreconditionError(f"activations are int8 or uint8, not {a.dtype}: quantize them first")
    return np.ascontiguousarray(a).reshape(-1).view(np.uint8)


def result(shape: tuple[int, ...], out: NDArray[np.int32] | None) -> NDArray[np.int32]:
    """`out` if it can hold the result in place, else a new array; raises `PreconditionError` if it cannot."""
    if out is None:
        return np.empty(shape, np.int32)
    if out.shape != shape or out.dtype != np.int32 or not out.flags.c_contiguous or not out.flags.writeable:
        raise PreconditionError(f"out must be a writeable, contiguous int32 array of shape {shape}, not {out.dtype} {out.shape}")
    return out


def workspace(size: int) -> NDArray[np.uint8]:
    """Memory for a kernel to work in, of each thread its own, kept between calls while it is small: new pages cost time.

    Raises `PreconditionError` where the library says that no size would suffice.
    """
    if size >= 2**63:
        raise PreconditionError("one patch of this convolution is beyond what the kernels take: split the channels and add")
    if size > _KEPT:
        return np.empty(size, np.uint8)
    kept: NDArray[np.uint8] = getattr(_memory, "bytes", np.empty(0, np.uint8))
    if kept.size < size:
        kept = _memory.bytes = np.empty(size, np.uint8)
    return kept[:size]


def run(status: int) -> None:
    """Check the status of a kernel whose inputs were checked before: anything but success is a defect of this module."""
    assert status == _native.OK, status
