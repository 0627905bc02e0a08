import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from lilliput.core.errors import RecipeError
from lilliput.quantize import Integer
from lilliput.quantize.low_precision import FP8, FP16, HALF, FixedPoint, Float, Nearest, Ranged, Rounded, Stochastic

ALL_FP8 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2).float()
FINITE_FP8 = ALL_FP8[torch.isfinite(ALL_FP8)]
formats = st.builds(Float, exponent=st.integers(2, 8), mantissa=st.integers(1, 20), saturate=st.booleans())
points = st.integers(1, 8).flatmap(lambda i: st.builds(FixedPoint, integer=st.just(i), fraction=st.integers(1, 16)))


@pytest.mark.parametrize("rounding", [Nearest(), Stochastic()])
def test_all_numbers_of_8_bits_round_to_themselves(rounding):
    assert len(FINITE_FP8) == 248
    assert FP8.bits == 8
    assert FP8.largest == FINITE_FP8.max()
    assert FP8.smallest == FINITE_FP8[FINITE_FP8 > 0].min()
    for _ in range(20):
        assert torch.equal(FP8.round(FINITE_FP8, rounding), FINITE_FP8)


def test_midpoints_go_to_even_and_their_neighbours_do_not():
    values = FINITE_FP8[FINITE_FP8 >= 0].unique()
    codes = torch.arange(len(values))  # the code of a non-negative number is its rank, so that even codes end in a zero bit
    middle = (values[:-1] + values[1:]) / 2
    even = torch.where(codes[:-1] % 2 == 0, values[:-1], values[1:])
    assert torch.equal(FP8.round(middle), even)
    assert torch.equal(FP8.round(-middle), -even)
    assert torch.equal(FP8.round(torch.nextafter(middle, values[:-1])), values[:-1])
    assert torch.equal(FP8.round(torch.nextafter(middle, values[1:])), values[1:])


def test_overflow_saturates_or_becomes_infinite():
    # Half a step above the largest number, 57344 + 4096, is the first to round away from it.
    x = torch.tensor([57344.0, 61439.0, 61440.0, 1e30, math.inf, -61440.0])
    assert FP8.round(x).tolist() == [57344.0] * 5 + [-57344.0]
    open_ended = Float(exponent=5, mantissa=2, saturate=False)
    assert open_ended.round(x).tolist() == [57344.0, 57344.0, math.inf, math.inf, math.inf, -math.inf]
    assert all(f.round(torch.tensor([math.nan])).isnan().all() for f in (FP8, FP16, HALF, FixedPoint(integer=2, fraction=3)))


@pytest.mark.parametrize(("mine", "theirs"), [(HALF, torch.float16), (Float(exponent=8, mantissa=7, saturate=False), torch.bfloat16)])
def test_formats_that_torch_has_round_alike(mine, theirs):
    everything = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(theirs).float()
    everything = everything[~everything.isnan()]
    assert torch.equal(mine.round(everything), everything)
    spread = torch.randn(20000) * 2.0 ** torch.randint(-30, 20, (20000,))
    ties = (everything[1:2000] + everything[:1999]) / 2
    for x in (spread, ties, torch.tensor([65519.0, 65520.0, 0.0, -0.0, 1e-8])):
        assert torch.equal(mine.round(x), x.to(theirs).float())


def test_sixteen_bits_of_the_paper():
    # 1-6-9: bias 31, so from 2^-39 to (2 - 2^-9) 2^31; spacing 2 from 1024 on.
    assert (FP16.bits, FP16.smallest, FP16.largest) == (16, 2.0**-39, (2 - 2.0**-9) * 2.0**31)
    assert FP16.round(torch.tensor([1025.0, 1026.0, 1027.0, 1029.0])).tolist() == [1024.0, 1026.0, 1028.0, 1028.0]


