"""Tensors of signs, one bit a value, and the instruction sets that work on them.

The values along the last axis are packed: column `k` is bit `k mod 64` of word `k // 64`, set for +1 and clear for -1; the
unused bits of the last word are zero. All kernels return the same bits on every instruction set.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lilliput import _native
from lilliput.core.errors import DataError, PreconditionError

LARGEST = 2**31 - 1
"""The most columns, and the reach of integers."""


class Instructions(IntEnum):
    """An instruction set that the C library has kernels for."""

    PORTABLE = 0
    AVX2 = 1
    AVX512 = 2


@cache
def available() -> tuple[Instructions, ...]:
    """The instruction sets that this processor and this build have, the fastest last."""
    return tuple(each for each in Instructions if _native.has_path(each))


def chosen(instructions: Instructions | None) -> Instructions:
    """The instruction set to use: the fastest, unless one is forced. Raises `PreconditionError` where it cannot run here."""
    if instructions is None:
        return available()[-1]
    if instructions not in available():
        raise PreconditionError(f"this processor or this build cannot run {instructions!r}: pass one of "
                                f"{', '.join(each.name for each in available())}, or None for the fastest")
    return instructions


@dataclass(frozen=True, eq=False)
class Signs:
    """A tensor of +1 and -1 with shape `(..., columns)`, held as `words (..., ceil(columns / 64))`."""

    words: NDArray[np.uint64]
    columns: int

    def __post_init__(self) -> None:
        if self.words.dtype != np.uint64 or self.words.ndim < 1 or not 0 <= self.columns <= LARGEST:
            raise PreconditionError(f"signs are words of uint64 (..., words), not {self.words.dtype} {self.words.shape}: make them "
                                    "with pack_signs")
        if self.words.shape[-1] != (wanted := _native.sign_words(self.columns)):
            raise PreconditionError(f"{self.columns} signs take {wanted} words, not {self.words.shape[-1]}: pack them again")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor of signs."""
        return (*self.words.shape[:-1], self.columns)

    @property
    def flat(self) -> NDArray[np.uint64]:
        """All words in order, as the kernels take them."""
        return np.ascontiguousarray(self.words).reshape(-1)

    def unpack(self) -> NDArray[np.int8]:
        """The signs as integers +1 and -1."""
        octets = np.ascontiguousarray(self.words).astype("<u8", copy=False).view(np.uint8)
        bits = np.unpackbits(octets, axis=-1, bitorder="little")[..., :self.columns]
        return (2 * bits.astype(np.int8) - 1).astype(np.int8)


def pack_signs(values: ArrayLike, *, instructions: Instructions | None = None) -> Signs:
    """The signs of real numbers `(..., columns)`: +1 where `x >= 0`, -0 included, and -1 elsewhere, NaN included.

    >>> pack_signs([[0.5, -2.0, 0.0]]).unpack().tolist()
    [[1, -1, 1]]

    Raises `DataError` for what is not a real number, `PreconditionError` without an axis.
    """
    array = np.asarray(values)
    if array.ndim < 1:
        raise PreconditionError("one number has no axis to pack along: pass an array of at least one axis")
    if array.size and array.dtype.kind not in "iufb":
        raise DataError(f"only real numbers have a sign, not {array.dtype}")
    if array.dtype != np.float32:
        array = np.where(array >= 0, np.float32(1), np.float32(-1))  # a cast could make -1e-300 into -0
    flat = np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
    return _packed(array.shape, lambda words: _native.sign_rows(chosen(instructions), flat, max(array.shape[-1], 1), words))


@dataclass(frozen=True, eq=False)
class Thresholds:
    """One comparison for each channel: `+1` where `(x >= least) xor flip`, for integers `x`."""

    least: NDArray[np.int32]
    flip: NDArray[np.bool_]

    def __post_init__(self) -> None:
        least, flip = self.least, self.flip
        if least.dtype != np.int32 or flip.dtype != np.bool_ or least.ndim != 1 or least.shape != flip.shape:
            raise PreconditionError(f"thresholds are int32 (channels) and bool (channels), not {least.dtype} {least.shape} and "
                                    f"{flip.dtype} {flip.shape}: cast and reshape them")

    def __call__(self, values: NDArray[np.int32], *, instructions: Instructions | None = None) -> Signs:
        """The signs of accumulators `(..., channels)`; raises `PreconditionError` for other types and channel counts."""
        if values.dtype != np.int32 or values.ndim < 1 or values.shape[-1] != self.least.size:
            raise PreconditionError(f"these thresholds take int32 (..., {self.least.size}), not {values.dtype} {values.shape}")
        flip = pack_signs(np.where(self.flip, 1, -1)).flat
        flat, least = np.ascontiguousarray(values).reshape(-1), np.ascontiguousarray(self.least)
        return _packed(values.shape, lambda words: _native.threshold_rows(chosen(instructions), flat, least, flip, words))


def _packed(shape: tuple[int, ...], fill: Any) -> Signs:
    """Signs of that shape whose words a kernel writes."""
    if shape[-1] > LARGEST:
        raise PreconditionError(f"{shape[-1]} columns are more than the {LARGEST} that kernels take: split the last axis")
    words = np.zeros((*shape[:-1], _native.sign_words(shape[-1])), np.uint64)
    if words.size:
        status = fill(words.reshape(-1))
        assert status == _native.OK, status
    return Signs(words, shape[-1])
