"""Soft staircases (DSQ), by hand."""

import math

import pytest
import torch
from simulate import activation_quantizer, gradients, weight_quantizer

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import BitPlanes, Integer
from lilliput.quantize.simulations import SoftStaircase
from lilliput.quantize.simulations.dsq import soft_steps


def test_the_staircase_by_hand():
    a = torch.tensor(0.2)
    k = math.log(2 / 0.2 - 1)
    # The paper's phi = s tanh(k (x - m)) with s = 1 / (1 - a) and m the middle, for a step of one.
    for v in (0.0, 0.3, 0.5, 0.9, 3.3, -1.2):
        middle = math.floor(v) + 0.5
        phi = math.tanh(k * (v - middle)) / (1 - 0.2)
        assert soft_steps(torch.tensor(v), a).item() == pytest.approx(math.floor(v) + (phi + 1) / 2, abs=1e-6)
    # Pieces meet at the levels; little softness makes steps, much the identity.
    levels = torch.arange(-3.0, 4.0)
    torch.testing.assert_close(soft_steps(levels, a), levels)
    torch.testing.assert_close(soft_steps(levels - 1e-6, a), levels, atol=1e-4, rtol=0)
    v = torch.tensor([0.2, 0.4, 1.7])
    torch.testing.assert_close(soft_steps(v, torch.tensor(1e-12)), v.round(), atol=1e-2, rtol=0)
    torch.testing.assert_close(soft_steps(v, torch.tensor(0.999)), v, atol=1e-2, rtol=0)


def test_slopes_against_finite_differences():
    torch.manual_seed(0)
    v = (torch.rand(30, dtype=torch.float64) * 6 - 3).requires_grad_()
    a = torch.tensor(0.15, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_steps, (v, a), eps=1e-7, atol=1e-5)


def test_hard_forward_soft_backward():
    quantizer = activation_quantizer(SoftStaircase(softness=0.2), 2, 3.0)
    x = torch.tensor([-1.0, 0.3, 1.45, 2.0, 5.0])
    y, grad = gradients(quantizer, x)
    assert y.tolist() == [0, 0, 1, 2, 3]
    inner = x[1:3].clone().requires_grad_()
    soft_steps(inner, torch.tensor(0.2)).sum().backward()
    torch.testing.assert_close(grad[1:3], inner.grad)
    assert grad[0] == grad[4] == 0
    # Beyond the range the scale alone counts: three steps.
    scale = quantizer.simulation.scale
    assert scale.grad is not None
    scale.grad = None
    gradients(quantizer, torch.tensor([5.0]))
    assert scale.grad.item() == 3


def test_weights_start_at_the_scale_of_their_mean():
    torch.manual_seed(0)
    w = torch.randn(3, 50)
    quantizer = weight_quantizer(SoftStaircase(), Integer(bits=3, axis=0), w)
    torch.testing.assert_close(quantizer.simulation.scale.detach(), 2 * w.abs().mean(1) / 3**0.5)
    before = quantizer(w).detach()
    values = quantizer.eval().settle(w)
    assert torch.equal(values, before)
    assert torch.equal(quantizer(values), values)


def test_refusals():
    with pytest.raises(PreconditionError, match="integer"):
        weight_quantizer(SoftStaircase(), BitPlanes(), torch.ones(3))
    with pytest.raises(RecipeError, match="softness"):
        SoftStaircase(softness=0)
