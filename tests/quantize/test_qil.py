"""Learned intervals (QIL), by hand."""

import pytest
import torch
from simulate import activation_quantizer, gradients, weight_quantizer

from lilliput.core.errors import PreconditionError
from lilliput.quantize import BitPlanes, Integer
from lilliput.quantize.simulations import LearnedInterval
from lilliput.quantize.simulations.qil import transformed


def test_the_transformer_by_hand():
    c, d = torch.tensor(0.6), torch.tensor(0.4)
    x = torch.tensor([0.1, 0.2, 0.4, 0.6, 1.0, 1.5])
    torch.testing.assert_close(transformed(x, c, d), torch.tensor([0, 0, 0.25, 0.5, 1, 1]))
    torch.testing.assert_close(transformed(x, c, d, torch.tensor(2.0)), torch.tensor([0, 0, 0.0625, 0.25, 1, 1]))
    # alpha = 0.5 / d and beta = -0.5 c / d + 0.5, as the paper writes it.
    inside = x[2:4]
    torch.testing.assert_close(transformed(inside, c, d), (0.5 / d) * inside - 0.5 * c / d + 0.5)


def test_gradients_of_the_interval_against_finite_differences():
    torch.manual_seed(0)
    x = torch.rand(20, dtype=torch.float64) * 2
    parameters = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.8, 0.5, 1.3)]
    assert torch.autograd.gradcheck(lambda c, d, g: transformed(x, c, d, g), parameters, eps=1e-7, atol=1e-5)


def _weights():
    w = torch.tensor([0.05, -0.3, 0.5, -0.9, 2.0])
    quantizer = weight_quantizer(LearnedInterval(), Integer(bits=3), w)
    with torch.no_grad():
        quantizer.simulation.centre.fill_(0.6)
        quantizer.simulation.radius.fill_(0.4)
    return w, quantizer


def test_weights_are_pruned_clipped_and_spread():
    w, quantizer = _weights()
    unit = quantizer.simulation.get_buffer("unit")
    # The start: a step of 2 E|w| / sqrt(3), times three.
    assert unit.item() == pytest.approx(2 * w.abs().mean().item() * 3**0.5)
    y, grad = gradients(quantizer, w, torch.arange(1.0, 6.0))
    # Transformed: 0, -0.125, 0.375, -0.875, 1; rounded to thirds.
    assert (y / unit).tolist() == pytest.approx([0, 0, 1 / 3, -1, 1])
    # Slope 0.5 / d inside the interval, none outside.
    assert (grad / unit).tolist() == pytest.approx([0, 2 * 1.25, 3 * 1.25, 4 * 1.25, 0])
    # dy/dc = -0.5 sign / d; dy/dd = -0.5 (|x| - c) sign / d^2.
    assert (quantizer.simulation.centre.grad / unit).item() == pytest.approx(-1.25 * (-2 + 3 - 4), rel=1e-4)
    expected = sum(-0.5 * (abs(v) - 0.6) * s / 0.16 for v, s in ((0.3, -2), (0.5, 3), (0.9, -4)))
    assert (quantizer.simulation.radius.grad / unit).item() == pytest.approx(expected, rel=1e-4)


def test_weights_settle_on_even_steps():
    w, quantizer = _weights()
    values = quantizer.eval().settle(w)
    assert torch.equal(quantizer(values), values)
    assert quantizer.grid == Integer(bits=3)


def test_activations_end_as_even_levels_with_thresholds_of_their_own():
    quantizer = activation_quantizer(LearnedInterval(), 2, 3.0)
    x = torch.linspace(-1, 5, 200)
    # The interval is the calibrated range at first: plain rounding.
    plain = (x / 1.0).round().clamp(0, 3)
    assert ((quantizer(x) - plain).abs() > 1e-6).sum() <= 3  # halves may go either way
    with torch.no_grad():
        quantizer.simulation.centre.fill_(2.0)
        quantizer.simulation.radius.fill_(1.0)
    expected = (transformed(x, torch.tensor(2.0), torch.tensor(1.0)) * 3).round()
    got = quantizer(x)
    assert ((got - expected).abs() > 1e-6).sum() <= 1
    assert quantizer.settle(None) is None
    assert quantizer.grid == BitPlanes(bits=2, signed=False)
    assert torch.equal(quantizer(x), got)
    assert (quantizer.thresholds * 3).tolist() == pytest.approx([1 + 1 / 3, 2, 3 - 1 / 3])


def test_refusals():
    with pytest.raises(PreconditionError, match="integer"):
        weight_quantizer(LearnedInterval(), BitPlanes(), torch.ones(3))
