import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from quantize_nets import NETS, Arrays, ArraySplit, arrays
from torch import nn

from lilliput.core.errors import DataError, PreconditionError, RecipeError
from lilliput.data import load
from lilliput.quantize import (
    LSQ,
    MSE,
    Aware,
    BiasQuantizer,
    Quantizer,
    Scheme,
    StraightThrough,
    Uniform,
    entropy,
    equip,
    lsq,
    minmax,
    mse,
    percentile,
    qat,
    static,
)
from lilliput.train import SGD, Fit, Hook, evaluate, fit
from lilliput.zoo import create

FIT = Fit(epochs=2, batch_size=16, optimizer=SGD(lr=0.05))


@pytest.fixture(scope="module")
def digits():
    data = load("digits")
    model = create("lenet5", num_classes=10, in_chans=1) if data.input_shape[-1] >= 28 else _small()
    return fit(model, data, Fit(epochs=8, batch_size=64, optimizer=SGD(lr=0.1)), progress=False).model.eval(), data


def _small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16),
                         nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 32, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10))


@pytest.mark.parametrize("recipe", [minmax, percentile, mse, entropy])
def test_eight_bits_cost_less_than_a_point(digits, recipe):
    model, data = digits
    result = recipe()(model, data)
    assert evaluate(result.model, data.test) >= evaluate(model, data.test) - 1
    (entry,) = result.report.entries
    assert entry.method == f"quantize.{recipe.__name__}"
    rows = {row["layer"]: row for row in entry.layers}
    assert rows["0"]["weight_bits"] == rows["0"]["activation_bits"] == 8
    assert rows["0"]["weight_sqnr_db"] > 35
    assert 0 <= rows["0"]["saturation"] < (0.0001 if recipe is minmax else 0.5)


def test_fewer_bits_lose_more(digits):
    model, data = digits
    rows = [static(weights=bits, activations=bits, ranges=MSE())(model, data).report.entries[0].layers for bits in (8, 4, 2)]
    assert rows[0][1]["weight_sqnr_db"] > rows[1][1]["weight_sqnr_db"] + 15 > rows[2][1]["weight_sqnr_db"] + 20


def test_training_recovers_what_few_bits_lose(digits):
    model, data = digits
    before = evaluate(static(weights=2, activations=3)(model, data).model, data.test)
    for recipe in (qat, lsq):
        result = recipe(weights=2, activations=3, fit=Fit(epochs=3, batch_size=64, optimizer=SGD(lr=0.02)))(model, data)
        assert evaluate(result.model, data.test) > before + 5
        assert result.report.entries[0].method == f"quantize.{recipe.__name__}"


def _record(seen, module, inputs, output):
    seen[module] = output


def test_weights_of_a_trained_network_lie_on_the_grid():
    data, model = arrays(2, 8, 8), NETS["residual"][0]()
    for estimator in (StraightThrough(), LSQ()):
        network, _ = equip(model, data, Scheme(bits=Uniform(weights=4, activations=4)), estimator=estimator)
        trained = fit(network, data, FIT, hooks=(Aware(),), progress=False).model.eval()
        before, after = (dict(net.named_parameters())["depthwise.weight"] for net in (network, trained))
        assert not torch.equal(before, after)
        seen: dict = {}
        record = partial(_record, seen)
        handles = [m.register_forward_hook(record) for m in trained.modules() if isinstance(m, Quantizer)]
        trained(data.example())
        for handle in handles:
            handle.remove()
        for quantizer, output in seen.items():
            codes = output / (quantizer.scale.reshape(-1, *[1] * (output.ndim - 1)) if quantizer.grid.axis == 0 else quantizer.scale)
            assert (codes - codes.round()).abs().max() < 1e-3
            assert quantizer.follow is None
            assert "bounds" not in quantizer._buffers
        for module in trained.modules():
            if isinstance(module, BiasQuantizer):
                assert torch.equal(module.scale, module.live())


def test_learned_scales_start_and_move_as_in_the_paper():
    data = arrays(2, 8, 8)
    network, _ = equip(NETS["residual"][0](), data, Scheme(), estimator=LSQ())
    quantizer = next(m for m in network.modules() if isinstance(m, Quantizer) and m.layer == "depthwise" and m.weight)
    weight = network.tensor("depthwise.weight")
    torch.testing.assert_close(quantizer.scale, 2 * weight.abs().flatten(1).mean(1) / 127**0.5)
    quantizer.train()
    plain, x = quantizer.scale.detach().clone().requires_grad_(), weight.detach()
    quantizer(x).sum().backward()
    from lilliput.quantize import fake_quantize

    fake_quantize(x, plain, quantizer.zero_point, -127, 127, 0).sum().backward()
    torch.testing.assert_close(quantizer.scale.grad, plain.grad / (9 * 127) ** 0.5)
    start = {name: p.clone() for name, p in network.named_parameters() if name.endswith(".scale")}
    trained = fit(network, data, FIT, hooks=(Aware(),), progress=False).model
    moved = {name: p for name, p in trained.named_parameters() if name in start}
    assert len(moved) > 5
    assert all((p > 0).all() for p in moved.values())
    assert any(not torch.equal(p, start[name]) for name, p in moved.items())


