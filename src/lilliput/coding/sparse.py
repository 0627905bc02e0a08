"""Sparse formats: what says where a tensor is not zero, to the bit; sizes come from counts, without encoding.

`bits` is what the places take; the elements follow, in C order, in as many bits each as they have. A tensor of more or fewer dimensions than two is a
matrix of its first one and all others to CSR and CSC. `d_i` are the sizes of dimensions, `NNZ` the elements that are not zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from lilliput.coding.occupancy import Indices, Measured, Occupancy
from lilliput.core import CorruptFileError, PreconditionError


@dataclass(frozen=True)
class Field:
    """Whole numbers of `width` bits each."""

    numbers: Indices
    width: int

    @property
    def bits(self) -> int:
        """Of all of them."""
        return self.width * self.numbers.size

    def packed(self) -> bytes:
        """The numbers one after the other, the lowest bit first."""
        bits = self.numbers[:, None] >> np.arange(self.width) & 1
        return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


@dataclass(frozen=True)
class Sparse:
    """A tensor in a sparse format: fields that say where, and the elements there (with zeros where a format pads)."""

    shape: tuple[int, ...]
    fields: tuple[Field, ...]
    elements: NDArray[Any]

    @property
    def bits(self) -> int:
        """What the fields take."""
        return sum(field.bits for field in self.fields)


class Format(Protocol):
    """One format. Decoding in a single step finds a place from its own field, in a double step through pointers."""

    @property
    def steps(self) -> int:
        """Look-ups until a place is known."""
        ...

    def bits(self, occupancy: Occupancy) -> float:
        """What the places take, padded elements' places included."""
        ...

    def elements(self, occupancy: Occupancy) -> float:
        """How many elements are stored."""
        ...

    def encode(self, values: NDArray[Any]) -> Sparse:
        """The tensor in this format."""
        ...

    def decode(self, sparse: Sparse) -> NDArray[Any]:
        """The tensor; raises `CorruptFileError` where places are outside of it."""
        ...


class _ByPlace:
    """What formats share that store the elements that are not zero and no others."""

    def elements(self, occupancy: Occupancy) -> float:
        """NNZ."""
        return occupancy.present


@dataclass(frozen=True)
class Coo(_ByPlace):
    """Coordinates: `NNZ sum_i ceil(log2 d_i)` bits."""

    steps: ClassVar[int] = 1

    def bits(self, occupancy: Occupancy) -> float:
        """By the formula."""
        return occupancy.present * sum(map(_width, occupancy.shape))

    def encode(self, values: NDArray[Any]) -> Sparse:
        """A field for each dimension."""
        places = Measured(values).places
        where = np.unravel_index(places, values.shape)
        fields = tuple(Field(index.astype(np.int64), _width(size)) for index, size in zip(where, values.shape, strict=True))
        return Sparse(values.shape, fields, values.reshape(-1)[places])

    def decode(self, sparse: Sparse) -> NDArray[Any]:
        """By coordinates."""
        places = np.zeros(sparse.elements.size, np.int64)
        for field, size in zip(sparse.fields, sparse.shape, strict=True):
            places = places * size + _as_many(_within(field.numbers, size), places.size)
        return _laid(sparse, places)


@dataclass(frozen=True)
class Coo1d(_ByPlace):
    """Places in C order: `NNZ ceil(log2 prod_i d_i)` bits."""

    steps: ClassVar[int] = 1

    def bits(self, occupancy: Occupancy) -> float:
        """By the formula."""
        return occupancy.present * _width(math.prod(occupancy.shape))

    def encode(self, values: NDArray[Any]) -> Sparse:
        """One field."""
        places = Measured(values).places
        return Sparse(values.shape, (Field(places, _width(values.size)),), values.reshape(-1)[places])

    def decode(self, sparse: Sparse) -> NDArray[Any]:
        """By places."""
        return _laid(sparse, sparse.fields[0].numbers)


@dataclass(frozen=True, kw_only=True)
class RunLengths(_ByPlace):
    """Zeros before each element: `NNZ B` bits, with `B` enough for the longest run."""

    steps: ClassVar[int] = 1

    def bits(self, occupancy: Occupancy) -> float:
        """By the formula."""
        return occupancy.present * _width(math.floor(occupancy.longest) + 1)

    def encode(self, values: NDArray[Any]) -> Sparse:
        """One field."""
        found = Measured(values)
        return Sparse(values.shape, (Field(found.runs, _width(int(found.longest) + 1)),), values.reshape(-1)[found.places])

    def decode(self, sparse: Sparse) -> NDArray[Any]:
        """By sums of runs."""
        return _laid(sparse, np.cumsum(sparse.fields[0].numbers + 1) - 1)


