"""Sparse formats: exact both ways, the bits of the formulae, and sizes from counts alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.coding.occupancy import Measured, Uniform
from lilliput.coding.sparse import FORMATS, Bitmap, Coo, Coo1d, Csc, Csf, Csr, Field, RelativeIndex, RunLengths, Sparse, smallest
from lilliput.core import CorruptFileError, PreconditionError

# 3 x 5, four elements: (0, 1), (0, 4), (2, 0), (2, 3).
MATRIX = np.array([[0, 7, 0, 0, 8], [0, 0, 0, 0, 0], [9, 0, 0, 6, 0]], np.int8)
NAMES = [type(format).__name__ for format in FORMATS]


def packed(sparse):
    return sum(len(field.packed()) for field in sparse.fields)


@pytest.mark.parametrize(("format", "fields", "bits"), [
    (Coo(), [([0, 0, 2, 2], 2), ([1, 4, 0, 3], 3)], 4 * (2 + 3)),
    (Coo1d(), [([1, 4, 10, 13], 4)], 4 * 4),
    (RunLengths(), [([1, 2, 5, 2], 3)], 4 * 3),
    (Bitmap(), [([0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0], 1)], 15),
    (Csr(), [([1, 4, 0, 3], 3), ([0, 2, 2, 4], 3)], 4 * 3 + 4 * 3),
    (Csc(), [([2, 0, 2, 0], 2), ([0, 1, 2, 2, 3, 4], 3)], 4 * 2 + 6 * 3),
    (Csf(), [([0, 2], 2), ([0, 2, 4], 3), ([1, 4, 0, 3], 3)], 2 * 2 + 3 * 3 + 4 * 3),
    (RelativeIndex(width=2), [([1, 2, 3, 1, 2], 2)], 5 * 2),
], ids=NAMES)
def test_worked_examples(format, fields, bits):
    sparse = format.encode(MATRIX)
    assert [(field.numbers.tolist(), field.width) for field in sparse.fields] == fields
    assert sparse.bits == bits == format.bits(Measured(MATRIX))
    np.testing.assert_array_equal(format.decode(sparse), MATRIX)


def test_paddings_are_zeros():
    # Five zeros before the third element are more than three: a zero is told after three, one more is left.
    assert RelativeIndex(width=2).encode(MATRIX).elements.tolist() == [7, 8, 0, 9, 6]


def test_fields_are_packed_to_the_bit():
    assert Field(np.array([1, 4, 0, 3]), 3).packed() == (1 | 4 << 3 | 0 << 6 | 3 << 9).to_bytes(2, "little")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.sampled_from([0.0, 0.05, 0.3, 1.0]), st.integers(0, 2**32 - 1))
def test_round_trip_and_size_of_anything(shape, density, seed):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(shape) < density, rng.choice([-0.0, 1.5, np.nan, -2.0], shape), 0.0).astype(np.float32)
    for format in FORMATS:
        sparse = format.encode(values)
        back = format.decode(sparse)
        assert back.dtype == values.dtype
        assert back.tobytes() == values.tobytes()
        occupancy = Measured(values)
        assert sparse.bits == format.bits(occupancy)
        assert sparse.elements.size == format.elements(occupancy)
        assert packed(sparse) == sum(math.ceil(field.bits / 8) for field in sparse.fields)
        assert all(field.numbers.min(initial=0) >= 0 and field.numbers.max(initial=0) < 2**field.width for field in sparse.fields)


@pytest.mark.parametrize("format", FORMATS, ids=NAMES)
@pytest.mark.parametrize("density", [0.013, 0.2, 0.7])
def test_expected_sizes_are_the_average(format, density):
    shape, rng = (32, 12, 9), np.random.default_rng(0)
    sizes = [format.bits(Measured((rng.random(shape) < density).astype(np.int8))) for _ in range(60)]
    # Widths jump from one whole number to the next, so those that depend on the draw may be a bit off.
    loose = 0.2 if isinstance(format, RunLengths) else 0.03
    assert format.bits(Uniform(shape=shape, density=density)) == pytest.approx(np.mean(sizes), rel=loose)


def test_the_smallest_by_density():
    shape = (64, 64)
    found = [smallest(Uniform(shape=shape, density=d), 8)[0] for d in (0.0005, 0.5, 1.0)]
    assert isinstance(found[1], Bitmap)
    assert found[2] is None
    best, size = smallest(Measured(MATRIX), 8)
    assert size == min(format.bits(Measured(MATRIX)) + 8 * format.elements(Measured(MATRIX)) for format in FORMATS)
    assert best.encode(MATRIX).bits + 8 * best.encode(MATRIX).elements.size == size


@pytest.mark.parametrize("format", FORMATS, ids=NAMES)
def test_wrong_places_are_errors(format):
    sparse = format.encode(MATRIX)
    for number in range(len(sparse.fields)):
        field = sparse.fields[number]
        for wrong in (field.numbers + 15, field.numbers[:-1]):
            fields = (*sparse.fields[:number], Field(wrong, field.width), *sparse.fields[number + 1:])
            with pytest.raises(CorruptFileError):
                format.decode(Sparse(sparse.shape, fields, sparse.elements))


def test_wrong_settings():
    with pytest.raises(PreconditionError, match="scalar"):
        Coo().encode(np.array(3))
    with pytest.raises(PreconditionError, match="1 to 32"):
        RelativeIndex(width=0)
    with pytest.raises(PreconditionError, match="between 0 and 1"):
        Uniform(shape=(3,), density=1.5)
