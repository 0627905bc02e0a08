"""Entropy-constrained scalar quantization: integer codes of least distortion plus slope times rate, and their code tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lilliput.factorize.rate import entropy_bits, gamma_bits, symbols_bits, table_bits

Array = NDArray[np.float64]
Integers = NDArray[np.int32]
Labels = NDArray[np.int16]
# Added to every count before a code is made of them: what does not occur yet may be chosen in the next pass.
_UNSEEN = 0.3
_PASSES = 2
_SHIFT_BITS = 4
# Reconstruction points are moved towards zero by this share of a step, times a code.
SHIFT = 1 / 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """Integer codes in rows and columns, and the tables that an entropy coder needs.

    Entry `(i, j)` uses table `tables[rows[i] + columns[j]]`; `shifts`, one for each table, say how far reconstruction
    points lie nearer zero than the codes, in units of `SHIFT`.
    """

    codes: Integers
    rows: Labels
    columns: Labels
    tables: NDArray[np.int16]
    shifts: NDArray[np.int8]

    @property
    def classes(self) -> NDArray[np.int16]:
        """Which table each entry uses, of the shape of `codes`."""
        found: NDArray[np.int16] = self.tables[self.rows[:, None] + self.columns[None, :]]
        return found

    def values(self) -> Array:
        """Reconstruction points in steps: `sign(q) (|q| - shift)`."""
        inward = np.where(self.codes == 0, 0.0, self.shifts[self.classes] * SHIFT)
        out: Array = np.sign(self.codes) * (np.abs(self.codes) - inward)
        return out

    @property
    def bits(self) -> dict[str, float]:
        """Bits of the codes at their empirical entropy, of the tables, and of what says which table is used where."""
        low = int(self.codes.min(initial=0))
        width = int(self.codes.max(initial=0)) - low + 1
        index = self.classes.astype(np.int64) * width + self.codes - low
        counts = np.bincount(index.ravel(), minlength=len(self.shifts) * width).reshape(-1, width)
        # Supports are told from the least code on, which is told once.
        codes, tables = float(entropy_bits(counts).sum()), float((table_bits(counts) + _SHIFT_BITS).sum() + gamma_bits(2 * abs(low)))
        labels = symbols_bits(self.rows) + symbols_bits(self.columns) + len(self.tables)
        return {"codes": codes, "tables": tables, "labels": labels}


def entropy_coded(values: Array, importance: Array, slope: float) -> Codes:
    """Codes of `values`, `(rows, columns)` in steps, that minimise `sum w (value - code)^2 + slope * bits`.

    Rounding to nearest first; then, in turn, code tables from the codes, and codes from the tables: of the two neighbours
    and zero the one of least cost. Zero is cheap where most codes are zero, so that this makes the dead zone, as wide as the
    slope asks for.
    """
    found = _shortest(np.rint(values).astype(np.int32))
    for _ in range(_PASSES):
        codes = _chosen(values, importance, slope, found)
        found = _tabled(codes, found.rows, found.columns)
    return _shifted(found, values)


def _shortest(codes: Integers) -> Codes:
    """The shortest description among tables for rows and columns, rows alone, columns alone and all in one."""
    rows, columns = _labels(codes)
    none_r, none_c = np.zeros_like(rows), np.zeros_like(columns)
    found = [_tabled(codes, r, c) for r, c in ((none_r, none_c), (none_r, columns), (rows, none_c), (rows, columns))]
    return min(found, key=lambda c: sum(c.bits.values()))


def _shifted(found: Codes, values: Array) -> Codes:
    """The same codes with the shifts of least squared error."""
    classes, used = found.classes, found.codes != 0
    short = (np.abs(found.codes) - np.abs(values) * (np.sign(values) == np.sign(found.codes)))[used]
    count = np.bincount(classes[used], minlength=len(found.shifts))
    total = np.bincount(classes[used], weights=short, minlength=len(found.shifts))
    shifts = np.clip(np.rint(total / np.maximum(count, 1) / SHIFT), 0, 15).astype(np.int8)
    return Codes(codes=found.codes, rows=found.rows, columns=found.columns, tables=found.tables, shifts=shifts)


def _labels(codes: Integers) -> tuple[Labels, Labels]:
    """Logarithms (base two) of the mean power of rows and columns, as factors of one another, in whole numbers from zero."""
    power = codes.astype(np.float64) ** 2 + 1 / 64
    rows, columns = np.zeros(len(codes)), np.zeros(codes.shape[1])
    for _ in range(3):
        rows = np.log2((power * 2.0 ** -columns[None, :]).mean(1))
        columns = np.log2((power * 2.0 ** -rows[:, None]).mean(0))
    whole = [np.rint(part - part.min()).astype(np.int16) for part in (rows, columns)]
    return whole[0], whole[1]


def _tabled(codes: Integers, rows: Labels, columns: Labels) -> Codes:
    """A table for each sum of labels at first; neighbours are merged while that shortens codes and tables together."""
    sums = rows[:, None] + columns[None, :]
    low = int(codes.min(initial=0))
    width, count = int(codes.max(initial=0)) - low + 1, int(sums.max()) + 1
    histogram = np.bincount((sums.astype(np.int64) * width + codes - low).ravel(), minlength=count * width).reshape(count, width)
    parts, sizes = list(histogram), [1] * count
    alone, joined = _described(histogram), _described(histogram[:-1] + histogram[1:])
    while len(parts) > 1:
        gains = alone[:-1] + alone[1:] - joined
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            break
        parts[best:best + 2], sizes[best:best + 2] = [parts[best] + parts[best + 1]], [sizes[best] + sizes[best + 1]]
        alone = np.concatenate([alone[:best], joined[best:best + 1], alone[best + 2:]])
        near = parts[max(best - 1, 0): best + 2]
        again = _described(np.stack(near[:-1]) + np.stack(near[1:])) if len(near) > 1 else joined[:0]
        joined = np.concatenate([joined[:max(best - 1, 0)], again, joined[best + 2:]])
    tables = np.repeat(np.arange(len(parts)), sizes).astype(np.int16)
    return Codes(codes=codes, rows=rows, columns=columns, tables=tables, shifts=np.zeros(len(parts), np.int8))


def _described(counts: NDArray[np.int64]) -> Array:
    """Bits of codes with these counts, `(tables, symbols)`, and of their tables; none for a table that is not used."""
    return np.where(counts.any(-1), entropy_bits(counts) + table_bits(counts) + _SHIFT_BITS, 0.0)


def _chosen(values: Array, importance: Array, slope: float, found: Codes) -> Integers:
    low = min(int(found.codes.min(initial=0)), int(np.floor(values.min(initial=0)))) - 1
    high = max(int(found.codes.max(initial=0)), int(np.ceil(values.max(initial=0)))) + 1
    classes = found.classes
    width = high - low + 1
    index = classes.astype(np.int64) * width + found.codes - low
    counts = np.bincount(index.ravel(), minlength=len(found.shifts) * width).reshape(-1, width) + _UNSEEN
    lengths = np.log2(counts.sum(1, keepdims=True) / counts)
    best, chosen = np.full(values.shape, np.inf), np.zeros(values.shape, np.int32)
    floor = np.floor(values).astype(np.int32)
    for candidate in (np.zeros_like(floor), floor, floor + 1):
        cost = importance * (values - candidate) ** 2 + slope * lengths[classes, candidate - low]
        better = cost < best
        best, chosen = np.where(better, cost, best), np.where(better, candidate, chosen)
    return chosen.astype(np.int32)
