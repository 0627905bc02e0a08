"""Products of signs and of low-bit weights equal NumPy's 64-bit integers, on every instruction set of this machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput import _native
from lilliput.core.errors import PreconditionError
from lilliput.core.kernels import LARGEST_REDUCTION, LowWeights, gemm_binary, gemm_low, pack_weights
from lilliput.core.signs import Instructions, Signs, available, pack_signs

paths = pytest.mark.parametrize("path", available(), ids=lambda path: path.name)
sides = st.integers(0, 40) | st.sampled_from([1, 63, 64, 65])


def signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.choice(np.array([-1, 1], np.int64), shape)


def low(rng: np.random.Generator, bits: int, *shape: int) -> np.ndarray:
    return signs(rng, *shape) if bits == 1 else rng.integers(-2**(bits - 1), 2**(bits - 1), shape)


def octets(rng: np.random.Generator, dtype: type, *shape: int) -> np.ndarray:
    """Bytes with many at the ends of the range, where saturation would show."""
    ends = np.iinfo(dtype)
    extremes, others = rng.choice([ends.min, ends.max], shape), rng.integers(ends.min, ends.max + 1, shape)
    return np.where(rng.random(shape) < 0.5, extremes, others).astype(dtype)


def check_binary(m: int, n: int, k: int, path: Instructions, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    a, b = signs(rng, m, k), signs(rng, n, k)
    np.testing.assert_array_equal(gemm_binary(pack_signs(a), pack_signs(b), instructions=path), a @ b.T)


@paths
@settings(max_examples=60, deadline=None)
@given(m=sides, n=sides, k=st.integers(0, 300), seed=st.integers(0, 2**32 - 1))
def test_binary_products(path: Instructions, m: int, n: int, k: int, seed: int) -> None:
    check_binary(m, n, k, path, seed)


@paths
@pytest.mark.parametrize(("m", "n", "k"), [
    (40, 600, 1), (41, 513, 129), (300, 512, 640), (600, 255, 65), (257, 1000, 1000), (64, 1100, 64), (40, 70, 32640),
    (3, 5, 40000)])
def test_binary_products_with_bit_sliced_counters(path: Instructions, m: int, n: int, k: int) -> None:
    check_binary(m, n, k, path)


@paths
@pytest.mark.parametrize("k", [127, 128, 1024, 32640, 32641])
def test_counters_hold_their_extremes(path: Instructions, k: int) -> None:
    ones, mixed = np.ones((300, k)), np.concatenate([np.ones((40, k)), -np.ones((40, k))])
    found = gemm_binary(pack_signs(mixed), pack_signs(ones), instructions=path)
    np.testing.assert_array_equal(found, np.repeat([k, -k], 40)[:, None] * np.ones(300, np.int64))


@paths
def test_bits_beyond_the_columns_do_not_count(path: Instructions) -> None:
    rng = np.random.default_rng(1)
    a, b = pack_signs(signs(rng, 50, 70)), pack_signs(signs(rng, 300, 70))
    dirty = Signs(a.words | np.array([0, 2**64 - 2**6], np.uint64), 70)
    np.testing.assert_array_equal(gemm_binary(dirty, b, instructions=path), gemm_binary(a, b, instructions=path))


@paths
@settings(max_examples=60, deadline=None)
@given(m=sides, n=sides, k=st.integers(0, 600), bits=st.sampled_from([4, 2, 1]), dtype=st.sampled_from([np.int8, np.uint8]),
       seed=st.integers(0, 2**32 - 1))
def test_low_products(path: Instructions, m: int, n: int, k: int, bits: int, dtype: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, w = octets(rng, dtype, m, k), low(rng, bits, n, k)
    np.testing.assert_array_equal(gemm_low(a, pack_weights(w, bits), instructions=path), a.astype(np.int64) @ w.T)


@paths
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("dtype", "value", "weight"), [
    (np.uint8, 255, -8), (np.uint8, 255, 7), (np.int8, -128, -8), (np.int8, 127, -8)])
def test_the_longest_sum_fits(path: Instructions, rows: int, dtype: type, value: int, weight: int) -> None:
    a = np.full((rows, LARGEST_REDUCTION), value, dtype)
    found = gemm_low(a, pack_weights(np.full((1, LARGEST_REDUCTION), weight), 4), instructions=path)
    np.testing.assert_array_equal(found, np.full((rows, 1), LARGEST_REDUCTION * value * weight))


@paths
def test_ternary_weights_are_two_bits(path: Instructions) -> None:
    rng = np.random.default_rng(0)
    a, w = octets(rng, np.int8, 7, 100), rng.integers(-1, 2, (19, 100))
    packed = pack_weights(w, 2)
    assert packed.panels.size == _native.low_size(19, 100, 2) == 2 * 7 * 64
    np.testing.assert_array_equal(gemm_low(a, packed, instructions=path), a.astype(np.int64) @ w.T)


def test_panels_have_the_documented_layout() -> None:
    weights = np.arange(17 * 9).reshape(17, 9) % 16 - 8
    panels = pack_weights(weights, 4).panels.reshape(2, 2, 16, 4)  # panel, chunk of 8 columns, row, column modulo 4
    for row in range(17):
        for column in range(9):
            octet = int(panels[row // 16, column // 8, row % 16, column % 4])
            assert octet >> 4 * (column // 4 % 2) & 15 == weights[row, column] + 8
    assert not panels[1, :, 1:].any(), "rows beyond the last are zero"


def test_leading_axes_and_out() -> None:
    rng = np.random.default_rng(0)
    a, b, w = signs(rng, 2, 3, 20), signs(rng, 4, 20), rng.integers(-8, 8, (4, 20))
    octet, out = octets(rng, np.int8, 2, 3, 20), np.empty((2, 3, 4), np.int32)
    assert gemm_binary(pack_signs(a), pack_signs(b), out=out) is out
    np.testing.assert_array_equal(out, a @ b.T)
    assert gemm_low(octet, pack_weights(w, 4), out=out) is out
    np.testing.assert_array_equal(out, octet.astype(np.int64) @ w.T)
    for wrong in (np.empty((2, 3, 5), np.int32), np.empty((2, 3, 4), np.int64), np.empty((4, 3, 2), np.int32).T):
        with pytest.raises(PreconditionError, match="contiguous int32"):
            gemm_binary(pack_signs(a), pack_signs(b), out=wrong)


def test_bad_inputs_name_the_remedy() -> None:
    a, packed = pack_signs(np.ones((2, 20))), pack_weights(np.ones((4, 20), np.int8), 4)
    with pytest.raises(PreconditionError, match=r"\(N, K\)"):
        gemm_binary(a, pack_signs(np.ones((2, 21))))
    with pytest.raises(PreconditionError, match=r"\(\.\.\., 20\)"):
        gemm_low(np.ones((2, 21), np.int8), packed)
    with pytest.raises(PreconditionError, match="quantize"):
        gemm_low(np.ones((2, 20), np.int16), packed)
    for weights, bits in (([[8]], 4), ([[-9]], 4), ([[2]], 2), ([[0]], 1), ([[2]], 1)):
        with pytest.raises(PreconditionError, match="clip"):
            pack_weights(weights, bits)
    with pytest.raises(PreconditionError, match="4, 2 or 1"):
        pack_weights([[1]], 8)
    with pytest.raises(PreconditionError, match="integers"):
        pack_weights([[0.5]], 4)
    with pytest.raises(PreconditionError, match="split"):
        pack_weights(np.zeros((1, LARGEST_REDUCTION + 1), np.int8), 4)
    with pytest.raises(PreconditionError, match="bytes, not 63"):
        LowWeights(packed.panels[:63], 4, 20, 4)


def test_the_library_itself_checks_its_bounds() -> None:
    words, c, none = np.zeros(4, np.uint64), np.zeros(4, np.int32), np.zeros(0, np.uint8)
    assert _native.gemm_binary(0, words, words, (2, 2, 128), c, none) == _native.OK
    assert _native.gemm_binary(0, words, words, (2, 3, 128), c, none) == _native.TOO_SHORT
    assert _native.gemm_binary(0, words, words, (2, 2, 129), c, none) == _native.TOO_SHORT
    assert _native.gemm_binary(0, words, words, (2**63, 2, 128), c, none) == _native.TOO_SHORT
    assert _native.gemm_binary(0, words[:0], words[:0], (2**63, 4, 0), c, none) == _native.TOO_SHORT
    assert _native.gemm_binary(9, words, words, (2, 2, 128), c, none) == _native.BAD_PATH
    wide = np.zeros(64, np.uint64)
    assert _native.gemm_binary(0, wide, wide, (64, 64, 1), np.zeros(4096, np.int32), none) == _native.TOO_SHORT, "workspace"
    octet = np.zeros(64, np.uint8)
    work = np.zeros(_native.gemm_low_workspace(0, 2, 8), np.uint8)
    assert _native.gemm_low(0, octet[:16], False, (octet, 4), (2, 2, 8), c, work) == _native.OK
    assert _native.gemm_low(0, octet[:15], False, (octet, 4), (2, 2, 8), c, work) == _native.TOO_SHORT
    assert _native.gemm_low(0, octet[:16], False, (octet[:63], 4), (2, 2, 8), c, work) == _native.TOO_SHORT
    assert _native.gemm_low(0, octet[:16], False, (octet, 4), (2, 3, 8), c, work) == _native.TOO_SHORT
    assert _native.gemm_low(0, octet[:16], False, (octet, 4), (2, 2, 8), c, work[:-1]) == _native.TOO_SHORT
    assert _native.gemm_low(0, octet[:16], False, (octet, 3), (2, 2, 8), c, work) == _native.BAD_BITS
    assert _native.gemm_low(0, octet, False, (octet, 4), (1, 1, LARGEST_REDUCTION + 1), c, work) == _native.BAD_SHAPE
    assert _native.low_pack(octet, (2, 8), 4, octet[:63].copy()) == _native.TOO_SHORT
    assert _native.low_pack(octet[:7], (2, 8), 4, octet.copy()) == _native.TOO_SHORT
    assert _native.low_pack(octet, (2**62, 8), 4, octet.copy()) == _native.BAD_SHAPE
    assert _native.low_size(2**63, 2**20, 4) == 0
