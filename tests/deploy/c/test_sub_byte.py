"""Codes of 4 and 2 bits: how they lie in memory, and that kernels over them give the reference's codes on this machine and on processors."""

import ctypes
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deploy.c import random_operators as random
from tests.deploy.c import sub_byte_operators as narrow

from lilliput.deploy.c.arithmetic import DoubleRounding, SingleRounding
from lilliput.deploy.c.emit import emit, kernel_home
from lilliput.deploy.c.harness import measure, missing
from lilliput.deploy.c.operators import Buffer, Convolution, Window, sub_byte
from lilliput.deploy.c.plan import faults
from lilliput.deploy.c.plan.verify import written_before
from lilliput.deploy.c.targets import TARGETS

STRICT = "-std=c99 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
SANITIZED = "-fsanitize=address,undefined -fno-sanitize-recover=all"


def buffer(size, bits, base):
    return Buffer(name="x", shape=(size,), scale=1.0, zero=0, bits=bits, base=base)


def test_the_layout_by_hand():
    four = buffer(9, 4, -128).pack(np.arange(-128, -119)).view(np.uint8)
    assert four.tolist() == [0 | 4 << 4, 1 | 5 << 4, 2 | 6 << 4, 3 | 7 << 4, 8, 0, 0, 0]
    two = buffer(16, 2, -2).pack(np.arange(16) % 4 - 2).view(np.uint8)
    assert two.tolist() == [0x00, 0x55, 0xAA, 0xFF]
    assert buffer(6, 2, 5).pack(np.array([5, 6, 7, 8, 8, 7])).view(np.uint8).tolist() == [0 | 3 << 2, 1 | 2 << 2, 2, 3]


@pytest.mark.parametrize(("bits", "size", "held", "whole"), [(8, 9, 9, 9), (4, 8, 4, 4), (4, 9, 8, 4), (2, 16, 4, 4), (2, 17, 8, 4), (2, 1, 4, 0)])
def test_bytes_of_elements(bits, size, held, whole):
    assert (buffer(size, bits, 0).bytes, buffer(1, bits, 0).held(size), buffer(1, bits, 0).whole(size)) == (held, held, whole)


class Codes(ctypes.Structure):
    """lp_codes."""

    _fields_ = (("bits", ctypes.c_int16), ("base", ctypes.c_int16))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "pack.so"
    sources = [str(kernel_home() / f"lp_{name}.c") for name in ("pack", "unpack")]
    subprocess.run(["cc", *STRICT.split(), "-O1", "-shared", "-fPIC", *sources, "-o", str(path)], check=True)
    return ctypes.CDLL(str(path))


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([2, 4, 8]), st.integers(-128, 127), st.integers(1, 90), st.data())
def test_c_and_python_pack_alike(library, bits, base, size, data):
    """Any part of a tensor: it comes back, and the rest of the memory stays."""
    base = min(base, 128 - 2**bits) if bits < 8 else 0
    codes = np.array(data.draw(st.lists(st.integers(base, base + 2**bits - 1) if bits < 8 else st.integers(-128, 127), min_size=size, max_size=size)))
    first = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(1, size - first))
    x = buffer(size, bits, base)
    memory = x.pack(codes)
    assert memory.size == x.bytes
    assert (x.unpack(memory) == codes).all()
    found = np.full(count + 2, 99, np.int8)
    library.lp_unpack(Codes(bits, base), pointer(memory), first, count, pointer(found[1:]))
    assert found[1:-1].tolist() == codes[first: first + count].tolist()
    assert found[[0, -1]].tolist() == [99, 99]
    other = codes[::-1].copy()
    want = codes.copy()
    want[first: first + count] = other[:count]
    held = np.concatenate([x.pack(codes), np.full(4, 77, np.int8)])
    library.lp_pack(Codes(bits, base), pointer(other.astype(np.int8)), count, pointer(held), first)
    assert held[:-4].tolist() == x.pack(want).tolist()
    assert held[-4:].tolist() == [77] * 4


