"""Lookup tables with learned thresholds (LLT), by hand."""

import pytest
import torch
from simulate import activation_quantizer, gradients, weight_quantizer
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import BitPlanes, Integer
from lilliput.quantize.simulations import LearnedLookup, Sharpening
from lilliput.train import Fit, State


def test_the_table_starts_as_rounding_and_its_steps_move():
    quantizer = activation_quantizer(LearnedLookup(places=9), 2, 3.0)
    x = torch.tensor([-1.0, 0.4, 0.6, 1.4, 1.6, 2.9, 7.0])
    assert quantizer.eval()(x).tolist() == pytest.approx([0, 0, 1, 1, 2, 3, 3])
    with torch.no_grad():
        # The first step at its first place, x = 1/18 of a level; the last at its last, 17/18.
        quantizer.simulation.logits[0] = 5
        quantizer.simulation.logits[-1] = 5
    assert quantizer(torch.tensor([0.05, 0.06, 2.94, 2.95])).tolist() == pytest.approx([0, 1, 2, 3])
    before = quantizer(x)
    assert quantizer.settle(None) is None
    assert quantizer.grid == BitPlanes(bits=2, signed=False)
    assert torch.equal(quantizer(x), before)


def test_the_soft_table_by_hand():
    quantizer = activation_quantizer(LearnedLookup(places=2), 2, 3.0)
    simulation = quantizer.simulation
    with torch.no_grad():
        simulation.logits.copy_(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 2.0]))
    simulation.heat = 0.5
    p = F.softmax(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]]), 1)
    heights = [0, p[0, 0] / 3, 1 / 3, (1 + p[1, 0]) / 3, 2 / 3, (2 + p[2, 0]) / 3, 1]
    torch.testing.assert_close(simulation.table(), torch.tensor([float(h) for h in heights]))
    # Six cells to the clip of three: x = 0.6 is nearest to the end of the first, 1.6 to that of the third.
    y, grad = gradients(quantizer, torch.tensor([0.6, 1.6, 5.0]))
    assert y.tolist() == pytest.approx([3 * float(heights[1]), 3 * float(heights[3]), 3])
    assert grad.tolist() == [1, 1, 0]
    # To the clip: T - x / s inside, 1 beyond.
    expected = float(heights[1]) - 0.2 + float(heights[3]) - 1.6 / 3 + 1
    assert simulation.reach.grad.item() == pytest.approx(expected, rel=1e-5)
    assert simulation.logits.grad.abs().sum() > 0


def test_a_cool_table_is_the_hard_one():
    torch.manual_seed(0)
    w = torch.randn(300)
    quantizer = weight_quantizer(LearnedLookup(places=5), Integer(bits=3), w)
    with torch.no_grad():
        quantizer.simulation.logits.normal_()
    quantizer.simulation.heat = 1e-3
    soft = quantizer(w)
    hard = quantizer.eval()(w)
    # Cells are wider than a threshold: values in the cell of a step may differ.
    assert ((soft - hard).abs() > 1e-5).float().mean() < 0.25
    cells = (w / quantizer.simulation.reach).clamp(-1, 1)
    centres = (cells * 15).round() / 15 * quantizer.simulation.reach.detach()
    assert ((quantizer.train()(centres) - quantizer.eval()(centres)).abs() < 1e-4).all()


def test_weights_settle_on_even_steps_and_keep_signs_apart():
    torch.manual_seed(0)
    w = torch.randn(3, 40)
    quantizer = weight_quantizer(LearnedLookup(), Integer(bits=3, axis=0), w)
    with torch.no_grad():
        quantizer.simulation.logits.normal_()
    before = quantizer.eval()(w)
    torch.testing.assert_close(quantizer(-w), -before)
    values = quantizer.settle(w)
    torch.testing.assert_close(values, before)
    assert torch.equal(quantizer(values), values)
    assert quantizer.grid == Integer(bits=3, axis=0)


def test_the_temperature_falls_by_equal_factors():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.quantizer = activation_quantizer(LearnedLookup(), 2, 3.0)

    network, hook = Network(), Sharpening(first=1.0, last=0.01)
    heats = []
    for step in (0, 49, 99):
        state = State(model=network, fabric=None, data=None, config=Fit(), total_steps=100, step=step)
        hook.batch(state, (None, None))
        heats.append(network.quantizer.simulation.heat)
    assert heats == pytest.approx([0.01**0.005, 0.01**0.495, 0.01**0.995])


def test_refusals():
    with pytest.raises(PreconditionError, match="integer"):
        weight_quantizer(LearnedLookup(), BitPlanes(), torch.ones(3))
    with pytest.raises(RecipeError, match="places"):
        LearnedLookup(places=0)
    with pytest.raises(RecipeError, match="temperatures"):
        Sharpening(first=0.1, last=1.0)
