"""Ternary weights with one scale (TWN) and two learned ones (TTQ), by hand."""

import pytest
import torch
from simulate import activation_quantizer, gradients, weight_quantizer

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import Integer, Ternary
from lilliput.quantize.simulations import TernaryThreshold, TrainedTernary
from lilliput.quantize.simulations.ternary import ternary_scale


def test_threshold_and_scale_by_hand():
    w = torch.tensor([0.4, -0.8, 1.2, 0.1, 0.0])
    threshold, scale = ternary_scale(w, 0.7, None)
    assert threshold.item() == pytest.approx(0.35)
    assert scale.item() == pytest.approx(0.8)
    y, grad = gradients(weight_quantizer(TernaryThreshold(), Ternary(), w), w, torch.arange(5.0))
    assert y.tolist() == pytest.approx([0.8, -0.8, 0.8, 0, 0])
    assert grad.tolist() == [0, 1, 2, 3, 4]
    rows = torch.stack([w, 2 * w])
    threshold, scale = ternary_scale(rows, 0.7, 0)
    assert threshold.tolist() == pytest.approx([0.35, 0.7])
    assert scale.tolist() == pytest.approx([0.8, 1.6])


def test_the_threshold_is_nearly_that_of_least_squared_error():
    torch.manual_seed(0)
    w = torch.randn(20_000)

    def error(factor):
        threshold, scale = ternary_scale(w, factor, None)
        return (w - scale * w.sign() * (w.abs() > threshold)).square().mean()

    best = min(error(0.3 + 0.05 * i) for i in range(20))
    assert error(0.7) <= 1.02 * best


def test_weights_of_zero_stay_zero():
    y, _ = gradients(weight_quantizer(TernaryThreshold(), Ternary(axis=0), torch.zeros(2, 3)), torch.zeros(2, 3))
    assert y.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_two_scales_start_at_means_and_have_the_gradients_of_the_paper():
    w = torch.tensor([0.5, 1.0, -0.1, 0.04, -0.7, 0.0])
    quantizer = weight_quantizer(TrainedTernary(share=0.05), Ternary(), w)
    p, n = quantizer.simulation.scales.tolist()
    assert (p, n) == pytest.approx((0.75, 0.4))
    g = torch.arange(1.0, 7.0)
    y, grad = gradients(quantizer, w, g)
    assert y.tolist() == pytest.approx([p, p, -n, 0, -n, 0])
    # Equation 7: sums over the weights at each level; equation 8: p g, g and n g.
    assert quantizer.simulation.scales.grad.tolist() == pytest.approx([1 + 2, -(3 + 5)])
    assert grad.tolist() == pytest.approx([p * 1, p * 2, n * 3, 4, n * 5, 6])


def test_the_scales_have_the_slopes_of_what_they_compute():
    w = torch.tensor([0.5, 1.0, -0.1, 0.04, -0.7])
    quantizer = weight_quantizer(TrainedTernary(), Ternary(), w)
    weights = torch.tensor([1.0, -2.0, 3.0, 4.0, 0.5])
    gradients(quantizer, w, weights)
    scales, step = quantizer.simulation.scales, 1e-3
    for i in range(2):
        moved = []
        for sign in (1, -1):
            with torch.no_grad():
                scales[i] += sign * step
                moved.append((quantizer(w) * weights).sum())
                scales[i] -= sign * step
        assert scales.grad[i].item() == pytest.approx(((moved[0] - moved[1]) / (2 * step)).item(), rel=1e-3)


def test_the_two_scales_end_as_a_table():
    w = torch.tensor([[0.5, 1.0], [-0.1, -0.7]])
    quantizer = weight_quantizer(TrainedTernary(), Ternary(axis=0), w)
    values = quantizer.eval().settle(w)
    assert quantizer.grid.axis is None
    assert quantizer.levels.tolist() == pytest.approx([-0.4 / 0.75, 0, 1])
    assert not quantizer.integer
    assert torch.equal(quantizer(values), values)
    plain = weight_quantizer(TernaryThreshold(), Ternary(axis=0), w)
    plain.eval().settle(w)
    assert plain.integer


def test_refusals():
    for estimator in (TernaryThreshold(), TrainedTernary()):
        with pytest.raises(PreconditionError, match="Ternary"):
            weight_quantizer(estimator, Integer(), torch.ones(2))
        with pytest.raises(PreconditionError, match="Ternary"):
            activation_quantizer(estimator, 2, 1.0)
    with pytest.raises(RecipeError, match="factor"):
        TernaryThreshold(factor=0)
    with pytest.raises(RecipeError, match="share"):
        TrainedTernary(share=1)
