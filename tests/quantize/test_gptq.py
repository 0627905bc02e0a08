"""GPTQ: columns rounded one by one, on Hessians of the inputs."""

import copy
import itertools

import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn

from lilliput.core.errors import RecipeError
from lilliput.graph.moments import Moments
from lilliput.graph.trace import trace
from lilliput.quantize import PowerOfTwo, Scheme, Static, Uniform, gptq
from lilliput.quantize.calibrate import constant_names
from lilliput.quantize.operators import LAYERS
from lilliput.quantize.rounding.gptq import GPTQ
from lilliput.zoo import create


def _nearest(column):
    return (column / 0.5).round().clamp(-3, 3) * 0.5


def _hessian(inputs, samples, seed):
    x = torch.randn(inputs, inputs, generator=torch.Generator().manual_seed(seed)).double() @ torch.randn(
        inputs, samples, generator=torch.Generator().manual_seed(seed + 1)).double()
    return 2 * x @ x.T / samples


def _error(values, rows, hessian):
    return float(((values - rows) @ hessian * (values - rows)).sum())


def test_one_step_is_that_of_optimal_brain_quantization():
    hessian = torch.tensor([[[2.0, 1.0], [1.0, 3.0]]]).double()
    rows = torch.tensor([[[0.6, 0.2]]]).double()
    found, _ = GPTQ(damping=1e-12).rounded(rows, hessian, _nearest)
    # w1 goes to 0.5, an error of 0.1; OBQ moves w2 by -0.1 / [H^-1]_11 [H^-1]_12 = 0.1 * 1 / 3, to 0.2333: nearest is 0.
    assert found.tolist() == [[[0.5, 0.0]]]
    rows = torch.tensor([[[0.7, 0.2]]]).double()
    # An error of 0.2 moves w2 to 0.2667: nearest is 0.5, though 0.2 itself is nearer to 0.
    found, left = GPTQ(damping=1e-12).rounded(rows, hessian, _nearest)
    assert found.tolist() == [[[0.5, 0.5]]]
    by_hand = _error(found, rows, hessian) / _error(torch.tensor([[[0.5, 0.0]]]).double(), rows, hessian)
    assert left == pytest.approx(by_hand)
    assert left < 1


@pytest.mark.parametrize("seed", range(5))
def test_small_weights_come_near_the_best_of_all_roundings(seed):
    generator = torch.Generator().manual_seed(seed)
    rows, hessian = torch.randn(1, 2, 3, generator=generator).double() * 0.6, _hessian(3, 8, seed)[None]
    found, left = GPTQ(damping=1e-9).rounded(rows, hessian, _nearest)
    candidates = torch.tensor(list(itertools.product([-1.5, -1, -0.5, 0, 0.5, 1, 1.5], repeat=3))).double()
    best = sum(float((((candidates - row) @ hessian[0]) * (candidates - row)).sum(1).min()) for row in rows[0])
    nearest = _error(torch.stack([_nearest(c) for c in rows.unbind(2)], 2), rows, hessian)
    assert best - 1e-9 <= _error(found, rows, hessian) <= nearest + 1e-9
    assert _error(found, rows, hessian) <= 3 * best
    assert left == pytest.approx(_error(found, rows, hessian) / nearest)


@pytest.mark.parametrize("by_activation", [False, True])
def test_never_worse_than_nearest_and_blocks_change_nothing(by_activation):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 16, 12, generator=generator).double() * 0.5
    hessian = torch.stack([_hessian(12, 40, seed) for seed in range(3)])
    hessian[1, 4] = hessian[1, :, 4] = 0  # an input that is always zero
    found, left = GPTQ(by_activation=by_activation).rounded(rows, hessian, _nearest)
    plain = torch.stack([_nearest(c) for c in rows.unbind(2)], 2)
    errors = [((v - rows) @ hessian * (v - rows)).sum(2) for v in (found, plain)]
    assert (errors[0] <= errors[1] + 1e-12).all()
    assert left < 0.6
    assert torch.equal(found[1, :, 4], plain[1, :, 4])
    small, _ = GPTQ(by_activation=by_activation, block=5).rounded(rows, hessian, _nearest)
    assert torch.equal(small, found)


