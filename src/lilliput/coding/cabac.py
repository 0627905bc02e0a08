"""Context-adaptive binary arithmetic coding of integers, and rounding weights to the integers that it codes cheaply."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lilliput import _native
from lilliput.coding.coder import Bytes, checked
from lilliput.core import PreconditionError

Codes = NDArray[np.int32]
Weights = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Cabac:
    """Integers as flags of zero, sign and size, each coded by how often it was set in its context so far (wiedemann2019deepcabac).

    An integer `v` becomes `v != 0`, `v < 0`, `|v| > 1`, ..., `|v| > limit` and the Exp-Golomb code of what is left. A flag's probability is
    the mean of a fast and a slow estimate, `p <- p + (flag - p) / 2^s`, whose shifts `s` grow from 1 as the context is used.

    Departs from wiedemann2019deepcabac, which is H.264's coder with one estimate and a state table: two estimates, as in ISO/IEC
    15938-17; multiplication in place of tables; the two highest bits below the leading one of the Exp-Golomb code have contexts; and rates,
    limit, and which contexts look at neighbours are chosen for each matrix by trying. The format is specified in `csrc/coding/cabac.h`.

    >>> values = np.array([[0, 1, -1], [0, 2, -70000]], np.int32)
    >>> coded = np.frombuffer(Cabac().encode(values), np.uint8)
    >>> coded.size, Cabac().decode(coded, values.shape).tolist()
    (9, [[0, 1, -1], [0, 2, -70000]])
    """

    number: ClassVar[int] = 6

    def encode(self, values: Codes) -> bytes:
        """Code a matrix, `(rows, columns)`, a row for each output channel; raises `PreconditionError` for anything but 32-bit integers."""
        flat, shape = _matrix(values)
        status, parameters = _native.cabac_choose(flat, shape)
        _possible(status)
        status, size = _native.cabac_size(flat, shape, parameters)
        _possible(status)
        coded = np.empty(size, np.uint8)
        _possible(_native.cabac_encode(flat, shape, parameters, coded))
        return coded.tobytes()

    def decode(self, coded: Bytes, shape: tuple[int, int]) -> Codes:
        """The matrix of this shape; raises `CorruptFileError` when `coded` is not what `encode` made of one."""
        values = np.empty(math.prod(shape), np.int32)
        checked(_native.cabac_decode(coded, values, shape), "a matrix")
        return values.reshape(shape)


def rate_distortion_codes(weights: Weights, *, step: float, slope: float, importance: Weights | None = None) -> Codes:
    """Integers `q` for which `sum importance (w - step q)^2 + slope bits(q)` is small (wiedemann2019deepcabac).

    One after the other, each weight of the matrix takes the best of `round(w / step)`, one towards zero of that, and 0, where `bits` is
    what `Cabac` would take for it after the integers chosen so far; contexts learn as it goes. `importance` weighs squared errors (1
    where it is None; the inverse variance of the weights in the paper). Which contexts there are is chosen for the nearest integers.

    >>> weights = np.array([[0.6, -0.6, 2.1]], np.float32)
    >>> rate_distortion_codes(weights, step=1.0, slope=0.0).tolist(), rate_distortion_codes(weights, step=1.0, slope=0.2).tolist()
    ([[1, -1, 2]], [[0, 0, 2]])

    Raises `PreconditionError` for steps that are not positive, negative slopes, and weights beyond 2^31 steps.
    """
    if not (step > 0 and math.isfinite(step) and slope >= 0 and math.isfinite(slope)):
        raise PreconditionError(f"the step must be positive and the slope not negative, not {step} and {slope}")
    array = np.ascontiguousarray(weights, np.float32)
    if array.ndim != 2:
        raise PreconditionError(f"weights must be a matrix, not of shape {array.shape}: reshape them to (output channels, -1)")
    heavy = np.empty(0, np.float32) if importance is None else np.ascontiguousarray(importance, np.float32)
    if importance is not None and heavy.shape != array.shape:
        raise PreconditionError(f"the importance has shape {heavy.shape}, the weights {array.shape}")
    codes = np.empty(array.size, np.int32)
    nearest = (3, 0, 0, 1, 0)
    for weighted in (0.0, float(slope)):
        status = _native.cabac_quantize(array.reshape(-1), array.shape, (step, weighted, heavy.reshape(-1)), nearest, codes)
        if status != _native.OK:
            raise PreconditionError("a weight is not a number, or beyond 2^31 steps: make the step larger")
        if weighted < slope:
            nearest = tuple(_native.cabac_choose(codes, array.shape)[1])  # type: ignore[assignment]
    return codes.reshape(array.shape)


def _matrix(values: Codes) -> tuple[Codes, tuple[int, int]]:
    if values.dtype != np.int32 or values.ndim != 2:
        raise PreconditionError(f"CABAC codes matrices of int32, not {values.dtype} of shape {values.shape}: cast and reshape to (rows, -1)")
    rows, columns = values.shape
    return np.ascontiguousarray(values).reshape(-1), (rows, columns)


def _possible(status: int) -> None:
    assert status == _native.OK, status
