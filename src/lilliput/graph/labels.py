"""Channel labels: which elements of which tensors must be removed together.

Every removable slice of a tensor carries a label, an integer. A *field* is an integer array that broadcasts over
a tensor and holds the label of each element; a dimension along which the label does not change has size one.
Tying two labels says "remove both or neither", and tying to `PINNED` says "never remove". The connected
components of the ties are the units of structured pruning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.int64]
PINNED = 0


class Labels:
    """Labels and the ties between them."""

    def __init__(self) -> None:
        self.count = 1
        self._ties: list[tuple[Field, Field]] = []
        self._components: Field | None = None

    def fresh(self, shape: Sequence[int]) -> Field:
        """A new label for every element of `shape`."""
        size = int(np.prod(shape, dtype=np.int64))
        field = np.arange(self.count, self.count + size, dtype=np.int64).reshape(tuple(shape))
        self.count += size
        self._components = None
        return field

    def tie(self, a: Field, b: Field) -> None:
        """Tie elementwise, with broadcasting."""
        left, right = np.broadcast_arrays(a, b)
        differ = left != right
        if differ.any():
            self._ties.append((left[differ].ravel(), right[differ].ravel()))
            self._components = None

    def pin(self, field: Field) -> None:
        """Declare every element of the field unremovable."""
        self.tie(field, np.zeros((), dtype=np.int64))

    def tie_along(self, field: Field, axes: Sequence[int]) -> Field:
        """Tie all elements along `axes` and return the field with size one there."""
        for axis in axes:
            if field.shape[axis] > 1:
                first = field.take([0], axis=axis)
                self.tie(field, first)
                field = first
        return field

    def components(self) -> Field:
        """Component number of each label; the component of `PINNED` is always 0."""
        if self._components is None:
            from scipy.sparse import coo_array
            from scipy.sparse.csgraph import connected_components

            rows = np.concatenate([a for a, _ in self._ties]) if self._ties else np.empty(0, np.int64)
            cols = np.concatenate([b for _, b in self._ties]) if self._ties else np.empty(0, np.int64)
            graph = coo_array((np.ones(len(rows), np.int8), (rows, cols)), shape=(self.count, self.count))
            _, numbers = connected_components(graph, directed=False)
            numbers = numbers.astype(np.int64)
            if numbers[PINNED] != 0:
                pinned = numbers[PINNED]
                numbers = np.where(numbers == pinned, 0, np.where(numbers == 0, pinned, numbers))
            self._components = numbers
        return self._components


def varying(field: Field | None) -> tuple[int, ...]:
    """The dimensions along which a field changes."""
    return () if field is None else tuple(d for d, size in enumerate(field.shape) if size > 1)


def compress(field: Field | None) -> Field | None:
    """Shrink every constant dimension to size one; a field that is constant everywhere and pinned becomes None."""
    if field is None:
        return None
    for axis in varying(field):
        first = field.take([0], axis=axis)
        if np.array_equal(np.broadcast_to(first, field.shape), field):
            field = first
    return field if varying(field) or field.ravel()[0] != PINNED else None


def along(vector: Field, axis: int, ndim: int) -> Field:
    """A vector of labels laid along one dimension of an `ndim`-dimensional tensor."""
    shape = [1] * ndim
    shape[axis] = len(vector)
    return vector.reshape(shape)


def reshape(field: Field, before: Sequence[int], after: Sequence[int]) -> Field:
    """Carry a field through a row-major reshape of its tensor from `before` to `after`.

    The reshape is cut into the smallest independent runs of dimensions; runs along which the field is constant
    stay of size one.
    """
    expanded: list[int] = []
    target: list[int] = []
    for ins, outs in _runs(before, after):
        if any(field.shape[d] > 1 for d in ins):
            expanded += [before[d] for d in ins]
            target += [after[d] for d in outs]
        else:
            expanded += [1] * len(ins)
            target += [1] * len(outs)
    return np.broadcast_to(field, expanded).reshape(target)


def _runs(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        ins, outs = [], []
        left = right = 1
        if i < len(before):
            ins.append(i)
            left *= before[i]
            i += 1
        if j < len(after):
            outs.append(j)
            right *= after[j]
            j += 1
        while left != right:
            if left < right:
                ins.append(i)
                left *= before[i]
                i += 1
            else:
                outs.append(j)
                right *= after[j]
                j += 1
        runs.append((ins, outs))
    return runs