@dataclass(frozen=True, kw_only=True)
class RelativeIndex:
    """Zeros before each element in `width` bits, a zero being told where a run is longer: `(NNZ + paddings) width` bits. (han2016eie)"""

    width: int = 4
    steps: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 32:
            raise PreconditionError(f"an index has 1 to 32 bits, not {self.width}")

    def elements(self, occupancy: Occupancy) -> float:
        """Padding zeros are stored, too."""
        return occupancy.present + occupancy.paddings(2**self.width - 1)

    def bits(self, occupancy: Occupancy) -> float:
        """By the formula."""
        return self.elements(occupancy) * self.width

    def encode(self, values: NDArray[Any]) -> Sparse:
        """One field; elements with paddings."""
        found, most = Measured(values), 2**self.width - 1
        paddings = found.runs // (most + 1)
        last = np.cumsum(paddings + 1) - 1
        runs = np.full(int(paddings.sum()) + paddings.size, most, np.int64)
        elements = np.zeros(runs.size, values.dtype)
        runs[last], elements[last] = found.runs % (most + 1), values.reshape(-1)[found.places]
        return Sparse(values.shape, (Field(runs, self.width),), elements)

    def decode(self, sparse: Sparse) -> NDArray[Any]:
        """By sums of runs."""
        return _laid(sparse, np.cumsum(sparse.fields[0].numbers + 1) - 1)


@dataclass(frozen=True)
class Bitmap(_ByPlace):
    """A bit for every element: `prod_i d_i` bits."""

    steps: ClassVar[int] = 1

    def bits(self, occupancy: Occupancy) -> float:
        """By the formula."""
        return math.prod(occupancy.shape)

    def encode(self, values: NDArray[Any]) -> Sparse:
        """One field."""
        flags = Measured(values).flags.reshape(-1)
        return Sparse(values.shape, (Field(flags.astype(np.int64), 1),), values.reshape(-1)[flags])

    def decode(self, sparse: Sparse) -> NDArray[Any]:
        """By the bits."""
        return _laid(sparse, np.flatnonzero(_as_many(sparse.fields[0].numbers, math.prod(sparse.shape))))


