"""Learned clips (PACT), and their calibrated gradient (SAT), by hand."""

import pytest
import torch
from simulate import activation_quantizer, gradients, weight_quantizer

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import Integer
from lilliput.quantize.simulations import CalibratedClip, LearnedClip

X, G = torch.tensor([-0.8, 0.3, 1.2, 2.6, 3.0, 7.0]), torch.arange(1.0, 7.0)


def test_the_clip_and_the_gradients_of_the_paper():
    quantizer = activation_quantizer(LearnedClip(decay=0), 2, 3.0)
    y, grad = gradients(quantizer, X, G)
    # 0.5 (|x| - |x - a| + a), rounded to thirds of a = 3.
    assert y.tolist() == [0, 0, 1, 3, 3, 3]
    assert grad.tolist() == [0, 2, 3, 4, 0, 0]
    # Equation 3: dy/da is 0 below a and 1 from a on.
    assert quantizer.simulation.top.grad.item() == 5 + 6


def test_the_clip_is_pulled_to_zero_by_its_own_decay():
    quantizer = activation_quantizer(LearnedClip(decay=0.01), 2, 3.0)
    gradients(quantizer, X, G)
    assert quantizer.simulation.top.grad.item() == pytest.approx(5 + 6 + 0.01 * 3)


def test_the_calibrated_gradient_is_that_of_rounding_and_clipping():
    quantizer = activation_quantizer(CalibratedClip(decay=0), 2, 3.0)
    y, grad = gradients(quantizer, X, G)
    assert y.tolist() == [0, 0, 1, 3, 3, 3]
    assert grad.tolist() == [0, 2, 3, 4, 5, 0]
    # q(x / a) - x / a below the clip: -0.1, 1/3 - 0.4, 1 - 2.6 / 3, 0; 1 beyond.
    expected = 2 * -0.1 + 3 * (1 / 3 - 0.4) + 4 * (1 - 2.6 / 3) + 5 * 1 + 6 * 1
    assert quantizer.simulation.top.grad.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("estimator", [LearnedClip(), CalibratedClip()])
def test_the_step_at_the_end_is_that_of_the_clip(estimator):
    quantizer = activation_quantizer(estimator, 4, 3.0)
    with torch.no_grad():
        quantizer.simulation.top.fill_(1.5)
    before = quantizer(X)
    assert quantizer.settle(None) is None
    assert quantizer.scale.item() == pytest.approx(0.1)
    assert torch.equal(quantizer(X), before)
    assert quantizer.integer


def test_refusals():
    for estimator in (LearnedClip(), CalibratedClip()):
        with pytest.raises(PreconditionError, match="never negative"):
            weight_quantizer(estimator, Integer(), torch.ones(3))
    with pytest.raises(RecipeError, match="decay"):
        activation_quantizer(LearnedClip(decay=-1), 2, 1.0)
