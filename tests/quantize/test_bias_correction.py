"""Bias correction, measured and expected."""

import math

import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn

from lilliput.graph.trace import trace
from lilliput.graph.walk import Walk
from lilliput.quantize import BiasQuantizer, Scheme, Static, Uniform
from lilliput.quantize.operators import LAYERS, layer_name
from lilliput.quantize.prepare import lowered
from lilliput.quantize.rewriting.statistics import Moments, channel_moments, clamp_ends, clipped
from lilliput.quantize.rounding.bias import BiasCorrection, ExpectedBiasCorrection


def _step(roundings, weights=3):
    return Static(scheme=Scheme(bits=Uniform(weights=weights)), roundings=roundings, samples=48)


@pytest.mark.parametrize("family", NETS)
def test_no_channel_is_off_on_average(family):
    build, shape = NETS[family]
    torch.manual_seed(0)
    data, model = arrays(*shape), build().eval()
    if family == "volume":
        model.conv.bias = model.head.bias = None
    for roundings in ((), (BiasCorrection(),)):
        quantized = _step(roundings)(model, data)
        reference, _ = lowered(model, data)
        walks = [Walk(net, [data.train.inputs]) for net in (quantized.model.eval(), reference.eval())]
        worst = 0.0
        steps = {module.layer: module.scale for module in quantized.model.modules() if isinstance(module, BiasQuantizer)}
        for node in [n for n in walks[1].nodes if n.target in LAYERS]:
            (found,), (wanted,) = (walk.through(walk.named[node.name]) for walk in walks)
            axis = -1 if "linear" in node.name else 1
            error = (found - wanted).movedim(axis, -1).flatten(0, -2).mean(0).abs()
            # What is left is the rounding of the bias itself, where it is rounded.
            worst = max(worst, float((error / steps.get(layer_name(node), 1e-6 * wanted.std())).max()))
        assert (worst < 0.52) if roundings else (worst > 1)
    assert "biases of" in quantized.report.entries[0].notes[-1]


def test_moments_after_a_clamp_are_those_of_samples():
    torch.manual_seed(0)
    mean, variance = torch.tensor([0.0, 1.0, -2.0, 8.0]).double(), torch.tensor([1.0, 4.0, 0.25, 1e-12]).double()
    x = mean + variance.sqrt() * torch.randn(400000, 4).double()
    for low, high in ((0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (-math.inf, math.inf)):
        found = clipped(Moments(mean, variance), low, high)
        sample = x.clamp(low, high)
        torch.testing.assert_close(found.mean, sample.mean(0), rtol=0, atol=0.01)
        torch.testing.assert_close(found.variance, sample.var(0), rtol=0.02, atol=0.01)
    # E relu of a standard normal variable is 1 / sqrt(2 pi).
    assert float(clipped(Moments(mean[:1], variance[:1]), 0, math.inf).mean) == pytest.approx(1 / math.sqrt(2 * math.pi))


class Chain(nn.Module):
    """Batch norms whose statistics are those of the data."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(2, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.b, self.c, self.head = nn.Conv2d(8, 8, 1, groups=4), nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.a(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(self.c(nn.functional.relu6(self.b(x) + x)), 1).flatten(1))


def _chain():
    torch.manual_seed(0)
    model, data = Chain(), arrays(2, 8, 8, samples=256)
    nn.init.uniform_(model.norm.bias, -1, 2)
    model.norm.momentum = 1.0
    model.train()(data.train.inputs)
    return model.eval(), data


def test_expected_means_are_near_those_of_the_data():
    model, data = _chain()
    reference, _ = lowered(model, data)
    moments = channel_moments(reference)
    walk = Walk(reference, [data.train.inputs])
    known = [node for node in walk.nodes if node in moments]
    assert {node.name for node in known} >= {"conv2d", "relu", "conv2d_1", "add", "relu6", "conv2d_2", "adaptive_avg_pool2d", "flatten", "linear"}
    for node in known:
        (found,) = walk.through(node)
        mean = found.movedim(1, -1).flatten(0, -2).mean(0).double()
        assert float((moments[node].mean - mean).abs().max()) < (0.02 if node.name in ("conv2d", "relu") else 0.25)


def test_expected_correction_moves_biases_as_the_measured_one_does():
    model, data = _chain()
    plain, expected, measured = (_step(r)(model, data) for r in ((), (ExpectedBiasCorrection(),), (BiasCorrection(),)))
    assert "biases of 3 of 4 layers" in expected.report.entries[0].notes[-1]  # nothing is known of the network's input
    moves = [net.model.tensor("b.bias") - plain.model.tensor("b.bias") for net in (expected, measured)]
    assert moves[1].abs().max() > 0.01
    assert (moves[0] - moves[1]).abs().max() < 0.3 * moves[1].abs().max()
    wanted = model(data.train.inputs).mean(0)
    errors = [(net.model(data.train.inputs).mean(0) - wanted).square().sum() for net in (plain, expected, measured)]
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.05 * errors[0]


def test_where_clamps_clamp():
    class Clamps(nn.Module):
        def forward(self, x):
            a = torch.relu(x), nn.functional.relu6(x), nn.functional.hardtanh(x), torch.clamp(x, min=0.5), torch.clamp(x, -1, 2), torch.clamp_min(x, 3)
            return sum(a)

    traced = trace(Clamps(), torch.randn(2, 3))
    ends = [clamp_ends(n) for n in traced.graph.nodes if n.op == "call_function" and "add" not in n.name]
    assert ends == [(0, math.inf), (0, 6), (-1, 1), (0.5, math.inf), (-1, 2), (3, math.inf)]