def test_fixed_point_worked_by_hand():
    # <3, 2>: quarters from -4 to 3.75; the paper would round the tie 0.125 up to 0.25.
    grid = FixedPoint(integer=3, fraction=2)
    assert (grid.bits, grid.smallest, grid.largest) == (5, 0.25, 3.75)
    assert grid.round(torch.tensor([0.125, 0.126, 0.375, -0.2, 3.9, 9.0, -4.2])).tolist() == [0.0, 0.25, 0.5, -0.25, 3.75, 3.75, -4.0]


@settings(max_examples=80, deadline=None)
@given(grid=st.one_of(formats, points), numbers=st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=20), double=st.booleans())
def test_any_format_rounds_to_one_of_two_neighbours_and_twice_as_once(grid, numbers, double):
    x = torch.tensor(numbers, dtype=torch.float64 if double else torch.float32)
    near = grid.round(x)
    assert near.dtype == torch.float32
    assert torch.equal(grid.round(near), near)
    assert torch.equal(grid.round(-near if isinstance(grid, Float) else near).abs(), near.abs())
    inside = x.abs() <= grid.largest
    chance = grid.round(x, Stochastic())
    assert torch.equal(grid.round(chance), chance)
    step = grid.smallest if isinstance(grid, FixedPoint) else (x.abs() * 2.0**-grid.mantissa).clamp_min(grid.smallest)
    assert bool(((near.double() - x.double()).abs() <= 0.5 * step)[inside].all())
    assert bool(((chance.double() - x.double()).abs() < step * (1 + 1e-6))[inside & (chance.abs() < grid.largest)].all())


@pytest.mark.parametrize(("grid", "x"), [(FixedPoint(integer=2, fraction=4), 0.3 / 16), (FixedPoint(integer=2, fraction=4), -0.77 / 16),
                                         (FP8, 1.1), (FP8, -3.3e-6), (FP16, 0.123456), (FP16, 2000.7)])
def test_stochastic_rounding_is_unbiased(grid, x):
    count = 400_000
    drawn = grid.round(torch.full((count,), x), Stochastic()).double()
    levels = drawn.unique()
    assert len(levels) == 2
    assert levels[0] < x < levels[1]
    gap = float(levels[1] - levels[0])
    share = (float(torch.tensor(x)) - float(levels[0])) / gap
    sigma = gap * math.sqrt(share * (1 - share) / count)
    assert abs(float(drawn.mean()) - float(torch.tensor(x))) < 6 * sigma
    # Rounding to nearest errs by more than all of that.
    assert abs(float(grid.round(torch.tensor([x]))) - x) > 20 * sigma


def test_the_generator_decides():
    x = torch.rand(1000)
    drawn = [FP8.round(x, Stochastic(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_ranged_values_are_whole_numbers_of_the_grid():
    x = torch.randn(50, 7) + 0.5
    values, scale = Ranged()(x)
    assert torch.equal(values, values.round())
    # 255 steps from the least to the largest value, with zero on the grid.
    assert float(values.max() - values.min()) == 255
    assert (values * scale - x).abs().max() <= 0.501 * scale
    wide = Ranged(grid=Integer(bits=16, signed=False, symmetric=False), rounding=Stochastic())(x)
    assert (wide.dense() - x).abs().max() < scale / 200
    assert Ranged(rounding=Stochastic()).nearest() == Ranged()
    zero = Ranged()(torch.zeros(3))
    assert torch.equal(zero.dense(), torch.zeros(3))


def test_a_cast_without_chance_is_the_nearest_one():
    cast = Rounded(format=FP8, rounding=Stochastic())
    x = torch.rand(100)
    assert torch.equal(cast.nearest()(x).dense(), FP8.round(x))
    assert not torch.equal(cast(x).dense(), FP8.round(x))


@pytest.mark.parametrize("build", [lambda: Float(exponent=1, mantissa=2), lambda: Float(exponent=9, mantissa=2), lambda: Float(exponent=5, mantissa=23),
                                   lambda: FixedPoint(integer=0, fraction=4), lambda: FixedPoint(integer=20, fraction=10)])
def test_formats_beyond_float32_are_refused(build):
    with pytest.raises(RecipeError, match="inside float32"):
        build()
