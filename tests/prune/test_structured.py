"""Channel criteria and allocations on numbers worked out by hand, against autograd, and against all choices there are."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lilliput.core import Budget, PreconditionError
from lilliput.graph import trace
from lilliput.prune import Channels, Element, GeometricMedian, Layer, Magnitude, Prune, Stats
from lilliput.prune.allocation import global_threshold, resolved, uniform
from lilliput.prune.features import ClassScatter, MapRank, Rank, TraceRatio
from lilliput.prune.fisher import Collaborative, GroupFisher, InputSlopes, OutputSlopes
from lilliput.prune.inactivity import ActiveChance, NormShift, SoftChannels, SoftMasks, active_chance
from lilliput.prune.knockoffs import KnockoffContrast, ScientificControl
from lilliput.prune.rate import RateDistortion, least_distortion
from lilliput.prune.sampler import LearntCriterion, Preferences
from lilliput.prune.savings import PerSaving, macs, map_elements
from lilliput.prune.statistics import gather


class Batches:
    """The same batch as often as it is asked for."""

    def __init__(self, x, y, classes=0):
        self.x, self.y, self.num_classes, self.train = x, y, classes, self

    def batches(self, size, seed=0):
        return itertools.repeat((self.x[:size], self.y[:size]))


def linear(weight, bias=None):
    weight = torch.as_tensor(weight, dtype=torch.float32)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = torch.as_tensor(bias, dtype=torch.float32)
    return layer


class Readers(nn.Module):
    """Two layers that read the same channels, and whose results are added."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = linear(torch.eye(2)), linear([[1.0, 2.0]]), linear([[-1.0, 1.0]])

    def forward(self, x):
        h = self.a(x)
        return self.b(h) + self.c(h)


def test_slopes_of_coupled_layers_are_added_before_they_are_squared():
    # Outputs 3 and 0 for a wanted 0: dL/dm_i = 2 * 3 * (b_i + c_i) is 0 and 18 on the first sample, and 0 on the second.
    data = Batches(torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.zeros(2, 1))
    traced = trace(Readers(), data.x)
    criterion = GroupFisher(reading=InputSlopes(batches=1), making=OutputSlopes(batches=1))
    stats = gather(traced, data, criterion.needs)
    torch.testing.assert_close(stats[criterion.reading]["b.weight"], torch.tensor([[6.0, 0.0], [12.0, 0.0]]))
    torch.testing.assert_close(stats[criterion.reading]["c.weight"], torch.tensor([[-6.0, 0.0], [6.0, 0.0]]))
    plan = Channels(per_layer=False).plan(traced)
    assert plan.scores(criterion, stats, traced)[0].tolist() == [0.0, pytest.approx(18**2 / 2 / 2)]


@pytest.mark.parametrize("groups", [1, 2])
def test_slopes_are_sums_of_weights_times_their_gradients_sample_by_sample(groups):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=groups), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)).eval()
    x, y = torch.randn(3, 4, 4, 4), torch.tensor([0, 2, 1])
    traced, data = trace(model, x), Batches(x, y, 3)
    inputs, outputs = (statistic(batches=1)(traced, data, 0)["0.weight"] for statistic in (InputSlopes, OutputSlopes))
    assert (inputs.shape, outputs.shape) == ((4 // groups, 3), (6, 3))
    for n in range(3):
        loss = nn.functional.cross_entropy(model(x[n:n + 1]), y[n:n + 1])
        weight, bias = torch.autograd.grad(loss, (model[0].weight, model[0].bias))
        products = (model[0].weight * weight).detach()
        torch.testing.assert_close(inputs[:, n], products.sum((0, 2, 3)), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(outputs[:, n], (products.sum((1, 2, 3)) + model[0].bias * bias).detach(), rtol=1e-4, atol=1e-6)


def test_channels_that_make_up_for_each_other_go_together():
    # E u u' is [[4, -4, 2], [-4, 4, -2], [2, -2, 1]]: the third goes for 1/2, then the second for 2 - 2, not the first for 2 + 2.
    scores = Collaborative().joined([torch.tensor([[2.0, -2.0], [-2.0, 2.0], [1.0, -1.0]], dtype=torch.float64)])
    assert scores.tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    # The linear term: removal changes the loss by -u + u^2 / 2, which is -1/2 for u = 1, and 3/2 for u = -1.
    assert Collaborative().joined([torch.tensor([[-1.0], [1.0]], dtype=torch.float64)]).tolist() == [1.0, 0.5]


def test_ranks_of_maps_by_hand():
    # An image of rank 2; channels are the image, what the activation shuts, and a constant.
    image = torch.zeros(2, 1, 4, 4)
    image[:, 0, :2, :2] = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0, 0.0]).reshape(3, 1, 1, 1))
        model[0].bias.copy_(torch.tensor([0.0, 0.0, 2.0]))
        model[3].weight.zero_()
        model[3].bias.copy_(torch.tensor([1.0, -1.0]))
    criterion = Rank(ranks=MapRank(batches=3, batch_size=2))
    traced = trace(model, image)
    stats = gather(traced, Batches(image, torch.zeros(2)), criterion.needs)
    assert criterion(Layer(name="0.weight", weight=model[0].weight), stats).tolist() == [2, 0, 1]
    assert criterion(Layer(name="3.weight", weight=model[3].weight), stats).tolist() == [1, 0]


