"""Lags of inputs behind outputs: by replay of every byte, and in the kernels themselves."""

import subprocess

import numpy as np
import pytest
import random_operators
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lilliput.deploy.c.emit import emit
from lilliput.deploy.c.operators import InPlaceDepthwise, InPlacePointwise, Window
from lilliput.deploy.c.plan import Plan, faults
from lilliput.deploy.c.plan.overlap import Overlap
from lilliput.deploy.c.plan.verify import written_before


def safe(window, image, channels, lag, at_once):
    """Whether an input `lag` bytes behind the output is read before it is overwritten: the pixels of a group are written, then their windows read."""
    height, width, depth = image
    rows, columns = window.size(height, width)
    written = np.zeros(lag + height * width * depth + rows * columns * channels, bool)
    for first in range(0, rows * columns, at_once):
        pixels = range(first, min(first + at_once, rows * columns))
        written[first * channels:(pixels[-1] + 1) * channels] = True
        for pixel in pixels:
            for a in range(window.kernel[0]):
                for b in range(window.kernel[1]):
                    y = pixel // columns * window.stride[0] - window.pads[0] + a * window.dilation[0]
                    x = pixel % columns * window.stride[1] - window.pads[1] + b * window.dilation[1]
                    if 0 <= y < height and 0 <= x < width:
                        start = lag + (y * width + x) * depth
                        if written[start:start + depth].any():
                            return False
    return True


@settings(max_examples=150, deadline=None)
@given(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)), st.tuples(st.integers(1, 4), st.integers(1, 4)),
       st.tuples(st.integers(1, 3), st.integers(1, 3)), st.tuples(st.integers(1, 2), st.integers(1, 2)), st.tuples(*[st.integers(-1, 3)] * 4),
       st.integers(1, 4), st.integers(1, 4))
def test_a_window_reads_before_it_writes(image, kernel, stride, dilation, pads, channels, at_once):
    window = Window(kernel=kernel, stride=stride, dilation=dilation, pads=pads)
    assume(min(window.size(*image[:2])) >= 1)
    lag = window.lag(image, channels) + (at_once - 1) * channels
    assert safe(window, image, channels, lag, at_once)


@pytest.mark.parametrize(("kernel", "stride", "pads", "image", "channels", "lag"), [
    ((1, 1), (1, 1), (0, 0, 0, 0), (4, 5, 8), 8, 8),  # one pixel
    ((3, 3), (1, 1), (1, 1, 1, 1), (4, 5, 8), 8, 56),  # a row and two pixels
    ((3, 3), (1, 1), (0, 0, 0, 0), (4, 5, 8), 8, 8),  # its window begins where its output does
    ((1, 1), (1, 1), (0, 0, 0, 0), (1, 4, 2), 8, 26),  # 32 written, the last 2 of 8 bytes read meanwhile
    ((3, 3), (2, 2), (1, 1, 1, 1), (8, 8, 4), 4, 4)])
def test_lags_by_hand(kernel, stride, pads, image, channels, lag):
    window = Window(kernel=kernel, stride=stride, pads=pads)
    assert window.lag(image, channels) == lag
    assert safe(window, image, channels, lag, 1)
    assert not safe(window, image, channels, lag - 1, 1)


STEPS = random_operators.operators(120, seed=4)


@pytest.mark.parametrize("step", STEPS, ids=[step.layer for step in STEPS])
def test_the_verifier_asks_for_no_more_than_the_lag(step):
    sharing = Overlap(pixels_at_once=2)(step)
    for index, buffer in enumerate(step.inputs):
        needed = int((written_before(step, index, 2) - np.arange(buffer.size)).max())
        if buffer in sharing:
            assert needed <= sharing[buffer]
        else:
            assert needed >= step.output.size - buffer.size + 1


def test_kernels_keep_the_promise(tmp_path):
    """Every operator with its first input as close behind its output as its lag allows, or the second one."""
    sharing, offsets, at = Overlap(pixels_at_once=2), {}, 0
    for number, step in enumerate(STEPS):
        lags = sharing(step)
        close = next((b for b in step.inputs[::-1 if number % 2 else 1] if b in lags), None)
        offsets[step.output], end = at, at + step.output.size
        for buffer in dict.fromkeys([close, *step.inputs] if close is not None else step.inputs):
            offsets[buffer] = -(-(at + lags[buffer]) // 4) * 4 if buffer is close else -(-end // 4) * 4
            end = max(end, offsets[buffer] + buffer.size)
        at = -(-end // 4) * 4
    made = random_operators.program(STEPS)
    # Outputs of a step are inputs of none, so that nothing else shares memory.
    found = Plan(program=made, offsets=offsets, arena=at, bound=0)
    assert faults(found, samples=random_operators.samples(made, 1)) == []
    emit(found, tmp_path, samples=random_operators.samples(made, 2))
    run = subprocess.run(["make", "-s", "-C", str(tmp_path), "test", "CFLAGS=-O1"], capture_output=True, text=True)
    assert run.stdout == "2 samples, 0 wrong codes\n", run.stdout + run.stderr


def in_place(rng, name):
    """A depthwise convolution of stride 1 whose output is as large as its input, or a 1 x 1 convolution."""
    if rng.random() < 0.3:
        return InPlacePointwise.of(random_operators.pointwise(rng, name))
    image = tuple(int(n) for n in rng.integers([1, 1, 2], [9, 9, 20]))
    kernel, dilation = tuple(int(n) for n in rng.integers(1, 6, 2)), tuple(int(n) for n in rng.integers(1, 3, 2))
    total = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    before = [int(rng.integers(0, t + 1)) for t in total]
    window = Window(kernel=kernel, dilation=dilation, pads=(*before, total[0] - before[0], total[1] - before[1]))
    step = random_operators._convolved(rng, name, image, image[2], window, image[2])
    assert InPlaceDepthwise.fits(step)
    return InPlaceDepthwise.of(step)


def test_convolutions_in_place_give_the_references_codes(tmp_path):
    rng, offsets, at = np.random.default_rng(2), {}, 0
    steps = [in_place(rng, f"step{i}") for i in range(50)]
    for step in steps:
        offsets[step.output] = offsets[step.inputs[0]] = at
        if step.in_place is None:
            offsets[step.inputs[0]] += -(-step.lag(0) // 4) * 4
        offsets[step.scratch] = max(offsets[b] + -(-b.size // 4) * 4 for b in (step.output, step.inputs[0]))
        at = offsets[step.scratch] + -(-step.scratch.size // 4) * 4
    made = random_operators.program(steps)
    found = Plan(program=made, offsets=offsets, arena=at, bound=0)
    assert faults(found, samples=random_operators.samples(made, 1)) == []
    emit(found, tmp_path, samples=random_operators.samples(made, 4))
    run = subprocess.run(["make", "-s", "-C", str(tmp_path), "test", "CFLAGS=-O1 -fsanitize=address,undefined -fno-sanitize-recover"],
                         capture_output=True, text=True)
    assert run.stdout == "4 samples, 0 wrong codes\n", run.stdout + run.stderr
