"""Super-networks by ordered dropout and the search in them: widths, masks and candidates by hand; depth goes where it is not needed."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lilliput import prune, zoo
from lilliput.core import Budget, PreconditionError, RecipeError
from lilliput.data import from_arrays
from lilliput.graph import profile, trace
from lilliput.prune import Branches, Channels, CoordinateDescent, LatencyTable, Structures, SuperNetwork, Tabulation
from lilliput.prune.allocation import global_threshold
from lilliput.prune.coordinates import Costs, Search
from lilliput.prune.ordered import (
    Dimension,
    Masking,
    OrderedDropout,
    Site,
    SubNetworks,
    dimensions,
    kept,
    lay_,
    masking_of,
    sites,
)
from lilliput.prune.trials import Score, Trials
from lilliput.train import SGD, Fit, evaluate, fit

FIT = Fit(epochs=2, batch_size=32, optimizer=SGD(lr=0.05))
NOTHING = Fit(epochs=0)
QUICK = Fit(epochs=2, batch_size=64, optimizer=SGD(lr=0.02))
UNIT = Structures(channels=Channels(per_layer=False))


def super_network(budget, *, fine_tune=Fit(), search=CoordinateDescent(), unit=UNIT, measure=None, checkpoint=None):
    """Depth and width together, by a super-network's accuracy."""
    return prune.Prune(method="super-network", budget=budget, criterion=prune.Magnitude(2.0), unit=unit, allocation=global_threshold, schedule=search,
                       recover=prune.FineTune(fit=fine_tune), measure=measure, checkpoint=checkpoint)


