"""Powers of two by partition (INQ), by hand."""

import pytest
import torch
from quantize_nets import arrays
from simulate import gradients, weight_quantizer
from torch import nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import Integer, PowerOfTwo, equip
from lilliput.quantize.calibrate import quantizers
from lilliput.quantize.recipes import inq
from lilliput.quantize.simulations import Incremental, IncrementalPowers
from lilliput.train import SGD, Fit, Hook, fit

# floor(log2(4 * 0.9 / 3)) = floor(0.263) = 0: powers 1, 1/2, 1/4 with three bits.
W = torch.tensor([0.9, -0.7, 0.3, -0.1, 0.4, 0.05])


def test_levels_and_partition_by_hand():
    quantizer = weight_quantizer(IncrementalPowers(), PowerOfTwo(bits=3), W)
    simulation = quantizer.simulation
    assert simulation.top.item() == 1
    assert quantizer(W).tolist() == W.tolist()
    simulation.freeze_(W, 0.5)
    assert simulation.frozen.tolist() == [True, True, False, False, True, False]
    y, grad = gradients(quantizer, W)
    # 0.9 -> 1, -0.7 -> -1/2 (below 3/4), 0.4 -> 1/2 (above 3/8).
    assert y.tolist() == pytest.approx([1, -0.5, 0.3, -0.1, 0.5, 0.05])
    assert grad.tolist() == [0, 0, 1, 1, 0, 1]
    # In evaluation all are on the grid: 0.3 -> 1/4, 0.1 and 0.05 -> 0.
    assert quantizer.eval()(W).tolist() == [1, -0.5, 0.25, 0, 0.5, 0]


def test_the_paper_s_rule_is_the_nearest_level():
    torch.manual_seed(0)
    w = torch.randn(500)
    quantizer = weight_quantizer(IncrementalPowers(), PowerOfTwo(bits=5), w).eval()
    top = 2.0 ** torch.floor(torch.log2(4 * w.abs().max() / 3))
    powers = sorted(top * 2.0**-i for i in range(15))
    expected = torch.zeros_like(w)
    for low, high in zip([torch.tensor(0.0), *powers], powers, strict=False):
        chosen = (w.abs() >= (low + high) / 2) & (w.abs() < 3 * high / 2)  # equation 4
        expected[chosen] = high * w.sign()[chosen]
    torch.testing.assert_close(quantizer(w), expected)


def test_frozen_weights_stay_what_they_were():
    quantizer = weight_quantizer(IncrementalPowers(), PowerOfTwo(bits=3), W)
    quantizer.simulation.freeze_(W, 0.5)
    moved = W + 0.3
    assert quantizer(moved)[[0, 1, 4]].tolist() == [1, -0.5, 0.5]
    quantizer.simulation.freeze_(moved, 0.75)
    assert int(quantizer.simulation.frozen.sum()) == round(0.75 * 6)
    assert quantizer(moved)[[0, 1, 4]].tolist() == [1, -0.5, 0.5]
    # The largest of the others: 0.3, which has become 0.6.
    assert quantizer.simulation.frozen[2]
    quantizer.simulation.freeze_(moved, 1.0)
    values = quantizer.eval().settle(moved)
    assert torch.equal(quantizer(values), values)
    assert values[[0, 1, 2, 4]].tolist() == [1, -0.5, 0.5, 0.5]


def test_freezes_in_any_memory_format():
    w = torch.randn(6, 3, 3, 3)
    frozen = []
    for weight in (w, w.to(memory_format=torch.channels_last)):
        quantizer = weight_quantizer(IncrementalPowers(), PowerOfTwo(bits=3), weight)
        quantizer.simulation.freeze_(weight, 0.3)
        frozen.append(quantizer.simulation.frozen)
    assert torch.equal(*frozen)
    assert w.abs()[frozen[0]].min() > w.abs()[~frozen[0]].max()


class Shares(Hook):
    def __init__(self):
        self.seen = []

    def step(self, state):
        self.seen.append([round(float(q.simulation.frozen.float().mean()), 3) for q in quantizers(state.model) if q.simulation is not None])


def test_the_hook_follows_the_stages():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 4), nn.Flatten(), nn.Linear(2, 4))
    data, step, shares = arrays(2, 8, 8), inq(), Shares()
    network, _ = equip(model, data, step.scheme, estimator=step.estimator)
    hook = Incremental(stages=((0.0, 0.5), (0.5, 0.75), (0.7, 1.0)))
    fit(network, data, Fit(epochs=2, batch_size=12, optimizer=SGD(lr=0.01)), hooks=(hook, shares), progress=False)
    assert shares.seen == [[0.5, 0.5]] * 4 + [[0.75, 0.75]] * 2 + [[1.0, 1.0]] * 2


def test_refusals():
    with pytest.raises(PreconditionError, match="PowerOfTwo"):
        weight_quantizer(IncrementalPowers(), Integer(), W)
    for stages in ((), ((0.0, 0.5),), ((0.5, 1.0), (0.2, 1.0)), ((0.0, 1.0), (0.5, 0.5))):
        with pytest.raises(RecipeError, match="stages"):
            Incremental(stages=stages)
