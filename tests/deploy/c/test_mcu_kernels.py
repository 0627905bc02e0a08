"""Kernels of generated projects compute the codes of the integer reference: on this machine under sanitizers, and on emulated processors."""

import subprocess

import numpy as np
import pytest
from tests.deploy.c import random_operators as random

from lilliput.deploy.c import operators as op
from lilliput.deploy.c.arithmetic import DoubleRounding, SingleRounding
from lilliput.deploy.c.emit import emit, kernel_home
from lilliput.deploy.c.harness import measure, missing
from lilliput.deploy.c.operators import Window
from lilliput.deploy.c.targets import TARGETS

HOST, BOARDS = TARGETS["host"], [target for target in TARGETS.values() if target.board is not None]
DSP = [target for target in BOARDS if "dsp" in target.variants]
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror")
SANITIZED = "-fsanitize=address,undefined -fno-sanitize-recover=all"
SAME = (1, 1, 1, 1)
# Bytes of a window that is gathered.
OF_TWO = 288


def needs(target):
    return pytest.mark.skipif(missing(target) is not None, reason=str(missing(target)))


def convolved(image, filters, kernel=(3, 3), groups=1, **window):
    name = f"conv_{'x'.join(map(str, image))}_{filters}_{groups}_{kernel[0]}x{kernel[1]}_{len(window)}"
    return random._convolved(np.random.default_rng(image[2]), name, image, filters, Window(kernel=kernel, **window), groups)


def edges():
    """Windows about the size that is gathered, odd numbers of filters and pixels, channels about the size of a block."""
    for depth in (OF_TWO // 9, OF_TWO // 9 + 1, 300):
        yield convolved((3, 5, depth), 3, pads=SAME)
        yield convolved((4, 3, 2 * depth), 6, groups=2, pads=SAME, dilation=(2, 1))
    for filters in (1, 2, 3, 5):
        yield convolved((3, 3, 5), filters, (1, 1))
        yield convolved((3, 3, 5), filters, (2, 3), pads=(0, 1, 1, 1))
        yield convolved((1, 1, 11), filters, (1, 1))
    for channels in (2, 3, 4, 5, 11, 48, 52, 65, 130):
        yield convolved((4, 5, channels), channels, groups=channels, pads=SAME)
        yield convolved((5, 6, channels), channels, groups=channels, pads=(0, 0, 1, 1), stride=(2, 2))
    yield convolved((3, 40, 6), 6, (1, 30), groups=6, pads=(0, 20, 0, 20))
    yield convolved((14, 14, 8), 8, (13, 13), groups=8, pads=(6, 6, 6, 6))
    yield convolved((9, 9, 8), 8, (3, 3), groups=8, pads=(2, 2, 2, 2), dilation=(2, 2))
    yield convolved((6, 4, 8), 8, (3, 3), groups=8, pads=SAME, stride=(2, 1))
    yield convolved((25, 5, 8), 8, (5, 3), groups=8, pads=(2, 1, 2, 1))


def ties():
    """Sums on both sides of zero that fall between two codes, for every shift of both signs, and large ones."""
    source = op.Buffer(name="ties_in", shape=(1, 3, 1), scale=1.0, zero=0)
    exponents = np.repeat(np.arange(-29, 4), 32)
    step = np.maximum(np.exp2(-exponents - 1.0), 1)
    bias = np.clip(np.tile(np.arange(-16, 16), 33) * step, -(2**30) + 1, 2**30 - 1).astype(np.int64)
    out = op.Buffer(name="ties", shape=(1, 3, bias.size), scale=1.0, zero=3)
    return op.Convolution(inputs=(source,), output=out, layer="ties", image=(1, 3, 1), weights=np.zeros((bias.size, 1, 1, 1), np.int64), bias=bias,
                          factors=np.exp2(exponents.astype(float)))


def on_board(target, steps, rounding=DoubleRounding()):
    made = random.program(steps, rounding=rounding)
    given = random.samples(made)
    plan = random.side_by_side(made, target.pixels_at_once)
    return random.wrong(made, measure(plan, target, given).outputs, given)


@needs(HOST)
@pytest.mark.parametrize(("count", "rounding"), [(400, DoubleRounding()), (100, SingleRounding())])
def test_portable_kernels_on_this_machine(tmp_path, count, rounding):
    made = random.program([*random.operators(count, seed=1), *edges(), ties()], rounding=rounding)
    plan = random.side_by_side(made)
    emit(plan, tmp_path, samples=random.samples(made))
    # The main function of hundreds of steps takes a compiler long to optimize.
    for goal, flags in (("libmodel.a", "-O1"), ("test", "-O0")):
        done = subprocess.run(["make", "-s", goal, f"CFLAGS={flags} {SANITIZED} {' '.join(STRICT)}"], cwd=tmp_path, capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert done.stdout.endswith(" 0 wrong codes\n")


@pytest.mark.parametrize("target", [pytest.param(target, marks=needs(target), id=target.name) for target in BOARDS])
def test_random_operators_on_processors(target):
    assert on_board(target, random.operators(60, seed=2)) == {}


@pytest.mark.parametrize("target", [pytest.param(TARGETS[name], marks=needs(TARGETS[name]), id=name) for name in ("cortex-m0", "cortex-m4", "riscv32")])
@pytest.mark.parametrize("rounding", [DoubleRounding(), SingleRounding()])
def test_edges_on_processors(target, rounding):
    assert on_board(target, [*edges(), ties()], rounding) == {}


@needs(DSP[0])
def test_instructions_of_the_dsp_extension():
    """Fewer than CMSIS-NN takes for the same three layers."""
    layers = [(convolved((32, 32, 16), 16, pads=SAME), 5.49e6), (convolved((24, 24, 32), 32, groups=32, pads=SAME), 0.95e6),
              (convolved((24, 24, 32), 64, (1, 1)), 3.18e6)]
    for layer, bar in layers:
        made = random.program([layer])
        assert measure(random.side_by_side(made), DSP[0], random.samples(made, 1)).instructions <= 0.95 * bar, layer.layer


def compiled(target, source, folder, *flags):
    home = kernel_home()
    variant = [f"-I{home / name}" for name in target.variants]
    return subprocess.run([target.compiler, *STRICT, *target.flags, *target.libraries, *variant, f"-I{home}", *flags, "-c", str(source), "-o",
                           str(folder / "x.o")], capture_output=True, text=True, check=False)


@needs(DSP[0])
@pytest.mark.parametrize("level", ["-O0", "-Os", "-O3"])
def test_dsp_kernels_compile_without_warnings(tmp_path, level):
    """Without optimization too, where the compiler keeps a register for itself."""
    home = kernel_home()
    for name in ("lp_conv_s8.c", "lp_pointwise_s8.c", "lp_depthwise_s8.c"):
        for file in (*home.glob("*.h"), *(home / "dsp").glob("*.h")):
            (tmp_path / file.name).write_text(file.read_text())
        source = tmp_path / name
        source.write_text(next(path for path in (home / "dsp" / name, home / name) if path.is_file()).read_text())
        done = compiled(DSP[0], source, tmp_path, level)
        assert done.returncode == 0, done.stderr[:2000]


@needs(TARGETS["cortex-m3"])
def test_dsp_kernels_refuse_other_processors(tmp_path):
    for source in sorted((kernel_home() / "dsp").iterdir()):
        done = compiled(TARGETS["cortex-m3"], source, tmp_path, "-x", "c")
        assert done.returncode != 0
        assert "DSP extension" in done.stderr, source
