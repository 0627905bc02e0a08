"""Convolutions of signs and of low-bit weights equal a sum over taps in NumPy, on every instruction set of this machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput import _native
from lilliput.core.convolution import Window, convolve_binary, convolve_low
from lilliput.core.errors import PreconditionError
from lilliput.core.kernels import pack_weights
from lilliput.core.signs import Instructions, Signs, available, pack_signs

paths = pytest.mark.parametrize("path", available(), ids=lambda path: path.name)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def reference(images: np.ndarray, weights: np.ndarray, window: Window) -> np.ndarray:
    """Tap by tap: each weight's plane times the pixels that it meets. Images (N, H, W, C), weights (O, h, w, C)."""
    top, left, bottom, right = window.padding
    padded = np.pad(images.astype(np.int64), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=window.fill)
    _, h, w, _ = weights.shape
    height, width = ((padded.shape[1 + i] - window.dilation[i] * ((h, w)[i] - 1) - 1) // window.stride[i] + 1 for i in (0, 1))
    total = np.zeros((images.shape[0], height, width, weights.shape[0]), np.int64)
    for i in range(h):
        for j in range(w):
            moved = padded[:, i * window.dilation[0]:, j * window.dilation[1]:]
            met = moved[:, ::window.stride[0], ::window.stride[1]][:, :height, :width]
            total += met @ weights[:, i, j].T
    return total


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], Window, np.random.Generator]:
    kernel, dilation = draw(pairs), draw(pairs)
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    sides = [draw(st.integers(max(1, (kernel[i] - 1) * dilation[i] + 1 - padding[i] - padding[i + 2]), 9)) for i in (0, 1)]
    channels = draw(st.integers(1, 9) | st.sampled_from([63, 64, 65, 130]))
    images, weights = (draw(st.integers(0, 3)), *sides, channels), (draw(st.integers(0, 9)), *kernel, channels)
    window, seed = Window(stride=draw(pairs), padding=padding, dilation=dilation), draw(st.integers(0, 2**32 - 1))
    return images, weights, window, np.random.default_rng(seed)


def signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.choice(np.array([-1, 1], np.int64), shape)


@paths
@settings(max_examples=60, deadline=None)
@given(case=cases(), fill=st.sampled_from([0, -1]))
def test_binary_convolutions(path: Instructions, case: tuple, fill: int) -> None:
    images, weights, window, rng = case
    window = Window(stride=window.stride, padding=window.padding, dilation=window.dilation, fill=fill)
    x, w = signs(rng, images), signs(rng, weights)
    found = convolve_binary(pack_signs(x), pack_signs(w), window, instructions=path)
    np.testing.assert_array_equal(found, reference(x, w, window))


@paths
@settings(max_examples=60, deadline=None)
@given(case=cases(), bits=st.sampled_from([4, 2, 1]), fill=st.sampled_from([0, 127, -128, 255]))
def test_low_convolutions(path: Instructions, case: tuple, bits: int, fill: int) -> None:
    images, weights, window, rng = case
    dtype = np.uint8 if fill > 127 else np.int8
    window = Window(stride=window.stride, padding=window.padding, dilation=window.dilation, fill=fill)
    x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, images).astype(dtype)
    w = signs(rng, weights) if bits == 1 else rng.integers(-2**(bits - 1), 2**(bits - 1), weights)
    packed = pack_weights(w.reshape(weights[0], int(np.prod(weights[1:]))), bits)
    found = convolve_low(x, packed, weights[1:3], window, instructions=path)
    np.testing.assert_array_equal(found, reference(x, w, window))


@paths
@pytest.mark.parametrize(("images", "weights"), [((1, 30, 30, 64), (300, 3, 3, 64)), ((2, 20, 20, 128), (256, 1, 1, 128)),
                                                 ((3, 16, 14, 20), (40, 5, 5, 20))])
