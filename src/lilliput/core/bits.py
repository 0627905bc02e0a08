"""Packed codes: 1-, 2- and 4-bit unsigned integers, several to the byte.

Code `i` takes bits `(i*b) mod 8 ... (i*b) mod 8 + b - 1` of byte `i*b // 8`, the least significant bit first; the
unused high bits of the last byte are zero. ONNX's packed int4 and int2 tensors have the same layout.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lilliput import _native
from lilliput.core.errors import CorruptFileError, PreconditionError

WIDTHS = (1, 2, 4)


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take, `ceil(count * bits / 8)`.

    >>> packed_size(5, 4), packed_size(9, 1)
    (3, 2)
    """
    _check(bits, count)
    return _native.packed_size(count, bits)


def pack(codes: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """Pack integer codes of any shape, in C order, `8 / bits` to the byte.

    >>> pack([1, 2, 15], 4).tolist()
    [33, 15]

    Raises `PreconditionError` when `bits` is not 1, 2 or 4, or a code lies outside `[0, 2**bits)`.
    """
    array = np.asarray(codes)
    _check(bits, array.size)
    if array.size and array.dtype.kind not in "iub":
        raise PreconditionError(f"codes must be integers, not {array.dtype}: round and cast them first")
    if array.dtype != np.uint8 and array.size and (int(array.min()) < 0 or int(array.max()) >> bits):
        raise _out_of_range(array, bits)
    flat = np.ascontiguousarray(array, dtype=np.uint8).reshape(-1)
    packed = np.empty(_native.packed_size(flat.size, bits), np.uint8)
    if _native.pack(flat, bits, packed) != _native.OK:
        raise _out_of_range(array, bits)
    return packed


def unpack(packed: ArrayLike, bits: int, count: int) -> NDArray[np.uint8]:
    """The first `count` codes of a packed buffer, as a flat array.

    >>> unpack([33, 15], 4, 3).tolist()
    [1, 2, 15]

    Raises `PreconditionError` for other widths, negative counts or elements that are not bytes, `CorruptFileError` when the
    buffer is too short for `count`.
    """
    _check(bits, count)
    array = np.asarray(packed)
    if array.size and array.dtype != np.uint8 and (array.dtype.kind not in "iu" or int(array.min()) < 0 or int(array.max()) > 255):
        raise PreconditionError(f"packed codes are bytes (uint8), not {array.dtype}")
    flat = np.ascontiguousarray(array, dtype=np.uint8).reshape(-1)
    needed = _native.packed_size(count, bits)
    if flat.size < needed:
        raise CorruptFileError(f"{count} codes of {bits} bits need {needed} bytes, but the buffer has {flat.size}: it is truncated, "
                               "or was packed with another width")
    codes = np.empty(count, np.uint8)
    status = _native.unpack(flat, bits, codes)
    assert status == _native.OK, status
    return codes


def _check(bits: int, count: int) -> None:
    if bits not in WIDTHS:
        raise PreconditionError(f"codes can be 1, 2 or 4 bits wide, not {bits!r}; keep 8-bit codes as plain uint8")
    if count < 0:
        raise PreconditionError(f"a count of codes cannot be negative: {count}")


def _out_of_range(array: NDArray[np.generic], bits: int) -> PreconditionError:
    return PreconditionError(f"codes of {bits} bits lie in [0, {(1 << bits) - 1}], but these reach from {array.min()} to {array.max()}: "
                             "add the zero point, or pack with more bits")
