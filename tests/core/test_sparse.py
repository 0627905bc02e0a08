"""Products with sparse weights equal the dense ones, to the same bits on every instruction set of this machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput import _native
from lilliput.core.errors import DataError, PreconditionError
from lilliput.core.signs import Instructions, available
from lilliput.core.sparse import LARGEST_BYTES, SparseWeights, gemm_sparse, pack_sparse

paths = pytest.mark.parametrize("path", available(), ids=lambda path: path.name)


def blocks(rng: np.random.Generator, n: int, k: int, rows: int = 16, columns: int = 4, density: float = 0.3) -> np.ndarray:
    kept = rng.random((-(-n // rows), -(-k // columns))) < density
    return (rng.standard_normal((n, k)) * np.kron(kept, np.ones((rows, columns)))[:n, :k]).astype(np.float32)


@paths
@settings(max_examples=60, deadline=None)
@given(m=st.integers(0, 40), n=st.integers(0, 70), k=st.integers(0, 90), columns=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_whole_numbers_are_exact(path: Instructions, m: int, n: int, k: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, w = rng.integers(-99, 100, (m, k)).astype(np.float32), np.rint(30 * blocks(rng, n, k, columns=columns))
    packed = pack_sparse(w)
    np.testing.assert_array_equal(packed.unpack(), w)
    np.testing.assert_array_equal(gemm_sparse(a, packed, instructions=path), a.astype(np.int64) @ w.T.astype(np.int64))


@paths
@settings(max_examples=60, deadline=None)
@given(m=st.integers(0, 40), n=st.integers(0, 70), k=st.integers(0, 90), columns=st.integers(1, 20), signed=st.booleans(),
       seed=st.integers(0, 2**32 - 1))
def test_bytes_are_exact(path: Instructions, m: int, n: int, k: int, columns: int, signed: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends = np.iinfo(np.int8 if signed else np.uint8)
    a = np.where(rng.random((m, k)) < 0.5, rng.choice([ends.min, ends.max], (m, k)), rng.integers(ends.min, ends.max + 1, (m, k)))
    w = ((blocks(rng, n, k, columns=columns) != 0) * rng.choice([-128, -1, 1, 127, 60], (n, k))).astype(np.int8)
    packed = pack_sparse(w)
    np.testing.assert_array_equal(packed.unpack(), w)
    assert packed.unpack().dtype == np.int8
    np.testing.assert_array_equal(gemm_sparse(a.astype(ends.dtype), packed, instructions=path), a @ w.T.astype(np.int64))


@paths
@pytest.mark.parametrize(("dtype", "value", "weight"), [(np.uint8, 255, -128), (np.uint8, 255, 127), (np.int8, -128, -128), (np.int8, 127, -128)])
def test_the_longest_sum_of_bytes_fits(path: Instructions, dtype: type, value: int, weight: int) -> None:
    packed = pack_sparse(np.full((1, LARGEST_BYTES), weight, np.int8))
    for m in (1, 5):
        found = gemm_sparse(np.full((m, LARGEST_BYTES), value, dtype), packed, instructions=path)
        np.testing.assert_array_equal(found, np.full((m, 1), LARGEST_BYTES * value * weight))


@paths
@pytest.mark.parametrize("m", [1, 2, 6, 23])
def test_real_numbers_are_near_and_the_same_on_every_path(path: Instructions, m: int) -> None:
    rng = np.random.default_rng(m)
    a, w = rng.standard_normal((m, 300)).astype(np.float32), blocks(rng, 100, 300)
    found = gemm_sparse(a, pack_sparse(w), instructions=path)
    wide = a.astype(np.float64) @ w.T.astype(np.float64)
    np.testing.assert_allclose(found, wide, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found, gemm_sparse(a, pack_sparse(w), instructions=Instructions.PORTABLE))
    # A row's sums are its own, however many rows there are.
    np.testing.assert_array_equal(found[:1], gemm_sparse(a[:1], pack_sparse(w), instructions=path))


@paths
def test_terms_are_added_in_order_by_fused_multiply_add(path: Instructions) -> None:
    # 2^24 + 1 is no float: added first to last, every one is lost; the products' own low bits are not.
    a = np.array([[1, 1, 1, 1 + 2**-12]], np.float32)
    w = np.array([[2**24, 1, 1, 0], [-1, 0, 0, 0], [-1 - 2**-11, 0, 0, 1 + 2**-12]], np.float32)
    found = gemm_sparse(a, pack_sparse(w), instructions=path)
    np.testing.assert_array_equal(found, np.array([[2**24, -1, 2**-24]], np.float32))


def test_what_is_stored_are_columns_of_sixteen_rows() -> None:
    w = np.zeros((20, 5), np.float32)
    w[3, 1], w[15, 4], w[16, 1], w[19, 1] = 7, 8, 9, 10
    packed = pack_sparse(w)
    assert packed.starts.tolist() == [0, 2, 3]
    assert packed.columns.tolist() == [1, 4, 1]
    assert [np.flatnonzero(row).tolist() for row in packed.values] == [[3], [15], [0, 3]]
    assert packed.density == 3 * 16 / 100


def test_bytes_are_stored_by_four_columns() -> None:
    w = np.zeros((20, 6), np.int8)
    w[3, 1], w[19, 5] = 7, -9
    packed = pack_sparse(w)
    assert packed.starts.tolist() == [0, 1, 2]
    assert packed.columns.tolist() == [0, 1]
    assert packed.values.shape == (2, 16, 4)
    assert packed.values[0, 3].tolist() == [0, 7, 0, 0]
    assert packed.values[1, 3].tolist() == [0, -9, 0, 0]


def test_zeros_that_are_not_stored_meet_no_infinities() -> None:
    w = np.zeros((16, 3), np.float32)
    w[:, 0] = 2
    a = np.array([[1, np.inf, np.nan]], np.float32)
    np.testing.assert_array_equal(gemm_sparse(a, pack_sparse(w)), np.full((1, 16), 2, np.float32))


def test_leading_axes_out_and_strides() -> None:
    rng = np.random.default_rng(0)
    a, w, out = rng.standard_normal((2, 3, 40)).astype(np.float32), blocks(rng, 20, 40), np.empty((2, 3, 20), np.float32)
    assert gemm_sparse(a, pack_sparse(w), out=out) is out
    np.testing.assert_array_equal(out[1, 2], gemm_sparse(a[1, 2], pack_sparse(w)))
    np.testing.assert_array_equal(gemm_sparse(a[:, ::2], pack_sparse(w)), out[:, ::2])


@settings(max_examples=80, deadline=None)
@given(data=st.data(), rows=st.integers(-1, 40), inputs=st.integers(-1, 9))
def test_any_indices_are_taken_or_refused(data: st.DataObject, rows: int, inputs: int) -> None:
    columns = np.array(data.draw(st.lists(st.integers(0, 10) | st.just(2**32 - 1), max_size=5)), np.uint32)
    starts = np.array(data.draw(st.lists(st.integers(0, 6) | st.just(2**64 - 1), max_size=5)), np.uint64)
    try:
        packed = SparseWeights(np.ones((columns.size, 16), np.float32), columns, starts, rows, inputs)
    except PreconditionError as error:
        assert "pack_sparse" in str(error)  # noqa: PT017
    else:
        a = np.ones((3, inputs), np.float32)
        np.testing.assert_allclose(gemm_sparse(a, packed).sum(), np.ones((3, inputs)) @ np.zeros((inputs, rows)) if rows == 0 else
                                   3 * sum(min(16, rows - 16 * p) * int(starts[p + 1] - starts[p]) for p in range(starts.size - 1)))


def test_bad_inputs_name_the_remedy() -> None:
    packed = pack_sparse(np.ones((4, 20)))
    for a in (np.ones((2, 21), np.float32), np.ones((2, 20)), np.float32(1)):
        with pytest.raises(PreconditionError, match=r"float32 \(\.\.\., 20\)"):
            gemm_sparse(np.asarray(a), packed)
    with pytest.raises(PreconditionError, match="contiguous float32"):
        gemm_sparse(np.ones((2, 20), np.float32), packed, out=np.empty((2, 4)))
    with pytest.raises(PreconditionError, match="reshape"):
        pack_sparse(np.ones(3))
    with pytest.raises(DataError, match="real"):
        pack_sparse(np.ones((1, 1), complex))
    with pytest.raises(PreconditionError, match="pack_sparse"):
        SparseWeights(packed.values[:, :8], packed.columns, packed.starts, 4, 20)
    octets = pack_sparse(np.ones((4, 20), np.int8))
    with pytest.raises(PreconditionError, match=r"bytes \(\.\.\., 20\)"):
        gemm_sparse(np.ones((2, 21), np.int8), octets)
    with pytest.raises(PreconditionError, match="quantize"):
        gemm_sparse(np.ones((2, 20), np.float32), octets)
    with pytest.raises(PreconditionError, match="contiguous int32"):
        gemm_sparse(np.ones((2, 20), np.int8), octets, out=np.empty((2, 4), np.float32))
    with pytest.raises(PreconditionError, match="split"):
        pack_sparse(np.zeros((1, LARGEST_BYTES + 1), np.int8))
    with pytest.raises(PreconditionError, match="leave 4 x 16"):
        SparseWeights(octets.values, octets.columns, octets.starts, 4, 16)


@paths
def test_the_library_itself_checks_its_bounds(path: Instructions) -> None:
    values, columns, starts = np.ones(32, np.float32), np.array([0, 3], np.uint32), np.array([0, 1, 2], np.uint64)
    a, c, work = np.ones(8, np.float32), np.empty(40, np.float32), np.empty(4096, np.uint8)

    def status(*, n: int = 20, k: int = 4, m: int = 2, a: np.ndarray = a, c: np.ndarray = c, work: np.ndarray = work,
               weights: tuple[np.ndarray, ...] = (values, columns, starts)) -> int:
        return _native.gemm_sparse(path, a, weights, (m, n, k), c, work)

    assert status() == _native.OK
    assert status(k=3) == _native.BAD_SHAPE
    assert status(n=40) == _native.BAD_SHAPE
    assert status(weights=(values, columns, np.array([0, 2, 1], np.uint64))) == _native.BAD_SHAPE
    assert status(weights=(values, columns, np.array([0, 1, 3], np.uint64))) == _native.BAD_SHAPE
    assert status(weights=(values[:31], columns, starts)) == _native.TOO_SHORT
    assert status(weights=(values, columns, starts[:0])) == _native.TOO_SHORT
    assert status(a=a[:7]) == _native.TOO_SHORT
    assert status(c=c[:39]) == _native.TOO_SHORT
    assert status(m=2**63, k=2**62) == _native.TOO_SHORT
    quads = (np.ones(128, np.int8), np.array([0, 1], np.uint32), starts)
    octet, integers = np.ones(16, np.uint8), np.empty(40, np.int32)

    def of_bytes(*, n: int = 20, k: int = 8, m: int = 2, a: np.ndarray = octet, c: np.ndarray = integers, work: np.ndarray = work,
                 weights: tuple[np.ndarray, ...] = quads) -> int:
        return _native.gemm_sparse_bytes(path, a, True, weights, (m, n, k), c, work)

    assert of_bytes() == _native.OK
    assert of_bytes(k=4) == _native.BAD_SHAPE
    assert of_bytes(k=LARGEST_BYTES + 1) == _native.BAD_SHAPE
    assert of_bytes(n=40) == _native.BAD_SHAPE
    assert of_bytes(weights=(quads[0][:127], *quads[1:])) == _native.TOO_SHORT
    assert of_bytes(a=octet[:15]) == _native.TOO_SHORT
    assert of_bytes(c=integers[:39]) == _native.TOO_SHORT
    assert of_bytes(work=work[:8]) == _native.TOO_SHORT
    if _native.gemm_sparse_workspace(path, 16, 4):
        assert status(m=16, a=np.ones(64, np.float32), c=np.empty(320, np.float32), work=work[:0]) == _native.TOO_SHORT
    assert _native.gemm_sparse(9, a, (values, columns, starts), (2, 20, 4), c, work) == _native.BAD_PATH
