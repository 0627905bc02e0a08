"""Packed codes against a NumPy reference, and every way in which a buffer can be wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lilliput import _native
from lilliput.core.bits import WIDTHS, pack, packed_size, unpack
from lilliput.core.errors import CorruptFileError, PreconditionError

widths = st.sampled_from(WIDTHS)


def reference(codes: np.ndarray, bits: int) -> np.ndarray:
    """Write out every code's bits, least significant first, and let NumPy pack them."""
    spread = (codes[:, None] >> np.arange(bits)) & 1
    return np.packbits(spread.astype(np.uint8).reshape(-1), bitorder="little")


@st.composite
def coded(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    bits = draw(widths)
    codes = draw(hnp.arrays(np.uint8, st.integers(0, 300), elements=st.integers(0, 2**bits - 1)))
    return codes, bits


@given(coded())
def test_layout_is_the_documented_one(case: tuple[np.ndarray, int]) -> None:
    codes, bits = case
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.size == packed_size(codes.size, bits)
    np.testing.assert_array_equal(packed, reference(codes, bits))


@given(coded())
def test_unpack_inverts_pack(case: tuple[np.ndarray, int]) -> None:
    codes, bits = case
    np.testing.assert_array_equal(unpack(pack(codes, bits), bits, codes.size), codes)


@given(hnp.arrays(np.uint8, st.integers(0, 40)), widths)
def test_pack_inverts_unpack_for_any_bytes(packed: np.ndarray, bits: int) -> None:
    np.testing.assert_array_equal(pack(unpack(packed, bits, packed.size * 8 // bits), bits), packed)


@given(hnp.arrays(np.uint8, st.integers(0, 20)), widths, st.integers(0, 200))
def test_short_buffers_are_refused_and_long_ones_read_in_part(packed: np.ndarray, bits: int, count: int) -> None:
    if packed.size * 8 < count * bits:
        with pytest.raises(CorruptFileError, match="truncated"):
            unpack(packed, bits, count)
    else:
        whole = unpack(packed, bits, packed.size * 8 // bits)
        np.testing.assert_array_equal(unpack(packed, bits, count), whole[:count])


@given(hnp.arrays(np.uint8, st.integers(1, 50), elements=st.integers(0, 1)), widths, st.data())
def test_codes_out_of_range_are_refused_wherever_they_stand(codes: np.ndarray, bits: int, data: st.DataObject) -> None:
    codes[data.draw(st.integers(0, codes.size - 1))] = data.draw(st.integers(2**bits, 255))
    with pytest.raises(PreconditionError, match=f"{bits} bits"):
        pack(codes, bits)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64, np.uint16])
def test_other_integer_types_and_shapes(dtype: type) -> None:
    codes = np.arange(12, dtype=dtype).reshape(3, 4)
    np.testing.assert_array_equal(pack(codes, 4), reference(codes.reshape(-1).astype(np.uint8), 4))
    np.testing.assert_array_equal(pack(codes[:, ::2], 4), reference(codes[:, ::2].reshape(-1).astype(np.uint8), 4))


@pytest.mark.parametrize("codes", [[-1], [256], [2**40], [1.5], ["a"]])
def test_what_is_no_code_is_refused(codes: list[object]) -> None:
    with pytest.raises(PreconditionError):
        pack(codes, 4)


@pytest.mark.parametrize("bits", [-1, 0, 3, 5, 8, 64])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(PreconditionError, match="1, 2 or 4"):
        pack([0], bits)
    with pytest.raises(PreconditionError, match="1, 2 or 4"):
        unpack([0], bits, 1)


def test_wrong_counts_and_elements_are_refused() -> None:
    with pytest.raises(PreconditionError, match="negative"):
        unpack([0], 4, -1)
    with pytest.raises(PreconditionError, match="bytes"):
        unpack([300], 4, 1)
    with pytest.raises(CorruptFileError):
        unpack([], 1, 2**62)


def test_the_library_itself_checks_its_bounds() -> None:
    codes, short = np.zeros(9, np.uint8), np.zeros(1, np.uint8)
    assert _native.pack(codes, 1, short) == _native.TOO_SHORT
    assert _native.unpack(short, 1, codes) == _native.TOO_SHORT
    assert _native.pack(codes, 3, short) == _native.BAD_BITS
    assert _native.pack(np.full(1, 2, np.uint8), 1, short) == _native.BAD_CODE
    assert _native.packed_size(2**64 - 1, 4) == 2**63
    assert _native.packed_size(10, 7) == 0
