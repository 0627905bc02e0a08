"""Rates by hand and against codes that exist; bases orthonormal and rebuilt from integers; entropy-constrained codes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.core.cosine import cosine
from lilliput.factorize.bases import Cosine, Identity, Reflections, principal, reflections, restored, transformed
from lilliput.factorize.entropy import SHIFT, Codes, entropy_coded
from lilliput.factorize.rate import entropy_bits, gamma_bits, huffman_lengths, symbols_bits, table_bits


def rng(seed=0):
    return np.random.default_rng(seed)


def test_entropy_by_hand():
    assert entropy_bits([4, 4]) == 8
    assert entropy_bits([2, 1, 1, 0]) == 6
    assert entropy_bits([5]) == entropy_bits([0, 0]) == entropy_bits([]) == 0
    np.testing.assert_allclose(entropy_bits([[4, 4], [8, 0], [1, 7]]), [8, 0, math.log2(8) + 7 * math.log2(8 / 7)])


def test_table_bits_count_the_ways_to_split():
    # Three symbols over three values: C(5, 2) = 10 splits; the ends cost gamma(3) and gamma(0).
    assert table_bits([1, 1, 1]) == pytest.approx(math.log2(10) + 5 + 1)
    assert table_bits([0, 4, 0]) == pytest.approx(gamma_bits(1) + gamma_bits(1))
    assert table_bits([[0, 4, 0], [1, 1, 1]])[1] == table_bits([1, 1, 1])


@pytest.mark.parametrize(("length", "symbols"), [(1, 3), (4, 3), (6, 2), (3, 5)])
def test_codes_of_these_lengths_exist(length, symbols):
    """Kraft: over all messages of one length, table and codes together."""
    total = 0.0
    for message in itertools.product(range(symbols), repeat=length):
        counts = np.bincount(message, minlength=symbols)
        total += 2.0 ** -float(entropy_bits(counts) + table_bits(counts))
    assert 0 < total <= 1


@pytest.mark.parametrize(("value", "bits"), [(0, 1), (1, 3), (2, 3), (3, 5), (6, 5), (7, 7)])
def test_gamma_codes(value, bits):
    assert gamma_bits(value) == bits


def test_symbols_of_any_sign():
    assert symbols_bits(np.array([], dtype=np.int8)) == 0
    alone = symbols_bits(np.full(100, -3))
    assert alone == gamma_bits(1) + gamma_bits(0) + gamma_bits(6)
    assert symbols_bits(rng().integers(-4, 4, 4000)) == pytest.approx(3 * 4000, rel=0.02)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=9).filter(lambda c: sum(x > 0 for x in c) > 1))
def test_huffman_is_a_prefix_code_within_a_bit_of_entropy(counts):
    lengths = huffman_lengths(counts)
    used = np.array(counts) > 0
    assert (lengths[used] > 0).all()
    assert (lengths[~used] == 0).all()
    assert (2.0 ** -lengths[used]).sum() == pytest.approx(1)
    bits = (np.array(counts) * lengths).sum()
    assert entropy_bits(counts) - 1e-9 <= bits < entropy_bits(counts) + sum(counts)


def test_huffman_is_optimal_by_exhaustion():
    counts = [7, 3, 2, 2, 1]
    best = min(sum(c * n for c, n in zip(counts, lengths, strict=True)) for lengths in itertools.product(range(1, 5), repeat=5)
               if sum(2.0**-n for n in lengths) <= 1)
    assert (np.array(counts) * huffman_lengths(counts)).sum() == best
    assert huffman_lengths([0, 9]).tolist() == [0, 1]


def test_cosines_go_there_and_back():
    basis = Cosine((3, 5))
    np.testing.assert_array_equal(basis.matrix(), cosine((3, 5)))
    values = rng().normal(size=(4, 15))
    np.testing.assert_allclose(basis.values(basis.coefficients(values)), values, atol=1e-12)
    np.testing.assert_allclose(basis.coefficients(np.ones(15)), [math.sqrt(15), *[0] * 14], atol=1e-12)
    assert basis.bits == 0


@pytest.mark.parametrize(("size", "count"), [(2, 1), (9, 8), (20, 1), (20, 5), (20, 20)])
def test_reflections_make_the_vectors_and_stay_orthonormal(size, count):
    wanted = np.linalg.qr(rng().normal(size=(size, size)))[0][:, :count]
    basis = reflections(wanted)
    matrix = basis.matrix()
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(basis.values(basis.coefficients(np.eye(size))), np.eye(size), atol=1e-12)
    cosines = np.abs((matrix[:, :count] * wanted).sum(0))
    assert (cosines > 1 - 1e-3).all()
    assert basis.bits == 8 * sum(size - i for i in range(min(count, size - 1))) + gamma_bits(min(count, size - 1))


@given(st.integers(2, 6), st.data())
def test_any_codes_are_a_basis(size, data):
    """What a decoder reads is orthonormal whatever it says, as long as no vector is zero."""
    vectors = tuple(np.array(data.draw(st.lists(st.integers(-128, 127), min_size=size - i, max_size=size - i).filter(any)), dtype=np.int8)
                    for i in range(size - 1))
    matrix = Reflections(size, vectors).matrix()
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(size), atol=1e-9)


def test_principal_vectors_come_largest_first():
    moment = np.diag([1.0, 5.0, 3.0])
    np.testing.assert_allclose(np.abs(principal(moment)), np.eye(3)[:, [1, 2, 0]], atol=1e-12)


def test_transforms_undo_each_other_and_keep_lengths():
    values = rng().normal(size=(4, 6, 9))
    bases = (reflections(np.linalg.qr(rng().normal(size=(4, 4)))[0]), Identity(6), Cosine((3, 3)))
    coefficients = transformed(values, bases)
    np.testing.assert_allclose(restored(coefficients, bases), values, atol=1e-12)
    assert np.linalg.norm(coefficients) == pytest.approx(np.linalg.norm(values))


def test_bits_of_codes_by_hand():
    codes = Codes(codes=np.array([[-3, -3, -2, -2], [0, 0, 0, 0]], np.int32), rows=np.array([0, 1], np.int16), columns=np.zeros(4, np.int16),
                  tables=np.array([0, 1], np.int16), shifts=np.zeros(2, np.int8))
    bits = codes.bits
    # The first row has two symbols twice each, a bit apiece; the second has one.
    assert bits["codes"] == 4
    # Tables: C(5, 1) = 5 ways to split four among two from 0, and C(4, 0) = 1 among one from 3, four bits of shift each; the least code, -3.
    first, second = math.log2(5) + gamma_bits(2) + gamma_bits(0) + 4, gamma_bits(1) + gamma_bits(3) + 4
    assert bits["tables"] == pytest.approx(first + second + gamma_bits(6))
    # Labels of rows (one of each of two), of columns (all the same), and one bit to a sum of labels for where a table ends.
    assert bits["labels"] == pytest.approx(symbols_bits(codes.rows) + symbols_bits(codes.columns) + 2)
    assert symbols_bits(codes.rows) == pytest.approx(2 + math.log2(3) + gamma_bits(2) + gamma_bits(0) + gamma_bits(0))


@pytest.mark.parametrize("step", [0.25, 0.5, 1.0, 2.0])
def test_entropy_coded_gaussians_are_where_theory_puts_them(step):
    """At high rate 1.53 dB (0.25 bit) from the rate-distortion bound `6.02 dB per bit`; at low rate nearer."""
    values = rng().normal(size=(64, 512))
    codes = entropy_coded(values / step, np.ones_like(values), math.log(2) / 6)
    rate = sum(codes.bits.values()) / values.size
    noise = ((codes.values() * step - values) ** 2).mean()
    gap = 20 * math.log10(2) * rate + 10 * math.log10(noise)
    assert 0.8 < gap < 1.65
    assert codes.bits["tables"] + codes.bits["labels"] < 0.02 * codes.bits["codes"]


def test_a_larger_slope_buys_fewer_bits_for_more_distortion():
    values = rng().laplace(size=(32, 256))
    found = [entropy_coded(values, np.ones_like(values), slope) for slope in (0.0, 0.1, 0.3, 1.0)]
    rates = [sum(c.bits.values()) for c in found]
    errors = [float(((c.values() - values) ** 2).sum()) for c in found]
    assert rates == sorted(rates, reverse=True)
    assert errors == sorted(errors)
    # The dead zone: more zeros than rounding leaves.
    assert (found[2].codes == 0).mean() > (np.rint(values) == 0).mean() + 0.05


def test_the_choice_of_codes_minimises_what_it_says():
    """No single code can be changed to the benefit of distortion plus slope times bits, tables being fixed."""
    values, slope = 1.5 * rng().normal(size=(20, 40)), 0.3
    found = entropy_coded(values, np.ones_like(values), slope)
    low, high = found.codes.min() - 1, found.codes.max() + 1
    counts = np.bincount((found.codes - low).ravel(), minlength=high - low + 1)
    lengths = -np.log2(np.maximum(counts, 0.3) / counts.sum())
    shape = found.codes.shape
    now = (values - found.codes) ** 2 + slope * lengths[found.codes - low]
    gains = [now - (values - other) ** 2 - slope * lengths[other - low] for other in (np.zeros(shape, int), *(found.codes + d for d in (-1, 1)))]
    # Tables were made again after the last choice, so a few codes stand where two choices cost the same.
    assert np.mean(np.max(gains, axis=0) > 0.05) < 0.01


def test_rows_and_columns_of_different_spread_get_tables_of_their_own():
    spread = 2.0 ** np.linspace(-2, 4, 24)
    values = rng().normal(size=(200, 24)) * spread
    codes = entropy_coded(values, np.ones_like(values), math.log(2) / 6)
    mixed = entropy_coded(rng().permuted(values.ravel()).reshape(200, 24), np.ones_like(values), math.log(2) / 6)
    assert len(codes.shifts) > 3
    assert sum(codes.bits.values()) < 0.85 * sum(mixed.bits.values())
    assert len(np.unique(codes.columns)) > 3
    assert sum(entropy_coded(values.T.copy(), np.ones((24, 200)), math.log(2) / 6).bits.values()) == pytest.approx(
        sum(codes.bits.values()), rel=0.01)


def test_reconstruction_points_move_inwards_by_32nds():
    codes = np.array([[0, 1, -2]], dtype=np.int32)
    found = Codes(codes=codes, rows=np.zeros(1, np.int16), columns=np.array([0, 0, 1], np.int16), tables=np.array([0, 1], np.int16),
                  shifts=np.array([4, 8], np.int8))
    np.testing.assert_allclose(found.values(), [[0, 1 - 4 * SHIFT, -2 + 8 * SHIFT]])
    assert found.classes.tolist() == [[0, 0, 1]]


def test_all_zeros_cost_almost_nothing():
    codes = entropy_coded(np.zeros((64, 64)), np.ones((64, 64)), 0.1)
    assert not codes.codes.any()
    assert sum(codes.bits.values()) < 30