@pytest.mark.parametrize(("seed", "rounding"), [(1, DoubleRounding()), (2, SingleRounding())])
def test_portable_kernels_on_this_machine(tmp_path, seed, rounding):
    made = narrow.program(40, seed, rounding=rounding)
    plan = narrow.close(made)
    given_ = random.samples(made)
    assert len(narrow.overlapping(plan)) >= 15
    assert faults(plan, samples=given_[:1]) == []
    emit(plan, tmp_path, samples=given_)
    for goal, flags in (("libmodel.a", "-O1"), ("test", "-O0")):
        done = subprocess.run(["make", "-s", goal, f"CFLAGS={flags} {SANITIZED} {STRICT}"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert done.stdout.endswith(" 0 wrong codes\n")


@pytest.mark.parametrize("name", ["cortex-m0", "cortex-m4", "cortex-m55", "riscv32"])
def test_processors_give_the_same_codes(name):
    target = TARGETS[name]
    if missing(target):
        pytest.skip(missing(target))
    made = narrow.program(28, 8)
    given_ = random.samples(made)
    plan = narrow.close(made)
    found = measure(plan, target, given_).outputs
    different = [port.name for i, sample in enumerate(given_) for port, want, codes in zip(made.outputs, made(*sample), found[i], strict=True)
                 if (want.reshape(-1) != codes.reshape(-1)).any()]
    assert different == []


def test_every_kind_of_operator_and_width_was_there():
    kernels, widths = set(), set()
    for seed, count in ((1, 40), (2, 40), (8, 28)):
        made = narrow.program(count, seed)
        kernels |= {call.kernel for step in made.steps for call in step.calls()}
        widths |= {(step.inputs[0].bits, step.output.bits) for step in made.steps if isinstance(step, Convolution)}
    assert kernels >= {f"sub_byte_{name}_s8" for name in ("conv", "packed_conv", "coded_conv", "max_pool", "average_pool", "mean_pool", "add", "multiply",
                                                          "table", "copy")}
    assert widths >= {(a, b) for a in (2, 4, 8) for b in (2, 4, 8)}


@pytest.mark.parametrize("seed", [5, 6])
def test_the_verifier_asks_for_no_more_than_the_lag(seed):
    """And convolutions and sums of equally many bits for no less, but for what the last word holds of other elements."""
    for step in (step for step in narrow.program(80, seed).steps if step.narrow):
        for index, source in enumerate(step.inputs):
            needed, lag = int((written_before(step, index) - np.arange(source.bytes)).max()), step.lag(index)
            if lag is None:
                assert needed >= step.output.bytes - source.bytes + 1
            else:
                assert needed <= max(lag, 0), step.layer
                assert lag <= max(needed, 0) + 4 or step.output.bytes < 64, (step.layer, needed, lag)


def conv(image, filters, kernel, bits, **window):
    source = Buffer(name="in", shape=image, scale=1.0, zero=0, bits=bits)
    window = Window(kernel=kernel, **window)
    out = Buffer(name="out", shape=(*window.size(*image[:2]), filters), scale=1.0, zero=0, bits=bits)
    return Convolution(inputs=(source,), output=out, layer="conv", weights=np.ones((filters, *kernel, image[2]), np.int64), bias=np.zeros(filters, np.int64),
                       factors=np.ones(filters), image=image, window=window)


def test_lags_by_hand():
    """Blocks of 8 pixels: 3 (8 + 2) 16 bytes of the image and 8 x 16 of the output are under 1,024, those of 16 pixels are not."""
    step = conv((16, 32, 16), 16, (3, 3), 4, pads=(1, 1, 1, 1))
    assert sub_byte.columns(step.window, step.image, 16) == 8
    # When row 2 is written up to pixel 24, its window still needs row 1 from pixel 23 on: 33 pixels of 8 bytes between them, all words whole.
    assert step.lag(0) == (2 * 32 + 24 - 32 - 23) * 8
    assert conv((4, 4, 8), 8, (1, 1), 4).lag(0) == 0
    # Twice as many codes are written as read: 3 of 4 rows, in blocks of a row.
    assert conv((4, 4, 8), 16, (1, 1), 4).lag(0) == 3 * 4 * 4
