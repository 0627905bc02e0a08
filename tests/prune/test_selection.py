"""Channel selection on channels of which one is the others' sum, and penalties worked out by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lilliput import data, prune
from lilliput.core import Budget, PreconditionError, RecipeError
from lilliput.graph import profile, trace
from lilliput.prune import Channels, Layer
from lilliput.prune.selection import InputMoments, LassoSelection, LeastSquares, entries
from lilliput.prune.statistics import gather
from lilliput.train import SGD, Fit


class Batches:
    """The same batch as often as it is asked for."""

    def __init__(self, x):
        self.x, self.num_classes, self.train = x, 0, self

    def batches(self, size, seed=0):
        return itertools.repeat((self.x[:size], self.x[:size]))


def test_penalties_at_which_channels_come_in():
    # b_i = (Q_ii - penalty / 2) / Q_ii: the first comes in below 8, the others below 2, a quarter of it, the larger |b| ahead; 0.9^14 = 0.229.
    assert entries(np.diag([4.0, 1.0])).tolist() == pytest.approx([0.9, 0.9**14])
    found = entries(np.diag([4.0, 1.0, 0.0, 1.01]))
    assert found[3] == pytest.approx(0.9**14)
    assert 0.9**15 < found[1] < 0.9**14
    assert found[2] == 0
    assert entries(np.zeros((2, 2))).tolist() == [0, 0]


def test_a_channel_that_another_makes_up_for_comes_in_late():
    # Channels (3, 0), (0, 1) and (2, 2): the third points most to the sum (5, 3), and the first makes up what the second would.
    f = np.array([[3.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    found = entries(f @ f.T)
    assert found.argsort()[::-1].tolist() == [2, 0, 1]


@pytest.mark.parametrize("groups", [1, 2])
def test_factors_give_the_products_of_what_channels_add(groups):
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 4, 3, padding=1, bias=False, groups=groups), torch.randn(5, 4, 6, 6)
    traced = trace(layer, x)
    criterion = LassoSelection(moments=InputMoments(batches=2, batch_size=5))
    stats = gather(traced, Batches(x), criterion.needs)
    factor = criterion(Layer(name="weight", weight=layer.weight.detach().movedim(1, 0), dim=1, role="in"), stats)
    slices = 4 // groups
    alone = torch.stack([layer(x * (torch.arange(4) % slices == i).reshape(4, 1, 1)).detach().flatten() for i in range(slices)]).double()
    torch.testing.assert_close(factor @ factor.T, alone @ alone.T / (5 * 36), rtol=1e-4, atol=1e-5)
    with pytest.raises(PreconditionError, match="exclude that layer"):
        criterion(Layer(name="weight", weight=layer.weight), stats)


@pytest.mark.parametrize("convolutions", [False, True])
def test_what_is_the_sum_of_others_goes_without_a_trace(convolutions):
    torch.manual_seed(0)
    if convolutions:
        model, x = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.Conv2d(3, 4, 3, padding=1)), torch.randn(64, 2, 5, 5)
    else:
        model, x = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 4)), torch.randn(64, 2)
    model[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).reshape(model[0].weight.shape)
    traced = trace(model, x)
    recovery = LeastSquares(moments=InputMoments(batches=1), damping=1e-9)
    plan = Channels().plan(traced)
    keep = [np.array([True, True, False])]
    found = recovery(traced, gather(traced, Batches(x), {recovery.moments}), plan.masks(keep))
    assert set(found) == {"1.weight"}
    first, second, third = model[1].weight.detach().unbind(1)
    torch.testing.assert_close(found["1.weight"], torch.stack([first + third, second + third, torch.zeros_like(third)], 1), rtol=1e-4, atol=1e-4)
    traced.tensor("1.weight").data.copy_(found["1.weight"])
    torch.testing.assert_close(plan.apply(keep, traced)(x), model(x), rtol=1e-3, atol=1e-3)
    with pytest.raises(RecipeError, match="positive"):
        LeastSquares(damping=0.0)


def small(digits):
    torch.manual_seed(0)
    return trace(nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10)),
                 digits.example())


def test_the_output_moves_less_than_with_filters_of_small_norm():
    digits = data.load("digits")
    traced = small(digits)
    inputs = next(digits.val.batches(128))[0]
    with torch.no_grad():
        wanted = traced(inputs)
        gap = {c: float((prune.l1_norm(Budget(macs=0.5), criterion=c)(traced, digits).model(inputs) - wanted).square().mean())
               for c in (prune.LassoSelection(), prune.Magnitude(1.0))}
    assert gap[prune.LassoSelection()] < 0.3 * gap[prune.Magnitude(1.0)]


def test_a_compensation_goes_with_any_criterion():
    digits = data.load("digits")
    traced = small(digits)
    inputs = next(digits.val.batches(128))[0]
    plain = prune.l1_norm(Budget(macs=0.5))
    with torch.no_grad():
        gaps = [float((step(traced, digits).model(inputs) - traced(inputs)).square().mean()) for step in (plain, replace(plain, compensate=LeastSquares()))]
    assert gaps[1] < 0.7 * gaps[0]


def test_channels_that_go_while_training_use_the_budget():
    digits = data.load("digits")
    traced = small(digits)
    step = prune.group_fisher(Budget(macs=0.4), fine_tune=Fit(epochs=2, batch_size=64, optimizer=SGD(lr=0.02)), updates=5)
    model = step(traced, digits).model
    assert 0.35 * profile(traced).macs < profile(model).macs <= 0.4 * profile(traced).macs
