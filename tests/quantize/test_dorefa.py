"""Weights behind a tanh (DoReFa), and adjusted in scale (SAT), by hand."""

import pytest
import torch
from simulate import activation_quantizer, gradients, weight_quantizer

from lilliput.core.errors import PreconditionError
from lilliput.quantize import BitPlanes, Integer
from lilliput.quantize.simulations import CalibratedRange, ScaleAdjustedLevels, TanhLevels
from lilliput.quantize.simulations.dorefa import squashed


def test_levels_by_hand():
    w = torch.tensor([0.2, -0.5, 1.0, 0.01])
    # tanh: 0.1974, -0.4621, 0.7616, 0.0100; over the largest: 0.2592, -0.6068, 1, 0.0131. Levels of two bits: -1, -1/3, 1/3, 1.
    y, _ = gradients(weight_quantizer(TanhLevels(), BitPlanes(), w), w)
    assert (y / w.tanh().max()).tolist() == pytest.approx([1 / 3, -1 / 3, 1, 1 / 3])
    n = 2**3 - 1
    paper = 2 * (n * (squashed(w) / 2 + 0.5)).round() / n - 1
    y, _ = gradients(weight_quantizer(TanhLevels(), BitPlanes(bits=3, axis=0), w[:, None]), w[:, None])
    torch.testing.assert_close(y[:, 0] / w.tanh().max(), paper)


def test_the_gradient_is_that_of_the_squashed_weight():
    w, g = torch.tensor([0.2, -0.5, 1.0, 0.01]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    _, grad = gradients(weight_quantizer(TanhLevels(), BitPlanes(), w), w, g)
    t, top = w.tanh(), w.tanh().max()
    # t / max t: the largest weight is 1 whatever it is, and moves all others. Times max t, the factor that is fixed.
    expected = g * (1 - t**2)
    expected[2] = -(g * t)[[0, 1, 3]].sum() / top * (1 - top**2)
    torch.testing.assert_close(grad, expected)
    step = 1e-3
    for i in range(4):
        moved = w.repeat(2, 1)
        moved[0, i] += step
        moved[1, i] -= step
        high, low = ((squashed(row) * top * g).sum() for row in moved)
        assert grad[i].item() == pytest.approx(((high - low) / (2 * step)).item(), abs=2e-3)


def test_one_bit_is_the_sign_times_the_mean_magnitude():
    w, g = torch.tensor([0.4, -0.2, 0.6]), torch.tensor([1.0, 2.0, 3.0])
    y, grad = gradients(weight_quantizer(TanhLevels(), BitPlanes(bits=1), w), w, g)
    assert y.tolist() == pytest.approx([0.4, -0.4, 0.4])
    assert grad.tolist() == [1, 2, 3]


def test_activations_are_clipped_at_the_calibrated_range():
    y, grad = gradients(activation_quantizer(CalibratedRange(), 2, 3.0), torch.tensor([-1.0, 0.4, 1.6, 2.9, 5.0]))
    assert y.tolist() == [0, 0, 2, 3, 3]
    assert grad.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("grid", [BitPlanes(bits=3, axis=0), BitPlanes(bits=4), Integer(bits=8, axis=0)])
def test_rescaling_gives_the_variance_one_over_fan_out(grid):
    torch.manual_seed(0)
    w = torch.randn(6, 4, 3, 3) * 0.3
    y, _ = gradients(weight_quantizer(ScaleAdjustedLevels(), grid, w), w)
    assert y.var(correction=0).item() == pytest.approx(1 / (6 * 9), rel=1e-4)
    plain, _ = gradients(weight_quantizer(TanhLevels(), grid, w), w)
    torch.testing.assert_close(y / y.abs().max(), plain / plain.abs().max())


def test_the_factor_of_the_rescaling_is_a_constant_for_the_gradient():
    torch.manual_seed(0)
    w, g = torch.randn(3, 2), torch.randn(3, 2)
    quantizer = weight_quantizer(ScaleAdjustedLevels(), BitPlanes(bits=3), w)
    y, grad = gradients(quantizer, w, g)
    plain, reference = gradients(weight_quantizer(TanhLevels(), BitPlanes(bits=3), w), w, g)
    torch.testing.assert_close(grad, reference * (y.abs().max() / plain.abs().max()))


def test_refusals():
    for estimator in (TanhLevels(), ScaleAdjustedLevels()):
        with pytest.raises(PreconditionError, match="weights"):
            activation_quantizer(estimator, 4, 1.0)
