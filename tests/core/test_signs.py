"""Packed signs and thresholds against NumPy, on every instruction set of this machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lilliput import _native
from lilliput.core import signs
from lilliput.core.bits import pack
from lilliput.core.errors import DataError, PreconditionError
from lilliput.core.signs import Instructions, Signs, Thresholds, available, chosen, pack_signs

paths = st.sampled_from(available())
shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=70)


numbers = st.floats(-2, 2, width=32) | st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan])


@given(hnp.arrays(np.float32, shapes, elements=numbers), paths)
def test_signs_survive_packing(values: np.ndarray, path: Instructions) -> None:
    packed = pack_signs(values, instructions=path)
    assert packed.shape == values.shape
    np.testing.assert_array_equal(packed.unpack(), np.where(values >= 0, 1, -1))


@given(hnp.arrays(np.int8, st.tuples(st.integers(1, 3), st.integers(1, 200)), elements=st.sampled_from([-1, 1])), paths)
def test_layout_is_the_documented_one(values: np.ndarray, path: Instructions) -> None:
    packed = pack_signs(values.astype(np.float32), instructions=path)
    for row, words in zip(values, packed.words, strict=True):
        octets = np.zeros(8 * words.size, np.uint8)
        once = pack((row > 0).astype(np.uint8), 1)
        octets[:once.size] = once
        np.testing.assert_array_equal(words, octets.view("<u8"))


@given(st.integers(0, 5), st.integers(0, 150), st.integers(0, 2**32 - 1), paths)
def test_thresholds_compare_and_flip(rows: int, channels: int, seed: int, path: Instructions) -> None:
    rng = np.random.default_rng(seed)
    edges = np.array([-2**31, -1, 0, 1, 2**31 - 1], np.int32)
    values, least = (rng.choice(edges, shape) for shape in ((rows, channels), channels))
    flip = rng.integers(0, 2, channels).astype(bool)
    found = Thresholds(least, flip)(values, instructions=path)
    np.testing.assert_array_equal(found.unpack() > 0, (values >= least) ^ flip)
    used = np.zeros(found.words.shape[-1] * 64, bool)
    used[:channels] = True
    assert not (found.words & ~pack_signs(np.where(used, 1, -1)).words).any(), "unused bits are zero"


def test_other_numbers_keep_their_sign() -> None:
    tiny = np.nextafter(0, -1, dtype=np.float64)
    np.testing.assert_array_equal(pack_signs([tiny, -0.0, 1e300, -1e300]).unpack(), [-1, 1, 1, -1])
    np.testing.assert_array_equal(pack_signs(np.array([[-2**63, 2**63 - 1, 0]])).unpack(), [[-1, 1, 1]])
    np.testing.assert_array_equal(pack_signs(np.arange(-8.0, 8).astype(np.float32)[::2]).unpack(), [-1] * 4 + [1] * 4)


def test_bad_inputs_name_the_remedy() -> None:
    with pytest.raises(PreconditionError, match="axis"):
        pack_signs(1.0)
    with pytest.raises(DataError, match="real"):
        pack_signs([1j])
    with pytest.raises(PreconditionError, match="pack_signs"):
        Signs(np.zeros(2, np.int64), 70)
    with pytest.raises(PreconditionError, match="2 words, not 1"):
        Signs(np.zeros(1, np.uint64), 70)
    with pytest.raises(PreconditionError, match="int32"):
        Thresholds(np.zeros(3, np.int64), np.zeros(3, np.bool_))
    thresholds = Thresholds(np.zeros(3, np.int32), np.zeros(3, np.bool_))
    with pytest.raises(PreconditionError, match=r"\(\.\.\., 3\)"):
        thresholds(np.zeros((2, 4), np.int32))


def test_an_instruction_set_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available()[0] is Instructions.PORTABLE
    monkeypatch.setattr(signs, "available", lambda: (Instructions.PORTABLE,))
    assert chosen(None) is Instructions.PORTABLE
    with pytest.raises(PreconditionError, match="PORTABLE"):
        chosen(Instructions.AVX512)


def test_the_library_itself_checks_its_bounds() -> None:
    values, words = np.zeros(65, np.float32), np.zeros(1, np.uint64)
    assert _native.sign_rows(0, values, 65, words) == _native.TOO_SHORT
    assert _native.sign_rows(0, values, 64, words) == _native.BAD_SHAPE
    assert _native.sign_rows(0, values, 0, words) == _native.BAD_SHAPE
    assert _native.sign_rows(7, values, 65, words) == _native.BAD_PATH
    assert _native.sign_words(2**64 - 1) == 2**58
    integers = np.zeros(65, np.int32)
    assert _native.threshold_rows(0, integers, integers, np.zeros(1, np.uint64), np.zeros(2, np.uint64)) == _native.TOO_SHORT
    assert _native.threshold_rows(0, integers, integers, np.zeros(2, np.uint64), words) == _native.TOO_SHORT