def test_following_ranges_are_moving_averages():
    network, _ = equip(NETS["residual"][0](), arrays(2, 8, 8), Scheme(), estimator=StraightThrough(momentum=0.25))
    quantizer = next(m for m in network.modules() if isinstance(m, Quantizer) and m.layer == "x")
    low, high = quantizer.bounds.tolist()
    quantizer.train()(torch.tensor([-10.0, 20.0]))
    assert quantizer.bounds.tolist() == pytest.approx([low + 0.25 * (-10 - low), high + 0.25 * (20 - high)])
    after = quantizer.scale.clone()
    quantizer.eval()(torch.tensor([-100.0, 200.0]))
    assert torch.equal(quantizer.scale, after)


class _Mask(Hook):
    def step(self, state):
        with torch.no_grad():
            for name, parameter in state.model.named_parameters():
                if name.endswith("weight"):
                    parameter[..., 0] = 0


def test_masked_weights_stay_exactly_zero_through_training_and_quantization():
    data, seen = arrays(2, 8, 8), []
    for estimator in (StraightThrough(), LSQ()):
        network, _ = equip(NETS["residual"][0](), data, Scheme(), estimator=estimator)
        trained = fit(network, data, FIT, hooks=(_Mask(), Aware()), progress=False).model.eval()
        for module in trained.modules():
            if isinstance(module, Quantizer) and module.weight:
                module.register_forward_hook(lambda m, i, o: seen.append(o))
        trained(data.example())
    assert len(seen) == 6
    assert all((output[..., 0] == 0).all() and output.any() for output in seen)


def test_the_hook_refuses_networks_without_quantizers():
    with pytest.raises(PreconditionError, match="equip"):
        fit(NETS["residual"][0](), arrays(2, 8, 8), FIT, hooks=(Aware(),), progress=False)
    with pytest.raises(RecipeError, match="freeze"):
        Aware(freeze=2)


def test_bad_calibration_data():
    model = NETS["residual"][0]().eval()
    for value in (float("nan"), float("inf")):
        data = arrays(2, 8, 8)
        data.train.inputs[37, 1, 2, 3] = value
        with pytest.raises(DataError, match="sample 37"):
            minmax()(model, data)
    with pytest.raises(PreconditionError, match="samples"):
        minmax(samples=0)(model, arrays(2, 8, 8))
    split = ArraySplit(torch.empty(0, 2, 8, 8), torch.empty(0, dtype=torch.long))
    with pytest.raises(DataError, match="no samples"):
        minmax()(model, type("Empty", (Arrays,), {"example": lambda self, n=2: torch.randn(n, 2, 8, 8)})(split))
    assert any("only" in note for note in minmax()(model, arrays(2, 8, 8, samples=5)).report.entries[0].notes)
    assert any("zero on all" in note for note in minmax()(model, Arrays(ArraySplit(torch.zeros(40, 2, 8, 8), torch.zeros(40).long()))).report.entries[0].notes)


def test_dead_channels_are_noted_and_harmless():
    model, data = NETS["residual"][0]().eval(), arrays(2, 8, 8)
    model.depthwise.weight.data[3] = 0
    result = minmax()(model, data)
    assert any(note.startswith("depthwise: 1 of 8") for note in result.report.entries[0].notes)
    x = data.example(8)
    assert torch.isfinite(result.model(x)).all()
    assert (result.model(x) - model(x)).abs().max() < 0.1 * model(x).abs().max()


def test_a_tiny_weight_with_a_large_bias_stays_within_32_bits():
    model, data = NETS["residual"][0]().eval(), arrays(2, 8, 8)
    model.head.weight.data[0] = 1e-12
    model.head.bias.data[0] = 3
    result = minmax()(model, data)
    assert any("fits 32 bits" in note for note in result.report.entries[0].notes)
    module = next(m for m in result.model.modules() if isinstance(m, BiasQuantizer) and m.layer == "head")
    assert (3 / module.scale[0]).abs() < 2**31
    x = data.example(8)
    assert (result.model(x)[:, 0] - 3).abs().max() < 0.1


def test_state_dict_carries_the_calibration():
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    a, b = minmax()(model, data).model, minmax(samples=3)(model, data).model
    x = data.example(8)
    assert not torch.equal(a(x), b(x))
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(x), b(x))


_MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[2])
import torch; torch.set_num_threads(1)
from quantize_nets import NETS
from lilliput.quantize import mse
class Split:
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def head(self, count): return Split(count)
    def batches(self, size, **_):
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.n // size): yield torch.randn(size, 2, 32, 32, generator=generator), torch.zeros(size).long()
class Data:
    train = Split(int(sys.argv[1])); name = "stream"; num_classes = 4; digest = "0"
    def example(self, n=2): return torch.randn(n, 2, 32, 32)
mse(samples=int(sys.argv[1]))(NETS["residual"][0]().eval(), Data())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_samples():
    peak = [int(subprocess.run([sys.executable, "-W", "ignore", "-c", _MEMORY, str(n), str(Path(__file__).parent)], capture_output=True,
                               text=True, check=True).stdout) for n in (64, 4096)]
    assert peak[1] <= 1.05 * peak[0]
