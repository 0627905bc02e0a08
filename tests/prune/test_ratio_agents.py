"""Agents that share sparsity out before the network runs: bounds and rewards by hand, and choices no worse than equal shares."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lilliput import prune
from lilliput.core import Budget, BudgetError, PreconditionError, RecipeError
from lilliput.graph import profile, trace
from lilliput.prune import AccuracyGuaranteed, Channels, DeviationThresholds, Element, LayerRatios, Magnitude, Stats
from lilliput.prune.allocation import FromBudget, resolved, uniform
from lilliput.prune.fitting import Target, meet
from lilliput.prune.observation import looks
from lilliput.prune.ratios import Exact, World
from lilliput.prune.thresholds import dense_reward, kept_accuracy, shares_under
from lilliput.prune.trials import Along, Exactly, Score, Trials, saved
from lilliput.train import SGD, Fit, evaluate, fit
from lilliput.train.agents import DDPG, DQN

SMALL = DDPG(hidden=(16, 16), warmup=3)


@pytest.fixture(scope="module")
def net(digits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                          nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
                          nn.Conv2d(24, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    return fit(trace(model, digits.example()), digits, Fit(epochs=3, batch_size=64, optimizer=SGD(lr=0.1)), progress=False).model.eval()


class Pairs:
    """A few samples of two numbers, split as they are."""

    num_classes = 0

    def __init__(self, x, y):
        self.x, self.y, self.train, self.val = x, y, self, self

    def __len__(self):
        return len(self.x)

    def head(self, count):
        return Pairs(self.x[:count], self.y[:count])

    def batches(self, size, seed=None):
        yield from zip(self.x.split(size), self.y.split(size), strict=True)


def linear_world(most, budget):
    torch.manual_seed(0)
    traced = trace(nn.Sequential(nn.Linear(8, 10, bias=False), nn.ReLU(), nn.Linear(10, 20, bias=False)), torch.randn(4, 8))
    plan = Element().plan(traced)
    scores = plan.scores(Magnitude(1.0), Stats(), traced)
    target = Target.of(budget, plan, traced, None)
    trials = Trials.of(plan, scores, target, traced, Pairs(torch.randn(6, 8), torch.randn(6, 20)), samples=6)
    return World(trials, looks(plan, traced), most)


def test_bounds_leave_the_budget_in_reach():
    # 80 and 200 weights, 140 to be removed. The second layer can lose 0.6 * 200 = 120 of them, so the first loses 20 of its 80 at least.
    world = linear_world(0.6, Budget(params=0.5))
    assert world.bounded([], 0.1) == pytest.approx(20 / 80, abs=1 / 80)
    assert world.bounded([], 0.5) == 0.5
    # The last one has all of the rest to lose: 140 - 40 = 100 of 200 after 0.5, and 120 after 0.25.
    assert world.bounded([0.5], 0.0) == pytest.approx(0.5, abs=1 / 200)
    assert world.bounded([0.25], 0.0) == pytest.approx(0.6, abs=1 / 200)
    # Nothing that it may do is enough.
    assert linear_world(0.3, Budget(params=0.5)).bounded([], 0.0) == 0.3


def test_what_the_agent_sees():
    world = linear_world(0.6, Budget(params=0.5))
    first, second = world.state([]).tolist(), world.state([0.25]).tolist()
    # t / T, then outputs, inputs, height, width, stride, kernel over the largest; what goes alone (all but one weight), what went, what may follow, last.
    assert first == pytest.approx([0, 10 / 20, 8 / 10, 1, 1, 1, 1, 79 / 280, 0, 199 / 280, 0])
    assert second == pytest.approx([1 / 2, 1, 1, 1, 1, 1, 1, 199 / 280, 20 / 280, 0, 0.25])
    assert len(first) == world.size


def test_looks_of_convolutions_and_coupled_channels(net):
    assert looks(Channels().plan(net), net).tolist() == [[16, 1, 8, 8, 1, 3], [24, 16, 8, 8, 2, 3], [32, 24, 4, 4, 1, 3]]
    assert looks(Element().plan(net), net)[-1].tolist() == [10, 32, 1, 1, 1, 1]
    with pytest.raises(PreconditionError, match="agents look at layers"):
        looks(object(), net)


def test_rewards():
    assert Exact()(0.25, {"macs": 1e6}) == -0.25
    assert AccuracyGuaranteed()(0.5, {"macs": math.exp(2)}) == pytest.approx(-1)
    # 0.1 of accuracy and half of what is to be saved are missing; more than enough of either counts for nothing.
    assert dense_reward(0.9, 0.5, 5.0) == pytest.approx(-3)
    assert dense_reward(1.2, 1.0, 5.0) == 0
    target = Target(limits={"params": 50.0, "macs": 10.0}, measure={})
    assert saved({"params": 100.0, "macs": 40.0}, {"params": 80.0, "macs": 10.0}, target) == pytest.approx(0.4)
    assert saved({"params": 100.0, "macs": 40.0}, {"params": 20.0, "macs": 5.0}, target) == 1
    assert kept_accuracy(Score(1.0, 0.4), Score(0.5, 0.2), classes=True) == pytest.approx(0.75)
    assert kept_accuracy(Score(1.0, 1.0), Score(0.5, 0.5), classes=False) == pytest.approx(0.5)


def test_shares_under_multiples_of_the_deviation():
    # The deviation of (1, 1, 1, 3) about zero is sqrt(12 / 4) = 1.73.
    found = shares_under([np.array([1.0, 1.0, 1.0, 3.0]), np.array([[2.0, 2.0]])], (0.0, 0.5, 1.0, 2.0))
    assert found.tolist() == [[0, 0, 0.75, 1], [0, 0, 0, 1]]


def test_a_path_over_shares():
    scores = [np.zeros(4), np.zeros(12)]
    path = Along((0.8, 0.4))  # their mean is 0.5
    assert path(scores, 0.25).tolist() == pytest.approx([0.4, 0.2])
    assert path(scores, 0.5).tolist() == pytest.approx([0.8, 0.4])
    assert path(scores, 0.75).tolist() == pytest.approx([0.9, 0.7])
    assert path(scores, 1.0).tolist() == pytest.approx([1, 1])
    for amount in (0.0, 0.2, 0.5, 0.9, 1.0):
        assert Along((0.3, 0.3))(scores, amount).tolist() == pytest.approx(uniform(scores, amount).tolist())
    assert Along((0.0, 0.0))(scores, 0.0).tolist() == [0, 0]
    exact = Exactly((0.8, 0.4))
    assert [exact(scores, a).tolist() for a in (0.49, 0.5, 0.99, 1.0)] == [[0, 0], [0.8, 0.4], [0.8, 0.4], [1, 1]]


def channel_trials(net, digits, budget):
    plan = Channels().plan(net)
    scores = plan.scores(Magnitude(1.0), Stats(), net)
    return Trials.of(plan, scores, Target.of(budget, plan, net, None), net, digits, samples=128)


def test_fitted_shares_leave_no_room_for_another_unit(net, digits):
    trials = channel_trials(net, digits, Budget(macs=0.5))
    for shares in ([0.9, 0.1, 0.2], [0.0, 0.0, 0.9], [0.5, 0.5, 0.5]):
        found = trials.fitted(shares)
        keep = trials.kept(found)
        assert trials.met(keep)
        for group, kept in enumerate(keep):
            if not kept.all():
                more = [k.copy() for k in keep]
                more[group][np.flatnonzero(~kept)[0]] = True
                assert not trials.met(more)
        # What a step makes of these shares is what was scored.
        again = meet(trials.plan, trials.scores, Along(tuple(found)), trials.target, net)[1]
        assert all((a == b).all() for a, b in zip(again, keep, strict=True))


def test_scores_are_of_batches_own_statistics(net, digits):
    trials = channel_trials(net, digits, Budget(macs=0.5))
    keep = trials.kept([0.5, 0.25, 0.0])
    small = trials.plan.apply(keep, net).train()
    inputs, targets = trials.batches[0]
    with torch.no_grad():
        outputs = small(inputs)
    score = trials.score(keep)
    assert score.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, targets)), rel=1e-4)
    assert score.error == pytest.approx(float((outputs.argmax(1) != targets).float().mean()))
    whole = trials.score(trials.plan.everything())
    assert trials.score(trials.plan.everything()) == whole, "what was silenced is back"


@pytest.mark.parametrize("reward", [Exact(), AccuracyGuaranteed()])
def test_ratios_are_no_worse_than_equal_ones_and_better_than_random_channels(reward, net, digits):
    search = LayerRatios(agent=SMALL, reward=reward, episodes=25)
    step = replace(prune.amc(Budget(macs=0.4)), allocation=search)
    trials = channel_trials(net, digits, Budget(macs=0.4))
    trials = Trials.of(trials.plan, trials.scores, trials.target, net, digits, samples=512)
    found = search.under(trials.target, trials.plan, trials.scores, net, digits)
    chosen, equal = trials.score(trials.kept(found.shares)), trials.score(trials.kept(trials.fitted([0.5] * 3)))
    assert chosen.error <= equal.error
    result = step(net, digits)
    macs = profile(result.model).macs
    assert macs <= 0.4 * profile(net).macs
    assert macs >= 0.396 * profile(net).macs or not reward.fills
    assert evaluate(result.model, digits.test) > evaluate(prune.random(Budget(macs=0.4))(net, digits).model, digits.test)
    assert any("the best of 25 episodes" in note for note in result.report.entries[0].notes)


def test_thresholds_are_no_worse_than_equal_shares_and_better_than_random_weights(net, digits):
    search = DeviationThresholds(agent=DQN(hidden=(16, 16)), episodes=12, samples=256)
    plan = Element().plan(net)
    scores = plan.scores(Magnitude(1.0), Stats(), net)
    target = Target.of(Budget(params=0.2), plan, net, None)
    trials = Trials.of(plan, scores, target, net, digits, samples=256)
    found = search.under(target, plan, scores, net, digits)
    assert trials.score(trials.kept(found.shares)).loss <= trials.score(trials.kept(trials.fitted([0.5] * 4))).loss
    result = prune.purl(Budget(params=0.2), allocation=search)(net, digits)
    other = prune.Prune(method="test", budget=Budget(params=0.2), criterion=prune.Random(), unit=Element())(net, digits)
    assert evaluate(result.model, digits.test) > evaluate(other.model, digits.test) + 10


def test_reconstruction_goes_with_selection_by_lasso(net, digits):
    step = prune.amc(Budget(macs=0.5), allocation=LayerRatios(agent=SMALL, episodes=2), criterion=prune.LassoSelection())
    assert step.compensate is not None
    assert profile(step(net, digits).model).macs <= 0.5 * profile(net).macs


def test_searches_say_what_they_need(net, digits):
    plan = Channels().plan(net)
    scores = plan.scores(Magnitude(1.0), Stats(), net)
    assert isinstance(LayerRatios(), FromBudget)
    with pytest.raises(PreconditionError, match="pass target="):
        resolved(LayerRatios(), plan, scores, net, digits)
    with pytest.raises(PreconditionError, match="pass data="):
        prune.amc(Budget(macs=0.5))(net, None)
    with pytest.raises(PreconditionError, match="is made on a network"):
        prune.amc(Budget(macs=0.5)).shares  # noqa: B018
    with pytest.raises(BudgetError, match="the least this network allows"):
        prune.purl(Budget(params=1e-4))(net, digits)


@pytest.mark.parametrize("wrong", [lambda: LayerRatios(most=0.0), lambda: LayerRatios(episodes=0), lambda: DeviationThresholds(multiples=(1.0,)),
                                   lambda: DeviationThresholds(weight=0.0), lambda: DeviationThresholds(samples=0)])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(RecipeError):
        wrong()
