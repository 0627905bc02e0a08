"""Weights of few bits and entropy-coded ones: round trips, sizes by hand, and only where they save."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lilliput.deploy.c.storage import Coded, Packed, decode, encode, quantized_frequencies


def test_two_bits_by_hand():
    kernel, arrays, fields = Packed()(np.array([[-1, 0, 1, 1, -1], [0, 0, 0, 0, 1]] * 8, np.int8))
    assert (kernel, fields) == ("packed_conv_s8", {"bits": 2})
    assert arrays["table"].tolist() == [-1, 0, 1]
    # 0 | 1 << 2 | 2 << 4 | 2 << 6, then 0 in a byte of its own.
    assert arrays["codes"][0].tolist() == [0 + 4 + 32 + 128, 0]
    assert arrays["codes"][1].tolist() == [1 + 4 + 16 + 64, 2]


def test_many_codes_stay_plain():
    assert Packed()(np.arange(-64, 64, dtype=np.int8).reshape(4, 32)) is None
    assert Coded()(np.arange(-128, 128, dtype=np.int16).astype(np.int8).reshape(4, 64)) is None


def test_a_layer_too_small_for_tables_is_not_coded():
    weights = np.random.default_rng(0).integers(-8, 8, (4, 30)).astype(np.int8)
    assert Coded()(weights)[0] == "packed_conv_s8"


@settings(deadline=None)
@given(hnp.arrays(np.int64, st.integers(1, 400), elements=st.integers(0, 20)))
def test_streams_come_back(symbols):
    _, index, counts = np.unique(symbols, return_inverse=True, return_counts=True)
    frequencies = quantized_frequencies(counts)
    assert frequencies.sum() == 256
    assert frequencies.min() >= 1
    starts = np.concatenate([[0], np.cumsum(frequencies)[:-1]])
    assert (decode(encode(index, frequencies, starts), index.size, frequencies, starts) == index).all()


def test_the_stream_is_near_the_entropy():
    weights = np.clip(np.rint(np.random.default_rng(0).laplace(0, 2, 40000)), -8, 7)
    _, index, counts = np.unique(weights, return_inverse=True, return_counts=True)
    share = counts / counts.sum()
    frequencies = quantized_frequencies(counts)
    stream = encode(index, frequencies, np.concatenate([[0], np.cumsum(frequencies)[:-1]]))
    assert 8 * stream.size <= 1.005 * weights.size * -(share * np.log2(share)).sum() + 64
