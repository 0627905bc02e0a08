"""Saliencies on numbers worked out by hand, against finite differences, and against what removal really does."""

import numpy as np
import pytest
import torch
from torch import nn

from lilliput import data
from lilliput.core import Budget, PreconditionError, RecipeError
from lilliput.data import from_arrays
from lilliput.graph import trace
from lilliput.prune import Layer, Stats, force
from lilliput.prune.saliency import (
    ConnectionSensitivity,
    DiagonalHessian,
    Distortion,
    FeatureTaylor,
    GradientFlow,
    Lamp,
    Lookahead,
    MapProduct,
)
from lilliput.prune.schedules import Progressive
from lilliput.prune.statistics import Gradient, HessianDiagonal, HessianGradient, gather


def layer(traced, name):
    return Layer(name=name, weight=traced.tensor(name).detach())


@pytest.fixture
def regression():
    """16 samples of 3 numbers and 2 wanted ones, a linear layer, and its mean squared error as a function."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(16, 3)), random.normal(size=(16, 2))
    arrays = from_arrays("lines", torch.tensor(x), torch.tensor(y))
    split = next(arrays.train.batches(len(arrays.train)))
    torch.manual_seed(0)
    traced = trace(nn.Linear(3, 2), split[0][:2])
    return arrays, traced, lambda w: nn.functional.mse_loss(split[0] @ w.T + traced.bias.detach(), split[1]), len(arrays.train)


def test_lamp_by_hand():
    # Squares 9, 4, 1, 0; no smaller ones sum to 9, 13, 14, 14.
    scores = Lamp()(Layer(name="w", weight=torch.tensor([[1.0, -2.0], [3.0, 0.0]])), Stats())
    assert scores.tolist() == [[pytest.approx(1 / 14), pytest.approx(4 / 13)], [1.0, 0.0]]


def test_lookahead_is_how_far_the_product_of_three_layers_moves():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 5, bias=False), nn.Linear(5, 2, bias=False))
    traced = trace(model, torch.randn(2, 3))
    first, middle, last = (p.detach() for p in model.parameters())
    scores = Lookahead()(layer(traced, "1.weight"), gather(traced, None, Lookahead().needs))
    for i, j in np.ndindex(5, 4):
        without = middle.clone()
        without[i, j] = 0
        assert float(scores[i, j]) == pytest.approx(float((last @ (middle - without) @ first).norm()), rel=1e-5)
    ends = Lookahead()(layer(traced, "0.weight"), gather(traced, None, Lookahead().needs))
    torch.testing.assert_close(ends, first.abs() * middle.norm(dim=0)[:, None])


def test_lookahead_counts_batch_norms_in():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([2.0, 3.0, 0.5]))
        model[1].running_var.copy_(torch.tensor([4.0, 1.0, 1.0]) - 1e-5)
    scores = Distortion()(trace(model, torch.randn(2, 2, 4, 4)), None, 0)
    first, last = model[0].weight.detach()[:, :, 0, 0], model[2].weight.detach()[:, :, 0, 0]
    gain = torch.tensor([1.0, 3.0, 0.5])
    torch.testing.assert_close(scores["2.weight"][:, :, 0, 0], last.abs() * (first.norm(dim=1) * gain), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scores["0.weight"][:, :, 0, 0], first.abs() * (gain * last.norm(dim=0))[:, None], rtol=1e-4, atol=1e-6)


def test_the_hessian_of_least_squares_has_its_diagonal_exactly_where_inputs_are_orthogonal():
    # Of mean |w x - y|^2 over samples and both outputs, d2/dw_ij^2 = 2 E x_j^2 / 2; signs at one probe already give it, nothing mixes.
    x = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])).repeat(16, 1)
    arrays = from_arrays("axes", x, torch.zeros(64, 2))
    seen = next(arrays.train.batches(len(arrays.train), seed=0))[0]
    traced = trace(nn.Linear(4, 2), seen[:2])
    criterion = DiagonalHessian(curvature=HessianDiagonal(batches=1, batch_size=len(arrays.train), probes=1))
    scores = criterion(layer(traced, "weight"), gather(traced, arrays, criterion.needs))
    mean = seen.square().mean(0)
    # The bias couples weights with each other in expectation zero only; its own products vanish where means of inputs are taken out.
    wanted = mean * traced.tensor("weight").detach().square() / 2
    found = gather(traced, arrays, {HessianDiagonal(batches=1, batch_size=len(arrays.train), probes=2000)})
    diagonal = found[HessianDiagonal(batches=1, batch_size=len(arrays.train), probes=2000)]["weight"]
    assert scores.shape == wanted.shape
    torch.testing.assert_close(diagonal, mean.expand(2, 4), rtol=0.1, atol=0.02)


def test_connection_sensitivity_is_weight_times_gradient(regression):
    arrays, traced, loss, count = regression
    criterion = ConnectionSensitivity(gradient=Gradient(batches=1, batch_size=count))
    weight = traced.tensor("weight").detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(weight), weight)
    torch.testing.assert_close(criterion(layer(traced, "weight"), gather(traced, arrays, criterion.needs)), (slope * weight).abs().detach())


def test_gradient_flow_is_the_slope_of_half_the_gradient_s_square(regression):
    arrays, traced, _, count = regression
    statistic = HessianGradient(batches=1, batch_size=count, temperature=2.0)
    found = gather(traced, arrays, {statistic})[statistic]["weight"]
    x, y = (t.double() for t in next(arrays.train.batches(count, seed=0)))

    def half(shift):
        w, b = (traced.tensor(n).detach().double().requires_grad_() for n in ("weight", "bias"))
        moved = w + shift
        slopes = torch.autograd.grad(nn.functional.mse_loss((x @ moved.T + b) / 2, y), (w, b))
        return float(sum(s.square().sum() for s in slopes) / 2)

    for i, j in np.ndindex(2, 3):
        step = torch.zeros(2, 3, dtype=torch.float64)
        step[i, j] = 1e-5
        assert float(found[i, j]) == pytest.approx((half(step) - half(-step)) / 2e-5, rel=1e-4, abs=1e-6)
    scores = GradientFlow(product=statistic)(layer(traced, "weight"), gather(traced, arrays, {statistic}))
    torch.testing.assert_close(scores, found * traced.tensor("weight").detach())


def test_maps_times_gradients_behind_norm_and_activation():
    digits = data.load("digits")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10)).eval()
    statistic = MapProduct(batches=2, batch_size=8)
    traced = trace(model, digits.example())
    found = gather(traced, digits, {statistic})[statistic]
    total = torch.zeros(3)
    batches = digits.train.batches(8, seed=0)
    for _ in range(2):
        x, y = next(batches)
        z = model[:3](x).detach().requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(model[3:](z), y, reduction="sum"), z)
        total += (z.detach() * slope).mean((2, 3)).abs().sum(0)
    torch.testing.assert_close(found["0.weight"], total / 16)
    scores = FeatureTaylor(products=statistic)(layer(traced, "0.weight"), gather(traced, digits, {statistic}))
    assert float(scores.norm()) == pytest.approx(1)


def test_progressive_rounds_keep_the_same_share_each_time():
    assert Progressive(rounds=3).amounts(1 - 0.001) == pytest.approx([0.9, 0.99])
    assert Progressive(rounds=1).amounts(0.5) == []
    with pytest.raises(RecipeError):
        Progressive(rounds=0)


def test_rounds_bring_weights_back_and_another_choice():
    digits = data.load("digits")
    torch.manual_seed(0)
    traced = trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), digits.example())
    once, often = (force(Budget(params=0.1), rounds=rounds)(traced, digits).model.tensor("1.weight") != 0 for rounds in (1, 8))
    assert abs(int(once.sum()) - int(often.sum())) < 0.3 * int(once.sum())
    assert bool((often & ~once).any())


def test_statistics_on_data_ask_for_it():
    traced = trace(nn.Linear(3, 2), torch.randn(2, 3))
    with pytest.raises(PreconditionError, match=r"needs Gradient on data: pass data="):
        gather(traced, None, ConnectionSensitivity().needs)