@dataclass(frozen=True)
class Csr(_ByPlace):
    """Compressed rows: columns, and where each row begins: `NNZ ceil(log2 d_1) + (d_0 + 1) floor(log2 NNZ + 1)` bits."""

    steps: ClassVar[int] = 2

    def bits(self, occupancy: Occupancy) -> float:
        """By the formula."""
        rows, columns = _matrix(occupancy.shape)
        return occupancy.present * _width(columns) + (rows + 1) * _pointer(occupancy.present)

    def encode(self, values: NDArray[Any]) -> Sparse:
        """Columns, then pointers."""
        rows, columns = _matrix(values.shape)
        places = Measured(values).places
        return Sparse(values.shape, _compressed(places // max(columns, 1), places % max(columns, 1), rows, columns), values.reshape(-1)[places])

    def decode(self, sparse: Sparse) -> NDArray[Any]:
        """Row by row."""
        rows, columns = _matrix(sparse.shape)
        outer, inner = _expanded(sparse, rows, columns)
        return _laid(sparse, outer * columns + inner)


@dataclass(frozen=True)
class Csc(_ByPlace):
    """Compressed columns: rows, and where each column begins: `NNZ ceil(log2 d_0) + (d_1 + 1) floor(log2 NNZ + 1)` bits.

    The elements follow column by column.
    """

    steps: ClassVar[int] = 2

    def bits(self, occupancy: Occupancy) -> float:
        """By the formula."""
        rows, columns = _matrix(occupancy.shape)
        return occupancy.present * _width(rows) + (columns + 1) * _pointer(occupancy.present)

    def encode(self, values: NDArray[Any]) -> Sparse:
        """Rows, then pointers."""
        rows, columns = _matrix(values.shape)
        places = np.flatnonzero(Measured(values).flags.reshape(rows, columns).T)
        elements = values.reshape(rows, columns).T.reshape(-1)[places]
        return Sparse(values.shape, _compressed(places // max(rows, 1), places % max(rows, 1), columns, rows), elements)

    def decode(self, sparse: Sparse) -> NDArray[Any]:
        """Column by column."""
        rows, columns = _matrix(sparse.shape)
        outer, inner = _expanded(sparse, columns, rows)
        return _laid(sparse, inner * columns + outer)


@dataclass(frozen=True)
class Csf(_ByPlace):
    """Compressed sparse fibres, a tree of as many levels as there are dimensions (smith2015csf).

    Level `l` holds the last coordinate of each of the `n_l` different beginnings of length `l + 1`, and, but for the last level, where its
    children begin: `sum_l n_l ceil(log2 d_l) + sum_(l < last) (n_l + 1) floor(log2 n_(l+1) + 1)` bits. For a matrix this is CSR without its empty rows.
    """

    steps: ClassVar[int] = 2

    def bits(self, occupancy: Occupancy) -> float:
        """By the formula."""
        nodes = [occupancy.prefixes(length + 1) for length in range(len(occupancy.shape))]
        indices = sum(count * _width(size) for count, size in zip(nodes, occupancy.shape, strict=True))
        return indices + sum((count + 1) * _pointer(children) for count, children in pairwise(nodes))

    def encode(self, values: NDArray[Any]) -> Sparse:
        """Level by level, indices before pointers."""
        places, fields = Measured(values).places, list[Field]()
        levels = [np.unique(places // max(math.prod(values.shape[length:]), 1)) for length in range(1, values.ndim + 1)]
        for level, nodes in enumerate(levels):
            fields.append(Field(nodes % values.shape[level], _width(values.shape[level])))
            if level + 1 < values.ndim:
                children = levels[level + 1]
                begins = np.searchsorted(children // values.shape[level + 1], nodes)
                fields.append(Field(np.append(begins, children.size), _pointer(children.size)))
        return Sparse(values.shape, tuple(fields), values.reshape(-1)[places])

    def decode(self, sparse: Sparse) -> NDArray[Any]:
        """From the root down."""
        numbers = [field.numbers for field in sparse.fields]
        if len(numbers) != 2 * len(sparse.shape) - 1:
            raise CorruptFileError(f"a tree of {len(sparse.shape)} levels has {2 * len(sparse.shape) - 1} fields, not {len(numbers)}")
        places = _within(numbers[0], sparse.shape[0])
        for level in range(1, len(sparse.shape)):
            indices = _within(numbers[2 * level], sparse.shape[level])
            places = np.repeat(places, _counts(numbers[2 * level - 1], places.size, indices.size)) * sparse.shape[level] + indices
        return _laid(sparse, places)


FORMATS: tuple[Format, ...] = (Coo(), Coo1d(), RunLengths(), Bitmap(), Csr(), Csc(), Csf(), RelativeIndex())


def smallest(occupancy: Occupancy, bits: float, formats: Sequence[Format] = FORMATS) -> tuple[Format | None, float]:
    """The format of least total size for elements of `bits` bits each, and that size in bits; None where the dense tensor is smaller.

    >>> from lilliput.coding.occupancy import Uniform
    >>> [type(smallest(Uniform(shape=(256, 256), density=d), 8)[0]).__name__ for d in (0.05, 0.5, 0.95)]
    ['RunLengths', 'Bitmap', 'NoneType']
    """
    sizes = [format.bits(occupancy) + bits * format.elements(occupancy) for format in formats]
    best, dense = int(np.argmin(sizes)), bits * math.prod(occupancy.shape)
    return (formats[best], sizes[best]) if sizes[best] < dense else (None, dense)


def _width(size: int) -> int:
    """`ceil(log2 size)`: bits that tell one of `size` things."""
    return max(size - 1, 0).bit_length()


def _pointer(count: float) -> int:
    """`floor(log2 count + 1)`: bits of a number up to `count`."""
    return math.ceil(count).bit_length()


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _compressed(outer: Indices, inner: Indices, outers: int, inners: int) -> tuple[Field, Field]:
    begins = np.searchsorted(outer, np.arange(outers + 1))
    return Field(inner, _width(inners)), Field(begins, _pointer(outer.size))


def _expanded(sparse: Sparse, outers: int, inners: int) -> tuple[Indices, Indices]:
    inner = _within(sparse.fields[0].numbers, inners)
    return np.repeat(np.arange(outers), _counts(sparse.fields[1].numbers, outers, inner.size)), inner


def _counts(begins: Indices, parents: int, children: int) -> Indices:
    """How many children each parent has."""
    counts: Indices = np.diff(begins)
    if begins.size != parents + 1 or (begins.size and (begins[0] != 0 or begins[-1] != children)) or (counts < 0).any():
        raise CorruptFileError("pointers of a sparse tensor do not fit its indices")
    return counts


def _within(indices: Indices, size: int) -> Indices:
    if indices.size and int(indices.max()) >= size:
        raise CorruptFileError(f"an index of a sparse tensor is beyond its size, {size}")
    return indices


def _as_many(numbers: Indices, count: int) -> Indices:
    if numbers.size != count:
        raise CorruptFileError(f"a field of a sparse tensor has {numbers.size} numbers instead of {count}")
    return numbers


def _laid(sparse: Sparse, places: Indices) -> NDArray[Any]:
    """The elements at their places."""
    out = np.zeros(math.prod(sparse.shape), sparse.elements.dtype)
    if places.size != sparse.elements.size:
        raise CorruptFileError(f"a sparse tensor has {sparse.elements.size} elements at {places.size} places")
    out[_within(places, out.size)] = sparse.elements
    return out.reshape(sparse.shape)
