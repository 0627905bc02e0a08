"""L-DNQ: layers rounded by ADMM, and the layers after them trained to make up for it."""

import itertools

import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn

from lilliput.core.errors import RecipeError
from lilliput.quantize import Integer, PowerOfTwo, Scheme, Static, Uniform, layerwise_few_shot
from lilliput.quantize.calibrate import constant_names
from lilliput.quantize.rounding.admm import LayerwiseADMM, _project


def _hessian(inputs, samples, seed):
    x = torch.randn(inputs, 3, generator=torch.Generator().manual_seed(seed)).double() @ torch.randn(
        3, samples, generator=torch.Generator().manual_seed(seed + 1)).double()
    return 2 * x @ x.T / samples + 0.05 * torch.eye(inputs).double()


def _error(values, rows, hessian):
    return float(((values - rows) @ hessian * (values - rows)).sum())


def test_a_projection_alternates_codes_and_scales():
    wanted, scale = torch.tensor([[[0.9, -2.2, 3.1]]]).double(), torch.tensor([[[1.5]]]).double()
    codes, scale = _project(wanted, scale, 3)
    # Codes 1, -1, 2 give the scale (0.9 + 2.2 + 6.2) / 6 = 1.55; with it the codes stay.
    assert codes.tolist() == [[[1, -1, 2]]]
    assert float(scale) == pytest.approx(1.55)
    codes, scale = _project(torch.zeros(1, 2, 3).double(), torch.ones(1, 2, 1).double(), 3)
    assert scale.flatten().tolist() == [1, 1]


@pytest.mark.parametrize("per_row", [False, True])
def test_never_worse_than_nearest_and_often_much_better(per_row):
    gains = []
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(1, 4, 6, generator=generator).double()
        hessian = _hessian(6, 20, seed)[None]
        scale = rows.abs().amax(2, keepdim=True) / 3 if per_row else rows.abs().amax().reshape(1, 1, 1) / 3
        nearest = (rows / scale).round().clamp(-3, 3) * scale
        codes, found, left = LayerwiseADMM().rounded(rows, hessian, scale, 3)
        assert found.shape == scale.shape
        assert torch.equal(codes, codes.round())
        assert codes.abs().max() <= 3
        assert left == pytest.approx(_error(codes * found, rows, hessian) / _error(nearest, rows, hessian))
        assert left <= 1
        gains.append(left)
    assert sorted(gains)[2] < 0.9


def test_tiny_cases_lie_between_the_best_of_all_and_nearest():
    closed = []
    for seed in range(8):
        rows = torch.randn(1, 1, 3, generator=torch.Generator().manual_seed(seed)).double()
        hessian = _hessian(3, 10, seed)[None]
        scale = rows.abs().amax(2, keepdim=True) / 3
        codes, found, _ = LayerwiseADMM().rounded(rows, hessian, scale, 3)
        scales = torch.linspace(0.05, 2, 400).double() * float(scale)
        every = torch.tensor(list(itertools.product(range(-3, 4), repeat=3))).double()
        best = min(float((((every * s - rows[0]) @ hessian[0]) * (every * s - rows[0])).sum(1).min()) for s in scales)
        nearest, error = _error((rows / scale).round() * scale, rows, hessian), _error(codes * found, rows, hessian)
        assert best * 0.98 <= error <= nearest
        closed.append((nearest - error) / (nearest - best))
    assert sum(closed) / len(closed) > 0.5


@pytest.mark.parametrize("update", [0, 10])
@pytest.mark.parametrize("axis", [0, None])
def test_results_come_nearer_and_weights_lie_on_their_grids(update, axis):
    torch.manual_seed(0)
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    data.train.inputs.add_(2 * torch.randn(48, 1, 1, 1))
    scheme = Scheme(weights=Integer(axis=axis), bits=Uniform(weights=3))
    x = data.train.inputs
    plain, result = (Static(scheme=scheme, roundings=r, samples=48)(model, data) for r in ((), (LayerwiseADMM(update=update),)))
    errors = [float((net.model(x) - model(x)).detach().square().mean()) for net in (plain, result)]
    assert errors[1] < (0.9 if axis == 0 else 1.5) * errors[0]
    for quantizer, name in constant_names(result.model):
        values = result.model.tensor(name)
        torch.testing.assert_close(quantizer(values), values)
        assert not quantizer.bypassed
    assert "3 layers rounded by ADMM" in result.report.entries[0].notes[-1]


def test_updates_of_later_layers_help():
    torch.manual_seed(0)
    data = arrays(16)
    model = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
    x = data.train.inputs
    scheme = Scheme(bits=Uniform(weights=2))
    errors = []
    for update in (0, 60):
        step = Static(scheme=scheme, roundings=(LayerwiseADMM(update=update, lr=0.05),), samples=48)
        errors.append(float((step(model, data).model(x) - model(x)).detach().square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_what_it_cannot_round_keeps_its_nearest_values():
    data, model = arrays(3, 10), NETS["sequence"][0]().eval()
    result = layerwise_few_shot(samples=48)(model, data)
    assert result.report.entries[0].method == "quantize.layerwise_few_shot"
    assert "2 layers rounded" in result.report.entries[0].notes[-1]  # not the transposed convolution
    table = Static(scheme=Scheme(weights=PowerOfTwo(axis=0)), roundings=(LayerwiseADMM(),), samples=48)(model, data)
    assert "0 layers rounded" in table.report.entries[0].notes[-1]
    with pytest.raises(RecipeError, match="rho"):
        LayerwiseADMM(rho=0)
