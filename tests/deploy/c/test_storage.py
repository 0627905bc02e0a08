"""Weights of few bits and entropy-coded ones: round trips, sizes by hand, and only where they save."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from planner_nets import Builder

from lilliput.deploy.c.emit import emit
from lilliput.deploy.c.operators import Buffer, Convolution, Window
from lilliput.deploy.c.plan import faults, plan
from lilliput.deploy.c.program import Port, Program
from lilliput.deploy.c.storage import Coded, Packed, decode, encode, quantized_frequencies, store


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


def test_all_weights_are_decoded_at_once_where_the_output_may_follow_the_input_then():
    net = Builder((16, 16, 16))
    x = net.conv(net.conv(net.input, 16, 3), 16, 3)
    # 64 filters of 64 pixels: their weights take more than the images.
    net.conv(net.conv(x, 64, 3, 4), 64, 3)
    net.steps = [replace(step, weights=step.weights % 5) for step in net.steps]
    made = store(net.program(net.steps[-1].output), Packed())
    assert [step.stored.tile for step in made] == [12, 12, 12, 4]
    found = plan(made)
    assert [step.stored.tile for step in found.program] == [16, 16, 12, 4]
    # Twice an image follows the next one by a row and two pixels, and one more since two are computed at once.
    assert found.arena == 16 * 16 * 16 + 2 * (16 + 3) * 16 + 16 * 144
    assert faults(found, samples=[[np.random.default_rng(0).integers(-128, 128, (16, 16, 16))]]) == []


@pytest.mark.parametrize("levels", [[-1, 1], [-1, 0, 1], [-5, -2, 0, 3, 7]], ids=["binary", "ternary", "codebook"])
def test_every_width_runs_in_c(levels, tmp_path):
    """A 3 x 3 convolution of more filters than a tile holds, and a linear layer."""
    random = np.random.default_rng(0)
    x, y, z = (Buffer(name=n, shape=shape, scale=1.0, zero=zero) for n, shape, zero in (("x", (6, 6, 40), 3), ("y", (6, 6, 30), -4), ("z", (9,), 0)))
    first, second = random.choice(levels, (30, 3, 3, 40)), random.choice(levels, (9, 1, 1, 6 * 6 * 30))
    steps = (Convolution(inputs=(x,), output=y, layer="a", weights=first, bias=np.arange(30), factors=np.full(30, 0.05), image=(6, 6, 40),
                         window=Window(kernel=(3, 3), pads=(1, 1, 1, 1))),
             Convolution(inputs=(y,), output=z, layer="b", weights=second, bias=np.zeros(9), factors=np.full(9, 0.01), image=(1, 1, 6 * 6 * 30)))
    ports = [(Port(name=b.name, buffer=b, positions=np.arange(b.size).reshape(b.shape)),) for b in (x, z)]
    program = store(Program(inputs=ports[0], outputs=ports[1], steps=steps), Packed())
    assert all(step.stored is not None for step in program)
    emit(plan(program), tmp_path / "c")
    done = subprocess.run(["make", "-s", "test", "CFLAGS=-O2 -fsanitize=address,undefined"], cwd=tmp_path / "c", capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2 samples, 0 wrong codes", done.stderr