def test_scatter_between_and_within_classes_by_hand():
    # Means 1 and 11 around 6: 4 * 25 between, 4 * 1 within; means 2 and 4 around 3: 4 * 1 between, 4 * 4 within.
    x = torch.tensor([[0.0, 0.0], [2.0, 4.0], [10.0, 2.0], [12.0, 6.0]])
    data = Batches(x, torch.tensor([0, 0, 1, 1]), 3)  # of the third class there is none
    traced = trace(nn.Sequential(linear(torch.eye(2)), linear(torch.ones(3, 2))), x)
    found = ClassScatter(batches=2)(traced, data, 0)["0.weight"]
    torch.testing.assert_close(found, 2 * torch.tensor([[100.0, 4.0], [4.0, 16.0]], dtype=torch.float64))
    with pytest.raises(PreconditionError, match="compares classes"):
        ClassScatter()(traced, Batches(x, x), 0)


def test_trace_ratio_by_hand_and_against_the_best_sets():
    # What never varies goes first; then 113 / 23 becomes 109 / 7, 104 / 20 or 13 / 19; then 100 / 4 or 9 / 3.
    totals = torch.tensor([[100.0, 4.0], [4.0, 16.0], [0.0, 0.0], [9.0, 3.0]], dtype=torch.float64)
    assert TraceRatio().joined([totals]).tolist() == [1.0, 0.5, 0.25, 0.75]
    generator = torch.Generator().manual_seed(0)
    totals = torch.rand(6, 2, generator=generator, dtype=torch.float64) + 0.1
    order = TraceRatio().joined([totals]).argsort(descending=True)
    for size in range(1, 7):
        def ratio(members):
            return float(totals[list(members), 0].sum() / totals[list(members), 1].sum())

        best = max(map(ratio, itertools.combinations(range(6), size)))
        assert ratio(order[:size].tolist()) >= 0.95 * best


def test_chance_of_being_active():
    shift, scale = torch.tensor([0.0, 2.0, -4.0, 0.0, 1.0]), torch.tensor([3.0, -2.0, 2.0, 0.0, 0.0])
    assert active_chance(scale, shift).tolist() == pytest.approx([0.5, 0.841345, 0.022750, 0, 1], abs=1e-6)
    traced = trace(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 1)).eval(), torch.randn(2, 1, 4, 4))
    traced.tensor("1.bias").data.copy_(torch.tensor([1.0, -1.0]))
    plan = Channels(per_layer=False).plan(traced)
    assert plan.scores(ActiveChance(), gather(traced, None, {NormShift()}), traced)[0].tolist() == pytest.approx([0.841345, 0.158655], abs=1e-6)
    plain = trace(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), torch.randn(2, 2))
    with pytest.raises(PreconditionError, match="no batch norm"):
        Channels().plan(plain).scores(ActiveChance(), gather(plain, None, {NormShift()}), plain)
    with pytest.raises(PreconditionError, match="no batch norm"):
        SoftChannels().hooks(plain)


