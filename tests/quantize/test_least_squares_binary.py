"""Sums of scaled signs of least squared error, by hand and against trying everything."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulate import gradients, weight_quantizer

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import BitPlanes, Integer, Quantizer
from lilliput.quantize.simulations import Greedy, LeastSquaresSigns, Optimal


def test_scales_by_hand():
    row = torch.tensor([[1.0, -2.0, 6.0, -3.0]])
    assert Optimal()(row, 1).tolist() == [[3.0]]
    # Greedy: 3; of what is left, |1 - 3|, |2 - 3|, |6 - 3| and 0, the mean 1.5.
    assert Greedy()(row, 2).tolist() == [[3.0, 1.5]]
    # Splits of 1, 2, 3, 6: the last alone is best, means 2 and 6.
    assert Optimal()(row, 2).tolist() == [[4.0, 2.0]]


def _error(row, scales):
    sums = torch.tensor([sum(s * v for s, v in zip(signs, scales, strict=True)) for signs in itertools.product((-1, 1), repeat=len(scales))])
    return (row[:, None] - sums).square().amin(1).sum()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=12))
def test_two_signs_are_the_best_there_are(values):
    row = torch.tensor(values)
    best = _error(row, Optimal()(row[None], 2)[0].tolist())
    assert best <= _error(row, Greedy()(row[None], 2)[0].tolist()) + 1e-4
    steps = torch.linspace(0, 3, 16).tolist()
    assert all(best <= _error(row, pair) + 1e-4 for pair in itertools.product(steps, steps))


def test_every_further_sign_lowers_the_error():
    torch.manual_seed(0)
    row = torch.randn(200)
    errors = [_error(row, Greedy()(row[None], bits)[0].tolist()) for bits in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    # Of least squared error for one: any other scale is worse.
    assert all(errors[0] <= _error(row, [Greedy()(row[None], 1)[0, 0] * f]) for f in (0.9, 1.1))


def test_weights_have_scales_of_their_own_in_every_step():
    w = torch.tensor([[1.0, -2.0, 6.0, -3.0], [-0.1, 0.1, 0.3, -0.3]])
    quantizer = weight_quantizer(LeastSquaresSigns(), BitPlanes(axis=0), w)
    y, grad = gradients(quantizer, w)
    torch.testing.assert_close(y, torch.tensor([[2.0, -2, 6, -2], [-0.1, 0.1, 0.3, -0.3]]))
    assert (grad == 1).all()
    torch.testing.assert_close(gradients(quantizer, 10 * w)[0], 10 * y)
    values = quantizer.eval().settle(w)
    assert quantizer.levels.shape == (2, 4)
    assert torch.equal(quantizer(values), values)


def _activation(estimator, bits=2):
    quantizer = Quantizer(BitPlanes(bits=bits), layer="layer", weight=False)
    quantizer.set(BitPlanes(bits=bits).parameters(torch.tensor(-3.0), torch.tensor(3.0)))
    estimator.equip_(quantizer, None)
    return quantizer.train()


def test_activations_have_averages_of_the_batches():
    quantizer = _activation(LeastSquaresSigns(keep=0.9))
    # Even levels of the calibrated range at first: 3 = 2 + 1.
    assert quantizer.simulation.scales.tolist() == [2.0, 1.0]
    x = torch.tensor([1.0, -2.0, 6.0, -3.0])
    y, grad = gradients(quantizer, x)
    assert quantizer.simulation.scales.tolist() == pytest.approx([2 + 0.1 * 2, 1 + 0.1 * 1])
    assert y.tolist() == pytest.approx([1.1, -1.1, 3.3, -3.3])
    # The gradient stops beyond the largest level.
    assert grad.tolist() == [1, 1, 0, 1]
    quantizer.eval()(10 * x)
    assert quantizer.simulation.scales.tolist() == pytest.approx([2.2, 1.1])
    before = quantizer(x)
    assert quantizer.settle(None) is None
    torch.testing.assert_close(quantizer(x), before)


def test_refusals():
    with pytest.raises(PreconditionError, match="BitPlanes"):
        weight_quantizer(LeastSquaresSigns(), Integer(), torch.ones(3))
    with pytest.raises(RecipeError, match="Greedy"):
        weight_quantizer(LeastSquaresSigns(), BitPlanes(bits=3, axis=0), torch.ones(2, 3))
    with pytest.raises(RecipeError, match="keep"):
        LeastSquaresSigns(keep=1.0)
    quantizer = weight_quantizer(LeastSquaresSigns(basis=Greedy()), BitPlanes(bits=3, axis=0), torch.randn(2, 9))
    assert quantizer.simulation.scales.shape == (2, 3)
