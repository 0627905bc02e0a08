"""CABAC: exact, as specified, as worked by hand, near the entropy, unharmed by any bytes; and rounding that counts what it costs."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.coding import cabac_reference

from lilliput import _native
from lilliput.coding.cabac import Cabac, rate_distortion_codes
from lilliput.coding.coder import count, entropy
from lilliput.core import CorruptFileError, PreconditionError

PLAIN = (3, 0, 0, 1, 0)  # rate, signs raw, no neighbours, limit 1
parameters = st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2), st.integers(0, 15), st.integers(0, 15))
shapes = st.tuples(st.integers(0, 12), st.integers(0, 12))
small = st.integers(-3, 3) | st.integers(-100, 100) | st.integers(-2**31, 2**31 - 1) | st.sampled_from([-2**31, 2**31 - 1, 0])
matrices = hnp.arrays(np.int32, shapes, elements=small)


def encode(values, chosen):
    """With given parameters."""
    flat = np.ascontiguousarray(values).reshape(-1)
    status, size = _native.cabac_size(flat, values.shape, chosen)
    assert status == _native.OK
    coded = np.empty(size, np.uint8)
    assert _native.cabac_encode(flat, values.shape, chosen, coded) == _native.OK
    return coded


def laplacian(size, spread, seed=0):
    return np.rint(np.random.default_rng(seed).laplace(scale=spread, size=size)).astype(np.int32)


@given(matrices, parameters)
def test_every_parameter_round_trips_as_specified(values, chosen):
    coded = encode(values, chosen)
    np.testing.assert_array_equal(Cabac().decode(coded, values.shape), values)
    if values.size:
        again, size = cabac_reference.decode(coded, values.shape)
        np.testing.assert_array_equal(again, values)
        assert size == coded.size


@given(matrices)
def test_any_matrix_round_trips(values):
    coded = np.frombuffer(Cabac().encode(values), np.uint8)
    np.testing.assert_array_equal(Cabac().decode(coded, values.shape), values)


@pytest.mark.parametrize("value", [0, 1, -1, 2**31 - 1, -2**31])
def test_constants_cost_next_to_nothing(value):
    values = np.full((100, 1000), value, np.int32)
    coded = np.frombuffer(Cabac().encode(values), np.uint8)
    np.testing.assert_array_equal(Cabac().decode(coded, values.shape), values)
    # Up to 29 raw bits of each suffix have no model, and the sign only where that is chosen.
    assert coded.size < (200 if abs(value) < 2 else 380_000)


def test_streams_by_hand():
    # A fresh context: p = (2^30 + 2^30) / 2^16 | 1 = 32769. A 0 takes [(2^48 - 1) 32769, 2^64 - 1), its low end just above 128 * 2^56.
    assert encode(np.array([[0]], np.int32), PLAIN).tolist() == [3, 1, 129]
    # Significant: [0, 2^63), not greater than 1: the upper half of that, from just above 64 * 2^56 on; and the sign as a raw bit.
    assert encode(np.array([[1]], np.int32), PLAIN).tolist() == [3, 1, 65, 0]
    assert encode(np.array([[-1]], np.int32), PLAIN).tolist() == [3, 1, 65, 1]
    # After one 0 both estimates are 1/4: the second takes [1/2 + 1/8, 1) of 2^64; its first byte is 160 and a little more.
    assert encode(np.array([[0, 0]], np.int32), PLAIN).tolist() == [3, 1, 161]
    # 9 = 1 + 8: significant, greater than 1, and r + 1 = 8: e = 3, prefix 1 1 1 0, suffix 0 0 and a raw 0. Each bin halves: from
    # [0, 2^63) to [0, 2^59), the last prefix bin takes [2^58, 2^59), the suffix the upper half of that twice: from 2^58 + 2^57 + 2^56 = 7 * 2^56
    # and a little on. What is left is no longer than 2^56, so that two bytes are written.
    assert encode(np.array([[9]], np.int32), PLAIN).tolist() == [3, 1, 7, 1, 0]


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0, 20.0])
def test_size_is_near_the_entropy(spread):
    values = np.clip(laplacian((128, 576), spread), -128, 127)
    floor = entropy(count((values + 128).astype(np.uint8))) * values.size
    assert 8 * len(Cabac().encode(values)) < 1.006 * floor + 600


def test_contexts_find_what_the_distribution_hides():
    rng = np.random.default_rng(0)
    # Rows of zeros between others; and a sign that goes on.
    values = laplacian((200, 200), 3) * (rng.random(200) < 0.3)[:, None].astype(np.int32)
    floor = entropy(count((np.clip(values, -128, 127) + 128).astype(np.uint8))) * values.size
    assert 8 * len(Cabac().encode(values)) < 0.85 * floor
    runs = np.abs(values) * np.repeat(rng.choice([-1, 1], 2000), 20).reshape(values.shape).astype(np.int32)
    assert len(Cabac().encode(runs)) < 0.95 * len(Cabac().encode(np.abs(values) * rng.choice([-1, 1], values.shape).astype(np.int32)))


def test_size_tells_what_encoding_takes_and_room_is_never_exceeded():
    values = laplacian((30, 30), 40)
    flat, coded = values.reshape(-1), encode(values, PLAIN)
    for size in (0, 2, 3, 10, coded.size - 1):
        assert _native.cabac_encode(flat, values.shape, PLAIN, np.empty(size, np.uint8)) == _native.TOO_SHORT
    assert _native.cabac_encode(flat, (30, 31), PLAIN, coded) == _native.BAD_SHAPE
    assert _native.cabac_encode(flat, values.shape, (5, 0, 0, 1, 0), coded) == _native.BAD_SHAPE


@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=small), parameters)
def test_costs_add_up_to_the_size(values, chosen):
    costs = np.empty(values.size, np.uint32)
    assert _native.cabac_costs(values.reshape(-1), values.shape, chosen, costs) == _native.OK
    # Two bytes of parameters, the end of the interval (up to nine bits), and the raw bits' last byte.
    told, bits = costs.sum(dtype=np.int64) / 2**15, 8 * (encode(values, chosen).size - 2)
    assert told - 0.02 * values.size < bits < told + 9 + 8 + 0.02 * values.size


def test_truncated_and_lengthened_streams_are_refused():
    values = laplacian((20, 30), 3)
    coded = encode(values, PLAIN)
    accepted = 0
    for size in range(coded.size):
        with suppress(CorruptFileError):
            # What is left may happen to be as long as the code of what it decodes to.
            other = Cabac().decode(coded[:size], values.shape)
            assert encode(other, PLAIN).size == size
            accepted += 1
    assert accepted <= 2
    for more in (1, 4, 8, 100):
        with pytest.raises(CorruptFileError):
            Cabac().decode(np.append(coded, np.zeros(more, np.uint8)), values.shape)
    for shape in ((0, 0), (0, 5), (20, 29), (19, 30), (21, 30)):
        with pytest.raises(CorruptFileError):
            Cabac().decode(coded, shape)


def test_flipped_bits_never_crash():
    values = laplacian((10, 15), 5)
    coded = encode(values, (2, 2, 2, 3, 1))
    for at in range(8 * coded.size):
        damaged = coded.copy()
        damaged[at // 8] ^= 1 << at % 8
        with suppress(CorruptFileError):
            assert Cabac().decode(damaged, values.shape).shape == values.shape


@settings(max_examples=300)
@given(st.binary(max_size=80), st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_any_bytes_are_decoded_or_refused(coded, shape):
    with suppress(CorruptFileError):
        Cabac().decode(np.frombuffer(coded, np.uint8), shape)


def test_what_is_no_matrix_of_integers_is_refused():
    for values in (np.zeros(3, np.int32), np.zeros((2, 2), np.int64), np.zeros((2, 2), np.float32)):
        with pytest.raises(PreconditionError, match="int32"):
            Cabac().encode(values)


def quantize(weights, step, slope, importance=()):
    array = np.asarray(weights, np.float32)
    codes = np.empty(array.size, np.int32)
    status = _native.cabac_quantize(array, (1, array.size), (step, slope, np.asarray(importance, np.float32)), PLAIN, codes)
    assert status == _native.OK
    return codes.tolist()


def test_rate_distortion_by_hand():
    # Fresh contexts: 0 takes one bit, 1 three (significant, sign, not greater), 2 four. For 0.6: 0.36 + slope against 0.16 + 3 slope.
    assert quantize([0.6], 1.0, 0.09) == [1]
    assert quantize([0.6], 1.0, 0.11) == [0]
    assert quantize([-0.6], 1.0, 0.09) == [-1]
    # The same in steps of a half, where squared errors are a quarter; and with four times the importance.
    assert quantize([0.3], 0.5, 0.0275) == [0]
    assert quantize([0.3], 0.5, 0.0275, [4.0]) == [1]
    # For 2.1: 0.01 + 4 slope, 1.21 + 3 slope, 4.41 + slope: equal at 1.2 and at 1.6.
    assert [quantize([2.1], 1.0, slope) for slope in (1.1, 1.3, 1.7)] == [[2], [1], [0]]
    # After a zero another is cheaper: p = 1/4, -log2 3/4 = 0.415 bits against 2 + 2 for one: 0.2 = 3.585 slope in place of 2 slope.
    assert quantize([0.0, 0.6], 1.0, 0.054) == [0, 1]
    assert quantize([0.0, 0.6], 1.0, 0.058) == [0, 0]


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 8), st.integers(0, 8)), elements=st.floats(-100, 100, width=32)))
def test_no_slope_is_rounding_to_nearest(weights):
    codes = rate_distortion_codes(weights, step=0.5, slope=0.0)
    assert (np.abs(weights / np.float64(0.5) - codes) <= 0.5).all()


def test_slopes_trade_size_for_error():
    weights = np.random.default_rng(0).laplace(scale=0.02, size=(64, 288)).astype(np.float32)
    step = 0.02
    sizes, errors, totals = [], [], []
    for slope in (0.0, 5e-5, 2e-4, 6e-4):
        codes = rate_distortion_codes(weights, step=step, slope=slope)
        sizes.append(8 * len(Cabac().encode(codes)))
        errors.append(float(((weights - step * codes) ** 2).sum()))
        totals.append(errors[-1] + slope * sizes[-1] - errors[0] - slope * sizes[0])
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.7 * sizes[0]
    assert errors == sorted(errors)
    assert max(totals[1:]) < 0


def test_important_weights_keep_their_codes():
    weights = np.random.default_rng(0).laplace(scale=0.02, size=(64, 288)).astype(np.float32)
    importance = np.where(np.arange(288) % 2, 1e6, 1.0).astype(np.float32) * np.ones((64, 1), np.float32)
    codes = rate_distortion_codes(weights, step=0.02, slope=1e-4, importance=importance)
    nearest = rate_distortion_codes(weights, step=0.02, slope=0.0)
    np.testing.assert_array_equal(codes[:, 1::2], nearest[:, 1::2])
    assert (codes[:, ::2] != nearest[:, ::2]).mean() > 0.1


@pytest.mark.parametrize("weight", [np.nan, np.inf, -np.inf, 2.0**32])
def test_weights_without_a_code_are_refused(weight):
    with pytest.raises(PreconditionError, match="2\\^31"):
        rate_distortion_codes(np.array([[weight]], np.float32), step=1.0, slope=0.1)


def test_wrong_steps_and_shapes_are_refused():
    weights = np.zeros((2, 3), np.float32)
    for step, slope in ((0.0, 0.1), (-1.0, 0.1), (1.0, -0.1), (np.nan, 0.1), (1.0, np.inf)):
        with pytest.raises(PreconditionError, match="step"):
            rate_distortion_codes(weights, step=step, slope=slope)
    with pytest.raises(PreconditionError, match="matrix"):
        rate_distortion_codes(weights[0], step=1.0, slope=0.1)
    with pytest.raises(PreconditionError, match="importance"):
        rate_distortion_codes(weights, step=1.0, slope=0.1, importance=weights.T)