def test_a_singular_hessian_is_damped_until_it_is_not():
    hessian = torch.full((1, 4, 4), 1e8).double()
    rows = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0)).double()
    found, left = GPTQ(damping=1e-18).rounded(rows, hessian, _nearest)
    assert torch.isfinite(found).all()
    assert left <= 1
    with pytest.raises(RecipeError, match="damping"):
        GPTQ(damping=0)


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.Linear(4, 3)], ids=str)
def test_hessians_are_second_moments_of_patches(layer):
    x = torch.randn(10, 4, *(() if isinstance(layer, nn.Linear) else (5, 5)))
    traced = trace(layer, x)
    (node,) = [n for n in traced.graph.nodes if n.target in LAYERS]
    moments = Moments(node, layer.weight.detach())
    for part in x.split(3):
        moments.update(part)
    change = torch.randn_like(layer.weight)
    out = nn.functional.linear(x, change) if isinstance(layer, nn.Linear) else nn.functional.conv2d(x, change, padding=1, groups=2)
    rows = change.double().reshape(moments.sum.shape[0], -1, moments.sum.shape[1])
    # Half of the quadratic form is the squared error per position.
    expected = out.square().sum() / (out.numel() / out.shape[1])
    assert float((rows @ moments.hessian * rows).sum() / 2) == pytest.approx(float(expected), rel=1e-4)


def _step(rounding, **bits):
    return Static(scheme=Scheme(bits=Uniform(**bits)), roundings=rounding, samples=48)


@pytest.mark.parametrize("family", NETS)
def test_results_come_nearer_in_every_kind_of_network(family):
    build, shape = NETS[family]
    torch.manual_seed(0)
    data, model = arrays(*shape), build().eval()
    # White noise has a Hessian that is nearly diagonal, where nothing can make up for anything.
    data.train.inputs.add_(3 * torch.randn(48, *[1] * len(shape)))
    plain, rounded = (_step(r, weights=3, activations=16)(model, data) for r in ((), (GPTQ(),)))
    x = data.train.inputs
    nearest, found = (float((result.model(x) - model(x)).square().mean()) for result in (plain, rounded))
    assert found < 0.9 * nearest
    notes = rounded.report.entries[0].notes
    assert ("transposed" in " ".join(notes)) == (family == "sequence")
    for quantizer, name in constant_names(rounded.model):
        values = rounded.model.tensor(name)
        assert name in ("token", "up.weight") or "constants" in name or torch.equal(quantizer(values), values)
    before = copy.deepcopy(model.state_dict())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_any_grid_will_do():
    torch.manual_seed(0)
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    scheme = Scheme(weights=PowerOfTwo(bits=3, axis=0))
    plain, rounded = (Static(scheme=scheme, roundings=r, samples=48)(model, data).model for r in ((), (GPTQ(),)))
    x = data.train.inputs
    assert (rounded(x) - model(x)).square().mean() < 0.8 * (plain(x) - model(x)).square().mean()


def test_language_models():
    ids = arrays(6, samples=64)
    ids = type(ids)(type(ids.train)((ids.train.inputs.abs() * 3).long() % 7, torch.randint(0, 7, (64, 6))), num_classes=7)
    model = create("decoder", num_classes=7, in_chans=6, seed=0, options={"dim": 16, "depth": 1, "heads": 2})
    x = ids.train.inputs
    plain = _step((), weights=3, activations=16)(model, ids).model
    result = gptq(weights=3, activations=16, samples=64)(model, ids)
    assert result.report.entries[0].method == "quantize.gptq"
    assert (result.model(x) - model(x)).square().mean() < 0.9 * (plain(x) - model(x)).square().mean()
