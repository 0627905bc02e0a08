"""Cross-layer equalisation and the absorption of high biases."""

from dataclasses import replace

import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn

from lilliput.core.errors import RecipeError
from lilliput.graph.products import as_rows
from lilliput.graph.weights import weight_of
from lilliput.quantize import dfq
from lilliput.quantize.prepare import lowered
from lilliput.quantize.rewriting.equalize import AbsorbBias, Equalize, _by_input, pairs
from lilliput.quantize.rewriting.statistics import normal
from lilliput.zoo import create


def _skewed():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, groups=2), nn.LeakyReLU(0.1), nn.Conv2d(12, 4, 1), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 4))
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= torch.logspace(-1.5, 1.5, len(layer.weight)).reshape(-1, 1, 1, 1)[torch.randperm(len(layer.weight))]
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.uniform_(0.3, 3)
            nn.init.uniform_(layer.weight, 0.2, 2)
            nn.init.uniform_(layer.bias, -1, 8)
    return model.eval(), arrays(2, 8, 8, samples=64)


def test_ranges_are_equal_afterwards_and_the_function_is_the_same():
    model, data = _skewed()
    before, _ = lowered(model, data)
    after, notes = lowered(model, data, rewrites=(Equalize(tolerance=1e-6, rounds=500),))
    assert notes == ["ranges of 4 pairs of layers equalised"]
    x = data.example(16)
    torch.testing.assert_close(after(x), before(x), rtol=1e-5, atol=1e-5 * float(before(x).abs().max()))
    found = pairs(after)
    assert [pair.between[-1].name for pair in found] == ["relu", "max_pool2d", "leaky_relu", "relu_2"]
    assert len(found[1].between) == 2
    spread = {}
    for net in (before, after):
        spread[net] = 0.0
        for pair in pairs(net):
            first = as_rows(weight_of(net, pair.first), pair.first).flatten(0, 1).abs().amax(1)
            second = _by_input(weight_of(net, pair.second), pair.second).amax(1)
            spread[net] = max(spread[net], float((first / second).log().abs().max()))
    assert spread[after] < 1e-5
    assert spread[before] > 2


def test_one_pair_by_hand():
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[4.0], [1.0]]))
        model[0].bias.copy_(torch.tensor([2.0, -1.0]))
        model[2].weight.copy_(torch.tensor([[1.0, -9.0]]))
    traced, _ = lowered(model, arrays(1), rewrites=(Equalize(),))
    # s = sqrt(r1 r2) / r2 is 2 and 1/3.
    assert traced.tensor("0.weight").flatten().tolist() == pytest.approx([2.0, 3.0])
    assert traced.tensor("0.bias").tolist() == pytest.approx([1.0, -3.0])
    assert traced.tensor("2.weight").flatten().tolist() == pytest.approx([2.0, -3.0])
    with pytest.raises(RecipeError, match="tolerance"):
        Equalize(tolerance=0)


def test_statistics_move_with_the_scales():
    model, data = _skewed()
    (before, _), (after, _) = (lowered(model, data, rewrites=r) for r in ((), (Equalize(),)))
    first = [next(n for n in net.graph.nodes if n.name == "conv2d") for net in (before, after)]
    scale = before.tensor("0.bias") / after.tensor("0.bias")
    torch.testing.assert_close(normal(first[0]).mean, normal(first[1]).mean * scale.double(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(normal(first[0]).variance, normal(first[1]).variance * scale.double().square(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(normal(first[0]).mean.float(), model[1].bias)


def test_relu6_becomes_relu_and_says_so():
    data = arrays(2, 16, 16)
    model = create("mobilenet_v2", num_classes=4, in_chans=2, seed=0, options={"width": 0.25}).eval()
    traced, notes = lowered(model, data, rewrites=(Equalize(),))
    kinds = [str(n.target) for n in traced.graph.nodes if n.op == "call_function"]
    assert len([kind for kind in kinds if "relu6" in kind or "hardtanh" in kind]) <= 2
    assert notes[0].endswith("became ReLUs")
    x = data.example(8)
    torch.testing.assert_close(traced(x), model(x), rtol=1e-3, atol=1e-4)


def test_nothing_is_scaled_through_what_does_not_scale():
    for name in ("residual", "attention", "volume", "sequence"):
        build, shape = NETS[name]
        assert len(pairs(lowered(build().eval(), arrays(*shape))[0])) == 0


def test_high_biases_move_on():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Flatten())
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([5.0, 1.0, -4.0]))
        model[1].weight.copy_(torch.tensor([1.0, 1.0, -1.0]))
    data = arrays(2, 4, 4, samples=200)
    model[1].momentum = 1.0
    model.train()(data.train.inputs)
    model.eval()
    (before, _), (after, notes) = (lowered(model, data, rewrites=r) for r in ((), (AbsorbBias(),)))
    assert notes == ["high biases of 1 channels absorbed by the next of 1 layers"]
    torch.testing.assert_close(before.tensor("0.bias") - after.tensor("0.bias"), torch.tensor([2.0, 0.0, 0.0]))
    torch.testing.assert_close(after.tensor("3.bias") - before.tensor("3.bias"), 2 * model[3].weight[:, 0, 0, 0])
    x = data.train.inputs
    off = (before(x) - after(x)).abs()
    assert float((off > 1e-4).float().mean()) < 0.01
    padded = nn.Sequential(*model[:3], nn.Conv2d(3, 4, 3, padding=1))
    assert lowered(padded.eval(), data, rewrites=(AbsorbBias(),))[1] == ["high biases of 0 channels absorbed by the next of 0 layers"]


def test_equalised_ranges_need_no_scale_per_channel():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6(), nn.Conv2d(8, 4, 1), nn.Flatten())
    with torch.no_grad():  # the same function, out of balance
        for first, second, factor in ((model[0], model[2], 8.0), (model[2], model[4], 1 / 16)):
            factors = factor ** (torch.arange(8) % 2 - 0.5)
            first.weight *= factors.reshape(-1, 1, 1, 1)
            first.bias *= factors
            second.weight /= factors.reshape((-1, 1, 1, 1) if second.groups > 1 else (1, -1, 1, 1))
    data = arrays(2, 8, 8, samples=64)
    x = data.train.inputs
    step = dfq(samples=64, weights=6)
    per_tensor = replace(step, rewrites=(), roundings=())
    errors = [float((s(model, data).model(x) - model(x)).square().mean() / model(x).square().mean()) for s in (per_tensor, step)]
    assert errors[1] < 0.2 * errors[0]
    assert step(model, data).report.entries[0].method == "quantize.dfq"