def test_more_positions_than_one_tile(path: Instructions, images: tuple[int, ...], weights: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, w = signs(rng, images), signs(rng, weights)
    side = weights[1] // 2
    window = Window(padding=(side,) * 4)
    found = convolve_binary(pack_signs(x), pack_signs(w), window, instructions=path)
    np.testing.assert_array_equal(found, reference(x, w, window))
    packed = pack_weights(w.reshape(weights[0], -1), 1)
    found = convolve_low(x.astype(np.int8), packed, weights[1:3], window, instructions=path)
    np.testing.assert_array_equal(found, reference(x, w, window))


def test_bad_inputs_name_the_remedy() -> None:
    x, w = pack_signs(np.ones((1, 4, 4, 10))), pack_signs(np.ones((2, 3, 3, 10)))
    with pytest.raises(PreconditionError, match=r"\(O, h, w, C\)"):
        convolve_binary(x, pack_signs(np.ones((2, 3, 3, 11))))
    with pytest.raises(PreconditionError, match="0 or -1"):
        convolve_binary(x, w, Window(fill=1))
    with pytest.raises(PreconditionError, match="fits into"):
        convolve_binary(x, w, Window(dilation=(2, 2)))
    for window in (Window(stride=(0, 1)), Window(dilation=(1, 0)), Window(padding=(65536, 0, 0, 0))):
        with pytest.raises(PreconditionError, match="at least 1"):
            convolve_binary(x, w, window)
    with pytest.raises(PreconditionError, match="negative"):
        convolve_binary(x, w, Window(padding=(-1, 0, 0, 0)))
    with pytest.raises(PreconditionError, match="unused bits"):
        convolve_binary(Signs(x.words | np.uint64(2**63), 10), w)
    with pytest.raises(PreconditionError, match="unused bits"):
        convolve_binary(x, Signs(w.words | np.uint64(2**63), 10))
    octet, packed = np.zeros((1, 4, 4, 10), np.uint8), pack_weights(np.ones((2, 90), np.int8), 1)
    with pytest.raises(PreconditionError, match="90 were packed"):
        convolve_low(octet, packed, (2, 3))
    with pytest.raises(PreconditionError, match="no uint8"):
        convolve_low(octet, packed, (3, 3), Window(fill=-1))
    with pytest.raises(PreconditionError, match="quantize"):
        convolve_low(octet.astype(np.float32), packed, (3, 3))


def test_the_library_itself_checks_its_bounds() -> None:
    window = (1, 2, 2, 64, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
    pixels, weights, c, none = np.zeros(4, np.uint64), np.zeros(2, np.uint64), np.zeros(8, np.int32), np.zeros(0, np.uint8)
    assert _native.convolve_binary(0, window, pixels, weights, (2, False), c, none) == _native.OK
    assert _native.convolve_binary(0, window, pixels[:3], weights, (2, False), c, none) == _native.TOO_SHORT
    assert _native.convolve_binary(0, window, pixels, weights, (3, False), c, none) == _native.TOO_SHORT
    assert _native.convolve_binary(0, window, pixels, weights, (2, False), c[:7], none) == _native.TOO_SHORT
    huge = (2**62, *window[1:])
    assert _native.convolve_binary(0, huge, pixels, weights, (2, False), c, none) == _native.BAD_SHAPE
    padded = (*window[:10], 1, 0, 0, 0)
    assert _native.convolve_binary(0, padded, pixels, weights, (2, False), np.zeros(12, np.int32), none) == _native.TOO_SHORT
    octet, panels = np.zeros(256, np.uint8), np.zeros(128, np.uint8)
    work = np.zeros(_native.convolve_low_workspace(0, window, 2, 1), np.uint8)
    assert _native.convolve_low(0, window, (octet, False, 0), (panels, 2, 1), c, work) == _native.OK
    assert _native.convolve_low(0, window, (octet[:255], False, 0), (panels, 2, 1), c, work) == _native.TOO_SHORT
    assert _native.convolve_low(0, window, (octet, False, 0), (panels[:127], 2, 1), c, work) == _native.TOO_SHORT
    assert _native.convolve_low(0, window, (octet, False, 0), (panels, 2, 1), c, work[:-1]) == _native.TOO_SHORT
