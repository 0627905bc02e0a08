"""Additive powers of two with weight normalisation and learned clips (APoT), by hand."""

import pytest
import torch
from simulate import activation_quantizer, gradients, weight_quantizer

from lilliput.core.errors import PreconditionError
from lilliput.quantize import AdditivePowersOfTwo, Integer
from lilliput.quantize.simulations import PowersOfTwoClip


def test_activations_by_hand():
    # Unsigned, two bits, base two: 0, 1/4, 1/2, 1, times the clip of 4.
    quantizer = activation_quantizer(PowersOfTwoClip(), 2, 4.0)
    x, g = torch.tensor([-0.5, 0.3, 0.6, 1.4, 3.2, 9.0]), torch.arange(1.0, 7.0)
    y, grad = gradients(quantizer, x, g)
    assert y.tolist() == pytest.approx([0, 0, 1, 1, 4, 4])
    assert grad.tolist() == [0, 2, 3, 4, 5, 0]
    # dy/da: q(x / a) - x / a inside, 1 beyond the clip, 0 below zero.
    expected = 2 * (0 - 0.075) + 3 * (0.25 - 0.15) + 4 * (0.25 - 0.35) + 5 * (1 - 0.8) + 6 * 1
    assert quantizer.simulation.clip.grad.item() == pytest.approx(expected, rel=1e-5)


def test_weights_are_normalised_first():
    w = torch.tensor([0.9, -0.4, 0.1, -0.2, 0.6, 1.4])
    quantizer = weight_quantizer(PowersOfTwoClip(start=1.5), AdditivePowersOfTwo(bits=3), w)
    normal = (w - w.mean()) / w.std()
    # Signed, three bits: 0, +-1/4, +-1/2, +-1, times the clip and the deviation.
    levels = torch.tensor([-1, -0.5, -0.25, 0, 0.25, 0.5, 1])
    nearest = levels[(normal[:, None] / 1.5 - levels).abs().argmin(1)]
    y, grad = gradients(quantizer, w, torch.arange(1.0, 7.0))
    torch.testing.assert_close(y, 1.5 * w.std() * nearest)
    # The clip does not stop a weight's gradient; mean and deviation are constants; the deviation cancels.
    torch.testing.assert_close(grad, torch.arange(1.0, 7.0))
    inside = normal.abs() <= 1.5
    slope = torch.where(inside, nearest - normal / 1.5, normal.sign())
    assert quantizer.simulation.clip.grad.item() == pytest.approx((slope * torch.arange(1.0, 7.0)).sum().item() * w.std().item(), rel=1e-5)


def test_scaling_a_weight_changes_nothing_in_the_codes():
    torch.manual_seed(0)
    w = torch.randn(4, 3, 3, 3)
    grid = AdditivePowersOfTwo(bits=4, axis=0)
    small, large = (gradients(weight_quantizer(PowersOfTwoClip(), grid, s * w), s * w)[0] for s in (0.01, 1.0))
    torch.testing.assert_close(100 * small, large)


def test_clips_end_as_scales():
    quantizer = activation_quantizer(PowersOfTwoClip(), 4, 2.0)
    x = torch.linspace(-1, 3, 50)
    before = quantizer(x)
    assert quantizer.settle(None) is None
    assert quantizer.scale.item() == pytest.approx(2.0)
    assert torch.equal(quantizer(x), before)


def test_refusals():
    with pytest.raises(PreconditionError, match="AdditivePowersOfTwo"):
        weight_quantizer(PowersOfTwoClip(), Integer(), torch.ones(3))
