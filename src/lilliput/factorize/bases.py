"""Orthonormal bases that a decoder can rebuild: none, cosines, and reflections with integer codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lilliput.core.cosine import cosine
from lilliput.factorize.rate import gamma_bits

Array = NDArray[np.float64]
_REACH = 127


class Basis(Protocol):
    """An orthonormal matrix, and what it costs to store."""

    @property
    def bits(self) -> float:
        """Bits of side information."""
        ...

    def matrix(self) -> Array:
        """`(n, n)`; basis vectors are columns."""
        ...

    def coefficients(self, values: Array) -> Array:
        """`values @ matrix()`, `(..., n)`."""
        ...

    def values(self, coefficients: Array) -> Array:
        """`coefficients @ matrix()'`, which undoes it."""
        ...


@dataclass(frozen=True)
class Identity:
    """No change of basis."""

    size: int
    bits: float = 0.0

    def matrix(self) -> Array:
        """Ones on the diagonal."""
        return np.eye(self.size)

    def coefficients(self, values: Array) -> Array:
        """The values themselves."""
        return values

    def values(self, coefficients: Array) -> Array:
        """The coefficients themselves."""
        return coefficients


@dataclass(frozen=True)
class Cosine:
    """The separable discrete cosine transform, type II, of a kernel of these sides; it costs nothing to store."""

    sides: tuple[int, ...]
    bits: float = 0.0

    def matrix(self) -> Array:
        """Positions in rows, frequencies in columns."""
        return cosine(self.sides)

    def coefficients(self, values: Array) -> Array:
        """Cosines, from the constant to the fastest."""
        return np.asarray(values @ self.matrix())

    def values(self, coefficients: Array) -> Array:
        """Their sum."""
        return np.asarray(coefficients @ self.matrix().T)


@dataclass(frozen=True, eq=False)
class Reflections:
    """A product of Householder reflections `I - 2 v v' / v'v`, the `i`-th on the coordinates from `i` on.

    Orthonormal whatever the codes are, since `v` is normalised when it is decoded. `n - 1` of them make any basis, as many
    numbers as an orthonormal matrix has freedoms; `k` of them set the first `k` vectors alone, and complete them somehow.
    """

    size: int
    codes: tuple[NDArray[np.int8], ...]

    @property
    def bits(self) -> float:
        """Eight for each entry of each vector, and how many there are."""
        return 8.0 * sum(len(v) for v in self.codes) + float(gamma_bits(len(self.codes)))

    def matrix(self) -> Array:
        """The product, the first reflection leftmost."""
        return self.coefficients(np.eye(self.size))

    def coefficients(self, values: Array) -> Array:
        """One reflection after the other."""
        out = values.copy()
        for i, code in enumerate(self.codes):
            out[..., i:] = _reflected(out[..., i:], code)
        return out

    def values(self, coefficients: Array) -> Array:
        """The same backwards: a reflection undoes itself."""
        out = coefficients.copy()
        for i in reversed(range(len(self.codes))):
            out[..., i:] = _reflected(out[..., i:], self.codes[i])
        return out


def _reflected(values: Array, code: NDArray[np.int8]) -> Array:
    v = code.astype(np.float64)
    return np.asarray(values - (values @ v)[..., None] * (2.0 / (v @ v) * v))


def reflections(vectors: Array) -> Reflections:
    """The reflections that make the orthonormal columns `vectors`, `(n, k)`, the first vectors of a basis, up to sign.

    Householder's QR with every vector rounded to eight bits before the next is found, so that later ones mend what rounding
    did to earlier ones.
    """
    n, k = vectors.shape
    rest, codes = vectors.T.copy(), []
    for i in range(min(k, n - 1)):
        v = rest[i, i:].copy()
        v[0] += np.copysign(np.linalg.norm(v), v[0])
        code = np.rint(v / np.abs(v).max() * _REACH).astype(np.int8)
        rest[:, i:] = _reflected(rest[:, i:], code)
        codes.append(code)
    return Reflections(n, tuple(codes))


def principal(moment: Array) -> Array:
    """The eigenvectors of a symmetric matrix as columns, those with the largest eigenvalues first."""
    return np.linalg.eigh(moment)[1][:, ::-1].copy()


def transformed(values: Array, bases: Sequence[Basis]) -> Array:
    """Coefficients of a tensor with one basis for each of its dimensions."""
    for axis, basis in enumerate(bases):
        values = np.moveaxis(basis.coefficients(np.moveaxis(values, axis, -1)), -1, axis)
    return values


def restored(values: Array, bases: Sequence[Basis]) -> Array:
    """The tensor of these coefficients; undoes `transformed`."""
    for axis, basis in enumerate(bases):
        values = np.moveaxis(basis.values(np.moveaxis(values, axis, -1)), -1, axis)
    return values
