"""Rescaling in whole numbers, against gemmlowp's definitions and by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.core import PreconditionError
from lilliput.deploy.c.arithmetic import DoubleRounding, SingleRounding, divide, divide_by_power, high_multiply, multiplier_of

INT32 = st.integers(-(2**31), 2**31 - 1)


def test_multipliers_by_hand():
    assert multiplier_of(1.0) == (1 << 30, 1)
    assert multiplier_of(0.3) == (round(0.6 * 2**31), -1)
    # A fraction that rounds up to one moves into the shift.
    assert multiplier_of(1 - 2.0**-40) == (1 << 30, 1)
    assert multiplier_of(2.0**-40) == (0, 0)


@pytest.mark.parametrize("factor", [-0.1, math.nan, math.inf, 2.0**31])
def test_impossible_factors_are_refused(factor):
    with pytest.raises(PreconditionError, match="calibrate"):
        multiplier_of(factor)


@given(INT32, INT32)
def test_high_multiply_is_gemmlowps(a, b):
    if a == b == -(2**31):
        assert high_multiply(np.array(a), b) == 2**31 - 1
        return
    nudge = (1 << 30) if a * b >= 0 else 1 - (1 << 30)
    total = a * b + nudge
    assert high_multiply(np.array(a), b) == (abs(total) >> 31) * (1 if total >= 0 else -1)


@given(INT32, st.integers(0, 31))
def test_division_by_a_power_rounds_ties_away_from_zero(x, exponent):
    exact = Fraction(x, 2**exponent)
    nearest = math.floor(abs(exact) + Fraction(1, 2))
    assert divide_by_power(np.array(x), exponent) == (nearest if x >= 0 else -nearest)


def test_ties_by_hand():
    # 1 * 0.5: the high multiply gives 2^30 -> ties up; -1 * 0.5 ties up to 0.
    assert high_multiply(np.array([1, -1]), 1 << 30).tolist() == [1, 0]
    assert divide_by_power(np.array([5, -5, 6, -6]), 2).tolist() == [1, -1, 2, -2]
    assert divide(np.array([5, -5, 4, -4]), 2).tolist() == [3, -3, 2, -2]


@given(st.integers(-(2**20), 2**20), st.floats(2.0**-20, 2.0**9))
def test_both_roundings_are_near_the_real_product(x, factor):
    multiplier, shift = multiplier_of(factor)
    real = x * factor
    for rounding, most in ((DoubleRounding(), 1.0), (SingleRounding(), 0.5)):
        # The multiplier itself has 31 bits.
        assert abs(int(rounding(np.array(x), multiplier, shift)) - real) <= most + abs(real) * 2.0**-30


def test_roundings_differ_where_the_first_one_makes_a_tie():
    # 0.7 rounds to 1 first, and half of that away from zero; half of 0.7 is nearer to 0.
    multiplier = round(0.7 * 2**31)
    assert DoubleRounding()(np.array(1), multiplier, -1) == 1
    assert SingleRounding()(np.array(1), multiplier, -1) == 0