class Small(nn.Module):
    """A stem, a residual branch of two convolutions, one of a single convolution, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.an = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.bn = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.c, self.cn = nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.d = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.an(self.a(x)))
        x = torch.relu(x + self.cn(self.c(torch.relu(self.bn(self.b(x))))))
        x = torch.relu(x + self.d(x))
        return self.head(x.mean((2, 3)))


def small():
    torch.manual_seed(0)
    model = Small()
    for norm in (model.an, model.bn, model.cn):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(tensor, 0.5, 1.5)
    return trace(model, torch.randn(2, 1, 6, 6)).eval()


@pytest.fixture(scope="module")
def task():
    random = np.random.default_rng(0)
    inputs = torch.tensor(random.normal(size=(160, 1, 6, 6)), dtype=torch.float32)
    targets = (inputs[:, 0, :, :3].mean((1, 2)) > 0).long()
    inputs[:, 0] += targets[:, None, None] * torch.eye(6)
    return from_arrays("lines", inputs, targets, num_classes=2)


def ready(traced, unit=UNIT):
    plan = unit.plan(traced)
    scores = plan.scores(prune.Magnitude(2.0), prune.Stats(), traced)
    return plan, scores, dimensions(plan)


def test_depth_and_width_are_one_dimension():
    plan, scores, sizes = ready(small())
    stem, inner, single = sizes
    assert stem == Dimension(group=0, branch=None, units=8)
    assert inner == Dimension(group=1, branch=0, units=12)
    assert single == Dimension(group=None, branch=1, units=1)
    # Eight units from one on in four steps of 1.75, twelve from none on in four of 3.
    assert stem.widths(4).tolist() == [1, 3, 4, 6, 8]
    assert inner.widths(4).tolist() == [0, 3, 6, 9, 12]
    assert single.widths(4).tolist() == [0, 1]
    assert [units.sum() for units in kept(plan, scores, sizes, [5, 7, 1])] == [5, 7, 1, 1]
    assert [units.sum() for units in kept(plan, scores, sizes, [8, 0, 1])] == [8, 1, 0, 1]
    assert [units.sum() for units in kept(plan, scores, sizes, [8, 3, 0])] == [8, 3, 1, 0]
    best = np.sort(np.argsort(-scores[1])[:7])
    assert np.flatnonzero(kept(plan, scores, sizes, [5, 7, 1])[1]).tolist() == best.tolist()


def test_flags_are_of_the_first_units_by_score():
    plan, _, sizes = ready(small())
    scores = [np.arange(8.0), -np.arange(12.0), np.ones(1), np.ones(1)]
    networks = SubNetworks(plan, scores, sizes)
    flags = networks.flags(np.array([[3, 2, 1], [8, 0, 1], [1, 12, 0]]))
    stem, inner = (flags[:, group.components] for group in plan.channels.groups)
    assert [np.flatnonzero(row).tolist() for row in stem] == [[5, 6, 7], list(range(8)), [7]]
    # Where the branch is gone its own units stay: nothing of them comes out.
    assert [row.sum() for row in inner] == [2, 12, 12]
    assert np.flatnonzero(inner[0]).tolist() == [0, 1]
    assert flags[:, -2:].tolist() == [[True, True], [False, True], [True, False]]
    drawn = networks.drawn(np.random.default_rng(0), 4000, 4)
    for place, dimension in enumerate(sizes):
        values, counts = np.unique(drawn[:, place], return_counts=True)
        assert values.tolist() == dimension.widths(4).tolist()
        assert counts.min() > 0.85 * 4000 / len(values)
    assert len(np.unique(drawn, axis=0)) == 50  # independently of each other


def test_masks_of_samples_by_hand():
    # Two samples and three units; then one value that merges them with two positions, and one with the units ahead.
    masking = Masking([Site(node="", sample=0, columns=((1, (0, 2)),)), Site(node="", sample=0, columns=((0, (0, 2)),)),
                       Site(node="", sample=1, columns=((0, (0, 2)),)), Site(node="", sample=0, columns=((None, (1,)),))])
    masking.flags = torch.tensor([[1, 0, 0], [0, 1, 1]]).bool()
    assert masking(torch.ones(2, 2), 0).tolist() == [[1, 0], [0, 1]]
    assert masking(torch.ones(4, 2), 0).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert masking(torch.ones(4), 1).tolist() == [1, 0, 0, 1]
    assert masking(torch.ones(2, 2), 2).tolist() == [[1, 0], [0, 1]]
    assert masking(torch.ones(2, 3), 3).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert masking.eval()(torch.ones(2, 2), 0).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("name", ["small", "resnet8", "vit_tiny"])
def test_every_image_gets_what_the_smaller_network_of_its_own_gives(name, trained, digits):
    unit, example = UNIT, digits.example(6)
    if name == "small":
        traced, example = small(), torch.randn(6, 1, 6, 6)
    elif name == "resnet8":
        traced = trained
    else:
        options = {"image_size": 8, "dim": 16, "depth": 2, "heads": 4}
        traced = trace(zoo.create(name, num_classes=10, in_chans=1, seed=0, options=options), digits.example()).eval()
        unit = Structures(channels=Channels(exclude=("patch_embed*",)))  # layer norms would count silent channels
    plan, scores, sizes = ready(traced, unit)
    networks = SubNetworks(plan, scores, sizes)
    widths = networks.drawn(np.random.default_rng(1), 6, 4)
    assert any(dimension.branch is not None and (widths[:, place] == 0).any() for place, dimension in enumerate(sizes))
    masked = copy.deepcopy(traced)
    lay_(masked, sites(masked, plan))
    torch.testing.assert_close(masked(example), traced(example))
    masking = masking_of(masked).train()  # and the norms as they are in evaluation
    masking.flags = torch.from_numpy(networks.flags(widths))
    found = masked(example)
    for sample, own in enumerate(widths.tolist()):
        alone = plan.apply(kept(plan, scores, sizes, own), traced)
        torch.testing.assert_close(found[sample], alone(example)[sample], atol=1e-5, rtol=1e-4)
    assert (found - traced(example)).abs().max() > 1e-3


def test_what_no_image_has_does_not_learn_and_masks_leave_with_the_training(task):
    traced = small()
    plan, scores, sizes = ready(traced)
    networks = SubNetworks(plan, scores, sizes)
    networks.drawn = lambda generator, samples, levels: np.tile([8, 5, 1], (samples, 1))
    config = replace(FIT, optimizer=SGD(lr=0.05, weight_decay=0.0))
    trained = fit(traced, task, config, hooks=(OrderedDropout(plan, networks, 4),), progress=False).model
    first = np.argsort(-scores[1])[:5]
    changed = (trained.tensor("b.weight") != traced.tensor("b.weight")).flatten(1).any(1).numpy()
    assert np.flatnonzero(changed).tolist() == sorted(first.tolist())
    assert [node.name for node in trained.graph.nodes] == [node.name for node in traced.graph.nodes]
    assert set(trained.state_dict()) == set(traced.state_dict())


class Told:
    """Trials that know beforehand what a choice is worth."""

    def __init__(self, plan, scores, target, worth):
        self.plan, self.scores, self.target, self.worth, self.asked = plan, scores, target, worth, []

    def score(self, keep):
        self.asked.append([int(units.sum()) for units in keep])
        return Score(*self.worth(self.asked[-1]))


def searching(worth, **settings):
    plan, scores, sizes = ready(small())
    trials = Told(plan, scores, SimpleNamespace(structural=lambda plan: True), worth)
    cost = Costs(plan, "macs", None)
    return Search(settings=CoordinateDescent(**settings), trials=trials, sizes=sizes, cost=cost, seed=0), plan, trials


def test_candidates_fall_as_far_as_asked_and_no_further_than_one_unit_needs():
    # Of 36 pixels each: a 9 * 8, b and c 9 * 8 * 12 each, d 64, all times 36, and 16 for the head.
    search, plan, _ = searching(None, layers=1)
    whole = plan.cost(plan.everything())["macs"]
    assert whole == 36 * (72 + 864 + 864 + 64) + 16
    unit = 36 * 2 * 72  # one of b's filters, with what c reads of it
    found = {None if widths is None else tuple(widths) for widths in (search.candidate(whole, 2.5 * unit, np.inf) for _ in range(30))}
    # That takes three of b's filters, or two of the stem's, each 36 * (9 + 2 * 108 + 15) + 2; the single layer is worth 36 * 64.
    assert found == {(8, 9, 1), (6, 12, 1), None}
    assert search.candidate(whole, whole, np.inf) is None
    many, plan, _ = searching(None, layers=3, supernet=SuperNetwork(levels=4))
    for _ in range(60):
        widths = many.candidate(whole, 0.1 * whole, 0.2 * whole)
        if widths is not None:
            assert 0.8 * whole <= plan.cost(many.keep(widths))["macs"] <= 0.9 * whole
            assert all(width <= dimension.units for width, dimension in zip(widths, many.sizes, strict=True))
    assert many.widths == [8, 12, 1]


def test_the_most_accurate_candidate_goes_on_and_the_loss_decides_between_equals():
    # The stem's units are worth everything.
    search, plan, trials = searching(lambda counts: (0.0, 8 - counts[0]), candidates=12, layers=2)
    whole = plan.cost(plan.everything())["macs"]
    _, keep = search.narrowed(small(), plan.everything(), 0.3 * whole, 0.6 * whole)
    assert int(keep[0].sum()) == 8
    assert min(counts[0] for counts in trials.asked) < 8
    assert plan.cost(keep)["macs"] < whole
    search, plan, trials = searching(lambda counts: (float(counts[1]), 0.5), candidates=12, layers=2)
    _, keep = search.narrowed(small(), plan.everything(), 0.3 * whole, 0.6 * whole)
    assert int(keep[1].sum()) == min(counts[1] for counts in trials.asked)


def test_a_branch_goes_where_it_is_worth_less_than_width(task, monkeypatch):
    monkeypatch.setattr(Trials, "score", lambda self, keep: Score(0.0, 8.0 - int(keep[0].sum())))  # the stem alone counts
    traced, unit = small(), Structures(channels=Channels(per_layer=False), branches=Branches(exclude=("d",)))
    left = 36 * (72 + 64) + 16
    search = CoordinateDescent(supernet=SuperNetwork(fit=NOTHING), first=0.2, candidates=6, layers=2)
    result = super_network(Budget(macs=1.001 * left / profile(traced).macs), search=search, unit=unit, fine_tune=NOTHING)(traced, task)
    rows = {row["layer"]: row for row in result.report.entries[0].layers}
    assert profile(result.model).macs == left
    assert not {"b.weight", "bn.weight", "c.weight", "cn.weight"} & set(result.model.state_dict())
    assert torch.equal(result.model.tensor("a.weight"), traced.tensor("a.weight"))
    assert rows["a"]["channels_after"] == 8
    # With what one of the branch's filters takes there is room for that.
    wider = super_network(Budget(macs=(left + 36 * 144) / profile(traced).macs), search=search, unit=unit, fine_tune=NOTHING)(traced, task)
    assert wider.model.tensor("b.weight").shape[0] == 1


def machine(model):
    """Each layer takes a unit of time, and each multiplication a little."""
    weights = [parameter.numel() for parameter in model.parameters() if parameter.ndim == 4]
    return 10.0 * len(weights) + 36 * sum(weights) / 1e3


def test_a_latency_is_met_by_the_measurement_and_a_table_serves_again(task):
    traced, calls = small(), []

    def measure(model):
        calls.append(1)
        return machine(model)

    search = CoordinateDescent(supernet=SuperNetwork(fit=replace(FIT, epochs=1)), first=0.3, candidates=2, samples=64)
    whole = machine(traced)
    result = super_network(Budget(latency=0.5), search=search, fine_tune=FIT, measure={"latency": measure})(traced, task)
    assert 0.4 * whole <= machine(result.model) <= 0.5 * whole
    assert result.report.entries[0].measured["latency"] == machine(result.model)
    plan, scores, _ = ready(traced)
    table = Tabulation()(plan.channels, scores[:2], traced, "latency", {"latency": machine})
    first = len(calls)
    again = super_network(Budget(latency=0.5), search=replace(search, table=table), fine_tune=FIT, measure={"latency": measure})(traced, task)
    assert all(torch.equal(a, b) for a, b in zip(result.model.state_dict().values(), again.model.state_dict().values(), strict=True))
    assert len(calls) - first < first
    # What is of no group falls by its work: the single layer is 64 of 1864.
    costs, keep = Costs(plan, "latency", table), plan.everything()
    keep[3][:] = False
    assert costs(keep) == pytest.approx(whole * plan.cost(keep)["macs"] / plan.cost(plan.everything())["macs"])
    with pytest.raises(PreconditionError, match="is of another network"):
        super_network(Budget(latency=0.5), search=replace(search, table=replace(table, groups=("x", "y"))), measure={"latency": machine})(traced, task)


def test_a_run_goes_on_from_its_checkpoints(task, tmp_path):
    search = CoordinateDescent(supernet=SuperNetwork(levels=2), first=0.3, candidates=2, samples=64)
    step = super_network(Budget(params=0.6), search=search, fine_tune=FIT, checkpoint=tmp_path / "run.pt")
    first = step(small(), task).model.state_dict()
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["run.recover.pt", "run.supernet.pt"]
    second = step(small(), task).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_it_needs(task):
    with pytest.raises(PreconditionError, match=r"pass unit=Structures"):
        replace(super_network(Budget(macs=0.5)), unit=Channels())(small(), task)
    for wrong in ({"first": 0.0}, {"decay": 1.5}, {"candidates": 0}, {"layers": 0}, {"samples": 0}):
        with pytest.raises(RecipeError, match="first and decay"):
            CoordinateDescent(**wrong)
    with pytest.raises(RecipeError, match="at least one more"):
        SuperNetwork(levels=0)
    assert isinstance(CoordinateDescent().table, Tabulation | LatencyTable)
    only = super_network(Budget(macs=0.5), unit=Structures(branches=Branches(exclude=("*",))), fine_tune=FIT,
                             search=CoordinateDescent(supernet=SuperNetwork(fit=FIT), first=0.3, candidates=2, samples=64))(small(), task)
    assert profile(only.model).macs <= 0.5 * profile(small()).macs


def test_it_beats_random_channels_at_the_same_budget_and_fine_tuning(trained, digits):
    learnt = Fit(epochs=6, batch_size=64, optimizer=SGD(lr=0.02))
    search = CoordinateDescent(supernet=SuperNetwork(fit=learnt), first=0.1, candidates=6, samples=128)
    ours = super_network(Budget(macs=0.15), search=search, fine_tune=QUICK)(trained, digits).model
    by_chance = prune.random(Budget(macs=0.15), fine_tune=QUICK)(trained, digits).model
    assert 0.99 * 0.15 * profile(trained).macs <= profile(ours).macs <= 0.15 * profile(trained).macs
    found = evaluate(ours, digits.val), evaluate(by_chance, digits.val)
    assert found[0] > found[1]