def test_soft_masks_give_gradients_through_masks_and_penalty_and_leave_no_trace():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1)).eval().double()
    x, scale, shift = torch.randn(8, 3).double(), torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.5, 1.0, -0.2]).double()
    model[0].weight.data, model[0].bias.data = scale.clone(), shift.clone()
    hook, state = SoftMasks((("0.weight", "0.bias"),), strength=0.3, temperature=0.7), SimpleNamespace(model=model)

    def objective(scale, shift):
        torch.manual_seed(1)
        uniform = torch.rand(3, dtype=torch.float64)
        chance = torch.distributions.Normal(0, 1).cdf(shift / scale.abs())
        mask = torch.sigmoid(((chance / (1 - chance)).log() + (uniform / (1 - uniform)).log()) / 0.7)
        z = x / math.sqrt(1 + 1e-5) * (scale * mask) + shift * mask
        return model[2](z.relu()).square().sum() + 0.3 * chance.sum()

    torch.manual_seed(1)
    hook.batch(state, (x, x))
    assert not torch.equal(model[0].weight.detach(), scale)
    model(x).square().sum().backward()
    hook.gradients(state)
    assert torch.equal(model[0].weight.detach(), scale)
    assert torch.equal(model[0].bias.detach(), shift)
    leaves = scale.clone().requires_grad_(), shift.clone().requires_grad_()
    wanted = torch.autograd.grad(objective(*leaves), leaves)
    torch.testing.assert_close((model[0].weight.grad, model[0].bias.grad), wanted)


