"""Transform coding of one weight: bases by what they save, steps by importance, codes at one slope of distortion over rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lilliput.factorize.bases import Basis, Cosine, Identity, principal, reflections, transformed
from lilliput.factorize.coded import Exponents, TransformCoded, total_bits
from lilliput.factorize.entropy import entropy_coded
from lilliput.factorize.sensitivity import Metric

Array = NDArray[np.float64]
Bases = tuple[Basis, Basis, Basis]
# -dD/dR of a uniform quantizer at high rate, in squared steps for each bit: D = step^2 / 12, R = h - log2 step.
_SLOPE = math.log(2) / 6
# Importance below this share of the largest counts as this share: a dead input needs no step of its own.
_LEAST = 2.0**-24
# Principal vectors of more outputs or inputs than this take longer to find than they are likely to save.
_WIDEST = 1024


@dataclass(frozen=True, kw_only=True)
class Transform:
    """The coder of transform quantization: decorrelate, then quantize so that every coefficient has the same slope.

    Kernel positions are coded in cosines or principal vectors, inputs and outputs in up to `vectors` principal vectors,
    each stored as reflections with eight-bit entries; of all these the bases that lower distortion plus slope times
    bits most, their own bits included, none at all among them. (young2021transform)

    Departs from the paper: its optimal transform (ELT) is a general invertible matrix that diagonalises weights and
    gradients jointly, here bases are orthonormal and follow the distortion, since what is decorrelated has to be stored;
    bit depths are what entropy coding makes of one slope (reverse water-filling), not whole numbers.
    """

    vectors: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    slopes: ClassVar[tuple[float, float]] = (-64.0, 2.0)

    def __call__(self, weight: Array, metric: Metric) -> TransformSource:
        """A weight `(out, in / groups, *kernel)`, ready to be coded at any slope."""
        return TransformSource(weight, metric, self.vectors)


class TransformSource:
    """One weight, and the bases it is coded in."""

    def __init__(self, weight: Array, metric: Metric, vectors: tuple[int, ...]) -> None:
        self.shape, self.metric, self._vectors = weight.shape, metric, vectors
        self._weight = weight.reshape(*weight.shape[:2], -1)
        kernel: Basis = Cosine(self.shape[2:]) if self._weight.shape[2] > 1 else Identity(1)
        self._view = _View(self._weight, metric, (Identity(self.shape[0]), Identity(self.shape[1]), kernel))

    def coded(self, strength: float) -> TransformCoded:
        """The weight at the slope `2^strength`, distortion for each bit."""
        ways = self._view.ways
        return self._view.coded(2.0**strength, ways[0], self.shape) if len(ways) == 1 else self._best(self._view, 2.0**strength, ways)[1]

    def settle_(self, strength: float) -> None:
        """Choose the bases anew, for slopes near this one: kernel positions, then inputs, then outputs; last the way to round."""
        slope, best = 2.0**strength, self._view
        least = self._best(best, slope, best.ways)[0]
        for axis in (2, 1, 0):
            misses = 0
            for basis in self._offers(axis, best.bases):
                bases = (*best.bases[:axis], basis, *best.bases[axis + 1:])
                view = _View(self._weight, self.metric, bases)  # type: ignore[arg-type]
                cost = self._best(view, slope, view.ways)[0]
                if cost < least:
                    best, least, misses = view, cost, 0
                else:
                    misses += 1
                # Ever more vectors that do not pay will not pay when there are more of them.
                if misses > 1 and axis < 2:
                    break
        nearest = [replace(way, pull=0.0) for way in best.ways]
        best.ways = [self._best(best, slope, [*best.ways, *nearest])[2]]
        self._view = best

    def _best(self, view: _View, slope: float, ways: Sequence[_Way]) -> tuple[float, TransformCoded, _Way]:
        """Distortion plus slope times bits of the best way, the codes, and the way."""
        found: list[tuple[float, TransformCoded, _Way]] = []
        for way in ways:
            coded = view.coded(slope, way, self.shape)
            error = coded.decode().astype(np.float64).reshape(len(self._weight), -1) - self._weight.reshape(len(self._weight), -1)
            found.append((self.metric(error) + slope * total_bits(coded), coded, way))
        return min(found, key=lambda triple: triple[0])

    def _offers(self, axis: int, bases: Bases) -> Iterator[Basis]:
        """Bases to try for one of outputs, inputs and kernel positions, the others being as they are."""
        size = self._weight.shape[axis]
        if size == 1 or (axis < 2 and (len(self.metric.moments) > 1 or size > _WIDEST)):
            return
        yield Identity(size)
        if axis == 2:
            yield Cosine(self.shape[2:])
        vectors = principal(self._moment(axis, bases))
        most = size - 1 if axis == 2 else max(self._vectors, default=0)
        for count in sorted({*self._vectors, size - 1}):
            if count < size and count <= most:
                yield reflections(vectors[:, :count])

    def _moment(self, axis: int, bases: Bases) -> Array:
        """What to take principal vectors of, along outputs, inputs or kernel positions: `H^(1/2) C H^(1/2)`.

        `C` are the second moments of the weight along the axis, `H` those of what the distortion weighs it with: where one of
        them is white the vectors diagonalise the other.
        """
        out, inside, places = self._weight.shape
        moments = self.metric.moments.mean(0).reshape(inside, places, inside, places)
        if axis == 0:
            flat = self._weight.reshape(out, -1)
            own, weight = flat @ moments.reshape(inside * places, -1) @ flat.T, np.diag(self.metric.rows)
        elif axis == 2:
            own, weight = np.einsum("ris,rit->st", self._weight, self._weight), np.einsum("abac->bc", moments)
        else:
            basis = bases[2].matrix()
            turned = self._weight @ basis
            own = np.einsum("ris,rjs->ij", turned, turned)
            weight = np.einsum("abcd,bs,ds->ac", moments, basis, basis, optimize=True)
        power, vectors = np.linalg.eigh(weight)
        root = (vectors * np.sqrt(power.clip(min=0))) @ vectors.T
        return np.asarray(root @ own @ root)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Way:
    """How coefficients are rounded: the step at the slope one, exponents that raise it, and how hard rates pull on codes.

    With a `pull` of zero codes are the nearest: the dead zone leaves errors that point the same way, which inputs of one sign
    add up, and no importance of single coefficients tells.
    """

    scale: float
    rows: Exponents
    columns: Exponents
    pull: float = 1.0


class _View:
    """A weight in given bases: coefficients, and how much each of them matters."""

    def __init__(self, weight: Array, metric: Metric, bases: Bases) -> None:
        self.bases = bases
        self._coefficients = transformed(weight, bases).reshape(len(weight), -1)
        importance = _importance(weight.shape, metric, bases)
        self._importance = np.maximum(importance, max(float(importance.max()), 1e-300) * _LEAST)
        self.ways = list(self._ways())

    def coded(self, slope: float, way: _Way, shape: tuple[int, ...]) -> TransformCoded:
        """Codes at this slope."""
        step = float(np.float32(min(max(math.sqrt(slope / _SLOPE) * way.scale, 1e-30), 1e30)))
        steps = step * 2.0 ** ((way.rows.astype(np.float64)[:, None] + way.columns[None, :]) / 2)
        codes = entropy_coded(self._coefficients / steps, self._importance * steps**2 * (_SLOPE / slope), _SLOPE * way.pull)
        return TransformCoded(shape=shape, bases=self.bases, step=step, row_steps=way.rows, column_steps=way.columns, codes=codes)

    def _ways(self) -> Iterator[_Way]:
        """One step for all, and steps that follow the importance."""
        rows, columns = self._importance.shape
        yield _Way(scale=float(self._importance.mean()) ** -0.5, rows=np.zeros(rows, np.int8), columns=np.zeros(columns, np.int8))
        wanted = -np.log2(self._importance)
        middle = float(np.median(wanted))
        by_row = np.rint(np.median(wanted - middle, axis=1)).clip(-60, 60)
        by_column = np.rint(np.median(wanted - middle - by_row[:, None], axis=0)).clip(-60, 60)
        if by_row.any() or by_column.any():
            yield _Way(scale=2.0 ** (middle / 2), rows=by_row.astype(np.int8), columns=by_column.astype(np.int8))


def _importance(shape: tuple[int, ...], metric: Metric, bases: Bases) -> Array:
    """The distortion's second derivative along every coefficient, halved: `(out, in * kernel)`."""
    inside, places = shape[1:]
    kernel = bases[2].matrix()
    parts = []
    for moment in metric.moments:
        by_place = np.einsum("abcd,bs,ds->sac", moment.reshape(inside, places, inside, places), kernel, kernel, optimize=True)
        turned = bases[1].coefficients(bases[1].coefficients(by_place).swapaxes(1, 2))
        parts.append(np.einsum("saa->as", turned).ravel())
    rows = metric.rows if isinstance(bases[0], Identity) else bases[0].coefficients(bases[0].coefficients(np.diag(metric.rows)).T).diagonal()
    return np.asarray(rows[:, None] * np.repeat(np.stack(parts), shape[0] // len(parts), axis=0))
