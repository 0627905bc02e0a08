"""Where the elements of a model's tensor lie in a buffer, as an array of positions: views cost nothing, and copies are found from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.operators import Buffer, Copy

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Placed:
    """A tensor of the model: its buffer, and `positions` in it, int64 in the model's shape.

    Transposing, reshaping, slicing and repeating are operations on `positions`.
    """

    buffer: Buffer
    positions: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The model's shape."""
        return tuple(self.positions.shape)

    @property
    def order(self) -> tuple[int, ...]:
        """Axes of the model from the slowest to the fastest in memory."""
        steps = [abs(int(np.take(self.positions, 1, k).flat[0] - self.positions.flat[0])) if n > 1 else -1 for k, n in enumerate(self.shape)]
        # An axis of one element stays where it was, before all others.
        return tuple(sorted(range(len(steps)), key=lambda k: (-steps[k] if steps[k] >= 0 else -(2**62), k)))


def in_order(shape: tuple[int, ...], order: tuple[int, ...]) -> Array:
    """Positions of a tensor that lies densely, its axes from slow to fast in `order`.

    >>> in_order((2, 3), (1, 0)).tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    size = int(np.prod(shape, dtype=np.int64))
    inverse = np.argsort(order)
    return np.arange(size).reshape([shape[k] for k in order]).transpose(inverse)


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of axes of `(N, C, ...)` with channels fastest."""
    return (0, *range(2, rank), 1)


def is_dense(positions: Array, size: int) -> bool:
    """Whether a sequence of positions is a whole buffer in order."""
    return positions.size == size and bool((positions.reshape(-1) == np.arange(size)).all())


def distinct(positions: Array) -> bool:
    """Whether no position comes twice."""
    return positions.size == 0 or int(np.bincount(positions.reshape(-1)).max()) == 1


def copies(source: int, positions: Array, targets: Array | None = None, table: Array | None = None) -> list[Copy]:
    """Copies that bring the elements at `positions` of input `source`, in order, to `targets`, rising: 0, 1, 2... unless given.

    The fewest that a greedy search finds: runs of equal steps, then runs of those.
    """
    flat = positions.reshape(-1)
    return _factored(source, np.stack([flat, np.arange(flat.size) if targets is None else targets], 1), table)


def _factored(source: int, pairs: Array, table: Array | None, rank: int = 5) -> list[Copy]:
    """Copies of pairs (from, to): one where they are nested runs, else one for each half."""
    dims: list[tuple[int, int, int]] = []
    bases = pairs
    while len(bases) > 1 and len(dims) < rank:
        steps = np.diff(bases, axis=0)
        same = (steps == steps[0]).all(1)
        run = len(bases) if same.all() else int(np.argmin(same)) + 1
        while run > 1 and not _runs(bases, run, steps[0]):
            run -= 1
        if run == 1:
            break
        dims.insert(0, (run, int(steps[0][0]), int(steps[0][1])))
        bases = bases[::run]
    if len(bases) > 1:
        half = len(pairs) // 2
        return _factored(source, pairs[:half], table, rank) + _factored(source, pairs[half:], table, rank)
    shape, strides_in, strides_out = zip(*(dims or [(1, 0, 0)]), strict=True)
    return [Copy(source=source, shape=shape, strides_in=strides_in, strides_out=strides_out, offset_in=int(bases[0][0]),
                 offset_out=int(bases[0][1]), table=table)]


def _runs(pairs: Array, run: int, step: Array) -> bool:
    """Whether all are runs of that length and step."""
    if len(pairs) % run:
        return False
    rows = pairs.reshape(-1, run, 2)
    return bool((rows == rows[:, :1] + np.arange(run)[:, None] * step).all())


def strides_of(positions: Array) -> tuple[tuple[int, ...], int] | None:
    """Stride of each axis and offset of the first element, where positions are linear in the index; else None."""
    if positions.size == 0:
        return None
    offset = int(positions.flat[0])
    strides = tuple(int(np.take(positions, 1, axis).flat[0]) - offset if n > 1 else 0 for axis, n in enumerate(positions.shape))
    rebuilt = offset + sum(np.arange(n).reshape([-1 if k == axis else 1 for k in range(positions.ndim)]) * s
                           for axis, (n, s) in enumerate(zip(positions.shape, strides, strict=True)))
    return (strides, offset) if bool((positions == rebuilt).all()) else None
