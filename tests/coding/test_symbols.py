"""Tensors as streams of symbols: exact both ways, worked examples, and streams that make no tensor."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.coding.contexts import Contexts
from lilliput.coding.elements import ELEMENTS, element_of, from_payload, to_payload
from lilliput.coding.symbols import SYMBOLS, Codes, Palette, Planes, Runs, Split
from lilliput.core import CorruptFileError, PreconditionError

BY_NAME = {element.name: element for element in ELEMENTS.values()}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(BY_NAME)), st.integers(0, 400), st.sampled_from([0.0, 0.6, 0.97, 1.0]), st.integers(0, 2**32 - 1))
def test_every_way_gives_the_bytes_back(name, count, zeros, seed):
    element, rng = BY_NAME[name], np.random.default_rng(seed)
    payload = rng.integers(0, 256, element.size((count,))).astype(np.uint8)
    if element.bits >= 8:
        payload.reshape(-1, element.bits // 8)[rng.random(count) < zeros] = 0
    ways = 0
    for way in (*SYMBOLS, Contexts(rows=3)):
        split = way.split(payload, element)
        if split is not None:
            ways += 1
            assert all(stream.dtype == np.uint8 for stream in split.streams)
            np.testing.assert_array_equal(way.join(split, element, payload.size), payload)
    assert ways


def test_small_numbers_of_both_signs_are_neighbours():
    split = Codes().split(np.array([-2, -1, 0, 1], np.int8).view(np.uint8), BY_NAME["int8"])
    assert split.streams[0].tolist() == [126, 127, 128, 129]
    # Two nibbles to the byte, the first one low: -1 and 3, then -8 and 0.
    assert Codes().split(np.array([0x3F, 0x08], np.uint8), BY_NAME["int4"]).streams[0].tolist() == [7, 11, 0, 8]


def test_the_exponent_begins_a_byte():
    # 1.0 is 0x3f80: exponent 127, mantissa 0; -1.5 is 0xbfc0: exponent 127, mantissa 0x40, sign 1.
    values = np.array([1.0, -1.5], ml_dtypes.bfloat16)
    high, low = Planes().split(to_payload(values), BY_NAME["bfloat16"]).streams
    assert high.tolist() == [127, 127]
    assert low.tolist() == [0, 0x40 << 1 | 1]


def test_palettes_are_in_the_order_of_the_numbers():
    values = np.array([0.5, -0.0, 0.0, -3.0, 0.5, np.inf], np.float32)
    split = Palette().split(values.view(np.uint8), BY_NAME["float32"])
    assert np.frombuffer(split.head, np.float32).tolist() == [-3.0, -0.0, 0.0, 0.5, np.inf]
    assert split.streams[0].tolist() == [3, 1, 2, 0, 3, 4]
    negative = Palette().split(np.array([5, -7, 0], np.int32).view(np.uint8), BY_NAME["int32"])
    assert np.frombuffer(negative.head, np.int32).tolist() == [-7, 0, 5]


def test_palettes_are_for_few_values():
    many = np.arange(257, dtype=np.float32)
    assert Palette().split(many.view(np.uint8), BY_NAME["float32"]) is None
    assert Palette().split(many[:256].view(np.uint8), BY_NAME["float32"]) is not None


def test_long_runs_go_on():
    values = np.zeros(600, np.uint8)
    values[[3, 4, 4 + 256, 599]] = [9, 8, 7, 6]
    split = Runs().split(values, BY_NAME["uint8"])
    # 3, 0, then 255 zeros (one 255 and 0 more), then 338 = 255 + 83.
    assert split.streams[0].tolist() == [3, 0, 255, 0, 255, 83]
    assert split.streams[1].tolist() == [9, 8, 7, 6]


@pytest.mark.parametrize("runs", [[3], [3, 0, 255], [3, 0, 0, 0], [200, 200, 200, 255], [255, 255, 255]])
def test_runs_that_do_not_fit(runs):
    values = np.zeros(600, np.uint8)
    values[[3, 4, 40]] = 1
    split = Runs().split(values, BY_NAME["uint8"])
    with pytest.raises(CorruptFileError):
        Runs().join(Split(split.head, (np.array(runs, np.uint8), split.streams[1])), BY_NAME["uint8"], 600)


def test_indices_beyond_the_palette():
    split = Split(np.float32([1, 2]).tobytes(), (np.array([0, 2], np.uint8),))
    with pytest.raises(CorruptFileError, match="beyond"):
        Palette().join(split, BY_NAME["float32"], 8)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_arrays_become_bytes_and_back(name):
    element = BY_NAME[name]
    rng = np.random.default_rng(0)
    array = (rng.integers(-2 if element.signed and element.bits < 8 else 0, 2, (3, 5)) if element.bits < 8 else rng.integers(0, 2, (3, 5))).astype(element.dtype)
    assert element_of(array) is element
    back = from_payload(to_payload(array), element, array.shape)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back.astype(np.float64), array.astype(np.float64))


def test_types_that_files_do_not_hold():
    with pytest.raises(PreconditionError, match="complex64"):
        element_of(np.zeros(2, np.complex64))
    with pytest.raises(CorruptFileError, match="no float32"):
        from_payload(np.zeros(7, np.uint8), BY_NAME["float32"], (2,))