def signals():
    """Two numbers that say the class, two that say nothing; a layer that hands all four on, and one that reads them all alike."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (256,), generator=generator)
    x = torch.randn(256, 4, generator=generator)
    x[:, :2] = 2.0 * (2 * y[:, None] - 1) + 0.5 * x[:, :2]
    model = nn.Sequential(linear(torch.eye(4)), linear([[-0.3, -0.3, -0.3, 0.3], [0.3, 0.3, 0.3, -0.3]]))
    return trace(model, x), Batches(x, y, 2)


def test_channels_of_noise_do_no_better_than_their_knockoffs():
    traced, data = signals()
    criterion = ScientificControl(contrast=KnockoffContrast(batches=30, batch_size=256))
    scores = criterion(Layer(name="0.weight", weight=traced.tensor("0.weight")), gather(traced, data, criterion.needs))
    assert float(scores[:2].min()) > 0.5
    assert float(scores[2:].abs().max()) < 0.3
    assert set(gather(traced, data, criterion.needs)[criterion.contrast]) == {"0.weight"}  # outputs stay whole


def test_contrast_counts_the_scale_of_the_norm_behind():
    # One step of size 1: beta = 1/2 - dL/dbeta, in front of a norm of scale -3.
    model = nn.Sequential(linear([[1.0], [0.0]]), nn.BatchNorm1d(2, eps=0.0), linear([[1.0, 1.0]])).eval()
    model[1].weight.data.fill_(-3.0)
    x = torch.tensor([[1.0], [2.0]])
    data = Batches(x, torch.tensor([[-3.0], [-6.0]]))
    # Mixed 1.5 and 1.5, outputs -4.5: errors -1.5 and 1.5, dz/dbeta -1 and 1 times -3; mean of 2 * (-1.5 * 3 + 1.5 * -3) is -9, clamped. The other channel is 0 either way.
    assert KnockoffContrast(batches=1, lr=1.0)(trace(model, x), data, 0)["0.weight"].tolist() == [3.0, 0.0]
    assert KnockoffContrast(batches=1, lr=0.01)(trace(model, x), data, 0)["0.weight"].tolist() == pytest.approx([3 * 2 * 0.09, 0])


def test_least_distortion_is_the_best_of_all_choices():
    curves = [np.concatenate([[0], draw]) for draw in np.random.default_rng(0).random((3, 3))]
    found = least_distortion(curves)
    assert found.shape == (10, 3)
    for quanta in range(10):
        assert found[quanta].sum() == quanta
        choices = [c for c in itertools.product(range(4), repeat=3) if sum(c) == quanta]
        best = min(sum(curve[j] for curve, j in zip(curves, c, strict=True)) for c in choices)
        assert sum(curve[j] for curve, j in zip(curves, found[quanta], strict=True)) == pytest.approx(best)


def test_distortions_are_of_the_output_with_one_layer_pruned():
    # x = 1: hidden (1, 2), output 1 + 2 * 2 = 5. Without the smallest weight of a layer: 5 - 1 either way; one weight always stays.
    traced = trace(nn.Sequential(linear([[1.0], [2.0]]), linear([[1.0, 2.0]])), torch.ones(2, 1))
    plan, data = Element().plan(traced), Batches(torch.ones(2, 1), torch.zeros(2, 1))
    scores = plan.scores(Magnitude(1.0), Stats(), traced)
    assert RateDistortion(levels=2).distortions(plan, scores, traced, data).tolist() == [[0, 1, 1], [0, 1, 1]]
    with pytest.raises(PreconditionError, match="measured on data"):
        RateDistortion().on(plan, scores, traced, None)


def test_sparsity_goes_where_the_output_does_not_feel_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        model[2].weight[:, 1:] *= 1e-3
    x = torch.randn(64, 8)
    traced, data = trace(model, x), Batches(x, torch.randn(64, 4))
    plan = Element().plan(traced)
    scores = plan.scores(Magnitude(1.0), Stats(), traced)
    shares = RateDistortion(levels=8, quanta=160).on(plan, scores, traced, data)
    sizes = np.array([64, 64, 32])
    for amount in (0.0, 0.2, 0.3331, 0.8, 1.0):
        assert float(shares(scores, amount) @ sizes) == pytest.approx(amount * 160)
    sparsity = shares(scores, 0.3)
    assert sparsity[1] > 0.65
    assert resolved(uniform, plan, scores, traced, data) is uniform

    def loss(allocation):
        keep = plan.keep(scores, allocation(scores, 0.4))
        with torch.no_grad():
            return float((plan.apply(keep, traced)(x) - traced(x)).square().sum())

    assert loss(shares) < loss(uniform)
    assert loss(shares) < 1.05 * loss(global_threshold)


def test_an_allocation_of_a_network_is_made_once_and_refused_before():
    step = Prune(method="prune.rd_prune", budget=Budget(params=0.5), criterion=Magnitude(1.0), unit=Element(), allocation=RateDistortion())
    with pytest.raises(PreconditionError, match="RateDistortion is made on a network"):
        _ = step.shares


def test_savings_by_hand():
    # 3 maps of 6 x 6, then 5 of 2 x 2: a channel takes 36 or 4 elements.
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 5, 3, stride=2), nn.Flatten(), nn.Linear(20, 2))
    plan = Channels(per_layer=False).plan(trace(model, torch.randn(2, 1, 8, 8)))
    assert map_elements(plan).tolist() == [36, 4]
    # Multiplications: 36 * 9 and 5 * 4 * 9 read it; 4 * 27 and 2 * 4.
    assert macs(plan).tolist() == [pytest.approx(36 * 9 + 5 * 4 * 9), pytest.approx(4 * 27 + 2 * 4)]
    shares = PerSaving().on(plan, [], plan.coupling.traced, None)
    # Per element 1, 2, 3 and 1.5, 2.5, 3.5, 4.5, 5.5: three of eight are 1, 1.5 and 2.
    scores = [np.array([36.0, 72.0, 108.0]), np.array([6.0, 10.0, 14.0, 18.0, 22.0])]
    assert shares(scores, 3 / 8).tolist() == pytest.approx([2 / 3, 1 / 5])
    with pytest.raises(PreconditionError, match="Channels"):
        map_elements(Element().plan(plan.coupling.traced))


def test_scores_of_channels_are_no_scores_of_weights():
    traced = trace(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4))
    with pytest.raises(PreconditionError, match=r"GeometricMedian scores channels and not single weights: pass unit=Channels\(\)"):
        Element().plan(traced).scores(GeometricMedian(), Stats(), traced)


class Named:
    """Scores of filters, given."""

    def __init__(self, *values):
        self.values, self.roles, self.needs = torch.tensor(values), frozenset({"out"}), frozenset()

    def __call__(self, layer, stats):
        return self.values


def test_the_sampler_prefers_the_criterion_whose_mask_costs_least():
    traced, data = signals()
    signal, noise = Named(4.0, 3.0, 2.0, 1.0), Named(1.0, 2.0, 3.0, 4.0)
    for criteria, best in (((signal, noise), 0), ((noise, signal), 1)):
        criterion = LearntCriterion(preferences=Preferences(criteria=criteria, batches=20, batch_size=256))
        assert criterion.preferences.masks(traced, data, 0)["0.weight"][best].tolist() == [1, 1, 0, 0]
        stats = gather(traced, data, criterion.needs)
        assert int(stats[criterion.preferences]["0.weight"].argmax()) == best
        assert torch.equal(criterion(Layer(name="0.weight", weight=torch.eye(4)), stats), signal.values)
