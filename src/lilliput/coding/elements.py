"""Types of tensor elements, as ONNX numbers and packs them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from lilliput.coding.coder import Bytes
from lilliput.core import CorruptFileError, PreconditionError
from lilliput.core.bits import pack, unpack


@dataclass(frozen=True)
class Element:
    """One type: ONNX's number and name, bits, NumPy's type; whole numbers below a byte are packed, the first in the lowest bits."""

    number: int
    name: str
    bits: int
    dtype: np.dtype

    @property
    def real(self) -> bool:
        """Whether it is a floating-point number of a sign, an exponent and a mantissa, in this order."""
        return self.name in {"float32", "float16", "bfloat16", "float64"}

    @property
    def signed(self) -> bool:
        """Whether it is a whole number in two's complement."""
        return self.name.startswith("int")

    def size(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor."""
        return (math.prod(shape) * self.bits + 7) // 8


def _element(number: int, name: str, bits: int, dtype: type[np.generic] | None = None) -> Element:
    return Element(number, name, bits, np.dtype(dtype or name))


ELEMENTS = {e.number: e for e in (
    _element(1, "float32", 32), _element(2, "uint8", 8), _element(3, "int8", 8), _element(4, "uint16", 16), _element(5, "int16", 16),
    _element(6, "int32", 32), _element(7, "int64", 64), _element(9, "bool", 8), _element(10, "float16", 16), _element(11, "float64", 64),
    _element(12, "uint32", 32), _element(13, "uint64", 64), _element(16, "bfloat16", 16, ml_dtypes.bfloat16),
    _element(17, "float8_e4m3fn", 8, ml_dtypes.float8_e4m3fn), _element(18, "float8_e4m3fnuz", 8, ml_dtypes.float8_e4m3fnuz),
    _element(19, "float8_e5m2", 8, ml_dtypes.float8_e5m2), _element(20, "float8_e5m2fnuz", 8, ml_dtypes.float8_e5m2fnuz),
    _element(21, "uint4", 4, ml_dtypes.uint4), _element(22, "int4", 4, ml_dtypes.int4),
    _element(25, "uint2", 2, ml_dtypes.uint2), _element(26, "int2", 2, ml_dtypes.int2))}
_BY_TYPE = {element.dtype: element for element in ELEMENTS.values()}


def element_of(array: NDArray[np.generic]) -> Element:
    """The type of an array's elements; raises `PreconditionError` for those that files do not hold."""
    found = _BY_TYPE.get(array.dtype.newbyteorder("="))
    if found is None:
        raise PreconditionError(f"files hold no {array.dtype}: cast to one of {', '.join(e.name for e in ELEMENTS.values())}")
    return found


def to_payload(array: NDArray[np.generic]) -> Bytes:
    """The bytes of an array, little-endian, in C order, whole numbers of less than a byte packed."""
    element = element_of(array)
    whole = np.ascontiguousarray(array)
    if element.bits < 8:
        return pack(whole.view(np.uint8).reshape(-1) & (2**element.bits - 1), element.bits)
    return whole.astype(element.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8)


def from_payload(payload: Bytes, element: Element, shape: Sequence[int]) -> NDArray[np.generic]:
    """The array of these bytes, not copied where that is possible."""
    if payload.size != element.size(shape):
        raise CorruptFileError(f"{payload.size} bytes are no {element.name} tensor of shape {tuple(shape)}")
    if element.bits < 8:
        codes = unpack(payload, element.bits, math.prod(shape))
        # ml_dtypes keeps a small signed number with its sign in the whole byte.
        wide = np.where(codes >> (element.bits - 1), codes | (256 - 2**element.bits), codes).astype(np.uint8) if element.signed else codes
        return wide.view(element.dtype).reshape(tuple(shape))
    return payload.view(element.dtype.newbyteorder("<")).reshape(tuple(shape))
