"""What random operators do not reach of the Helium kernels: their limits, ties, and processors without Helium."""

import subprocess

import numpy as np
import pytest
import random_operators as random

from lilliput.deploy.c.arithmetic import DoubleRounding, SingleRounding
from lilliput.deploy.c.emit import kernel_home
from lilliput.deploy.c.harness import measure, missing
from lilliput.deploy.c.operators import Buffer, Convolution, Window
from lilliput.deploy.c.operators.in_place import InPlacePointwise
from lilliput.deploy.c.plan import greedy
from lilliput.deploy.c.targets import TARGETS

TARGET = TARGETS["cortex-m55"]
pytestmark = pytest.mark.skipif(missing(TARGET) is not None, reason=str(missing(TARGET)))
ONE, TWO = (1, 1, 1, 1), (2, 2, 2, 2)


def convolved(name, image, filters, kernel, groups=1, seed=0, **window):
    return random._convolved(np.random.default_rng(seed), name, image, filters, Window(kernel=kernel, **window), groups)


def large():
    """Windows of more than 576 bytes, which are not gathered."""
    return [convolved("inside_and_border", (6, 5, 30), 6, (5, 5), pads=TWO), convolved("two_filters", (4, 4, 40), 2, (5, 4), pads=(4, 0, 4, 1)),
            convolved("groups", (4, 5, 72), 10, (5, 5), 2, pads=TWO), convolved("few_in_groups", (3, 4, 72), 6, (5, 5), 2, pads=TWO),
            convolved("dilated", (7, 6, 70), 5, (3, 3), dilation=(2, 3), pads=(2, 3, 2, 3)),
            convolved("deep", (2, 2, 1200), 5, (2, 2), pads=(1, 1, 0, 0))]


def exact():
    """Windows of 576 bytes, and channels about the block sizes."""
    channels = (7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 80, 141)
    return [*(convolved(f"depthwise_{c}", (4, 4, c), c, (3, 3), c, seed=c, pads=ONE) for c in channels),
            convolved("gathered", (3, 3, 64), 9, (3, 3), pads=ONE), convolved("not_gathered", (3, 3, 65), 9, (3, 3), pads=ONE),
            convolved("outside", (2, 2, 16), 16, (3, 3), 16, pads=(3, 3, 3, 3)), convolved("outside_dense", (2, 2, 5), 5, (3, 3), pads=(3, 3, 3, 3))]


def in_place():
    """Pixels that are put together in scratch memory."""
    channels = ((5, 7), (16, 16), (40, 3), (17, 20))
    return [InPlacePointwise.of(convolved(f"in_place_{a}", (3, 4, a), b, (1, 1))) for a, b in channels]


def ties():
    """Sums that fall between two codes, on both sides of zero, for every shift; and sums near 2^30."""
    source = Buffer(name="ties_in", shape=(1, 1, 1), scale=1.0, zero=0)
    exponents = np.repeat(np.arange(-29, 1), 32)
    step = np.maximum(np.exp2(-exponents - 1), 1)
    bias = np.clip(np.tile(np.arange(-16, 16), 30) * step, -(2**30) + 1, 2**30 - 1).astype(np.int64)
    out = Buffer(name="ties", shape=(1, 1, bias.size), scale=1.0, zero=0)
    return [Convolution(inputs=(source,), output=out, layer="ties", image=(1, 1, 1), weights=np.zeros((bias.size, 1, 1, 1), np.int64), bias=bias,
                        factors=np.exp2(exponents))]


@pytest.mark.parametrize("steps", [large, exact, in_place, ties])
@pytest.mark.parametrize("rounding", [DoubleRounding(), SingleRounding()])
def test_limits(steps, rounding):
    made = random.program(steps(), rounding=rounding)
    given = random.samples(made)
    assert random.wrong(made, measure(greedy(made), TARGET, given).outputs, given) == {}


def test_ties_tell_the_roundings_apart():
    step = ties()[0]
    arrays = [np.zeros((1, 1, 1), np.int64)]
    assert (step.run(arrays, DoubleRounding()) != step.run(arrays, SingleRounding())).sum() > 50


@pytest.mark.parametrize(("step", "most"), [(convolved("conv", (32, 32, 16), 16, (3, 3), pads=ONE), 0.94e6),
                                            (convolved("depthwise", (24, 24, 32), 32, (3, 3), 32, pads=ONE), 0.46e6),
                                            (convolved("pointwise", (24, 24, 32), 64, (1, 1)), 0.73e6)])
def test_no_more_instructions_than_cmsis_nn(step, most):
    made = random.program([step])
    assert measure(greedy(made), TARGET, random.samples(made, 1)).instructions <= most


def test_other_processors_are_refused(tmp_path):
    home = kernel_home()
    for source in sorted((home / "mve").glob("*.c")):
        command = ["arm-none-eabi-gcc", "-mcpu=cortex-m33", "-mthumb", f"-I{home}", f"-I{home / 'mve'}", "-c", str(source)]
        done = subprocess.run([*command, "-o", str(tmp_path / "x.o")], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "need Helium (MVE)" in done.stderr, source
