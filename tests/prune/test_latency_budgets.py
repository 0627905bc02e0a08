"""Latency tables, the knapsack and what follows them: by hand, against all choices there are, and on a machine made of stairs."""

import copy
import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from lilliput.core import Budget, BudgetError, CorruptFileError, PreconditionError, RecipeError
from lilliput.data import from_arrays
from lilliput.graph import profile, trace
from lilliput.prune import (
    Adaptation,
    ByTable,
    Channels,
    Element,
    Knapsack,
    LatencyTable,
    LessCost,
    Magnitude,
    Prune,
    Stats,
    Tabulation,
)
from lilliput.prune.allocation import global_threshold
from lilliput.prune.latency_aware import Tabulated
from lilliput.prune.latency_table import calibrated, rising, widths
from lilliput.prune.perturbation import GateSlopes, GateTaylor, GroupTaylor
from lilliput.prune.recipes.latency import halp, netadapt, vit_hessian
from lilliput.prune.statistics import Gradient, gather
from lilliput.train import SGD, Fit, evaluate, fit

PLAIN = Channels(per_layer=False)
TABLE = LatencyTable(resource="latency", groups=("a", "b"), counts=((1, 2, 4), (2, 4)), costs=((4.0, 7.0, 10.0), (6.0, 10.0)),
                     work=((40.0, 60.0, 100.0), (70.0, 100.0)))


@pytest.fixture(scope="module")
def task():
    random = np.random.default_rng(0)
    x = random.normal(size=(240, 1, 6, 6)).astype(np.float32)
    y = (x[:, 0, :3].mean((1, 2)) > 0) * 2 + (x[:, 0, 3:].mean((1, 2)) > 0)
    return from_arrays("quarters", x, y.astype(np.int64))


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
                         nn.Conv2d(24, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4))


@pytest.fixture(scope="module")
def network(task):
    model = trace(convolutional(), task.example())
    return fit(model, task, Fit(epochs=6, batch_size=24, optimizer=SGD(lr=0.05)), progress=False).model.eval()


class Stairs:
    """A machine that computes channels in fours, with an overhead; `slower` from one call to the next."""

    def __init__(self, slower=1.0):
        self.calls, self.slower = 0, slower

    def __call__(self, model):
        self.calls += 1
        shapes = [p.shape for p in model.parameters() if p.ndim == 4]
        return self.slower**self.calls * (5e-6 + sum(math.ceil(s[0] / 4) * 4 * s[1] * 36 * 9 * 1e-10 for s in shapes))


def plan_of(network):
    plan = PLAIN.plan(network)
    return plan, plan.scores(Magnitude(2.0), Stats(), network)


def test_a_table_predicts_by_hand():
    # 10 - phi (3 + 4); alone 40 and 30 of the work go, together 55: phi = 55 / 70.
    assert TABLE.predict([2, 2], 45.0) == pytest.approx(10 - 7 * 55 / 70)
    assert TABLE.predict([3, 3], 100.0) == 10  # widths in between cost what the next wider ones do
    assert TABLE.predict([1, 4], 40.0) == pytest.approx(4)
    assert TABLE.whole == 10
    assert TABLE.contributions(0).tolist() == [3, 3, 1.5, 1.5]
    assert TABLE.contributions(1).tolist() == [2, 2, 2, 2]


def test_costs_rise_with_width_and_all_rows_end_in_the_whole_network():
    assert rising([1.0, 3.0, 2.0, 4.0]).tolist() == [1, 2, 2, 4]
    assert rising([5.0, 4.0, 3.0]).tolist() == [3, 3, 3]
    # A machine twice as slow from the third row on; the median of what the whole took is (8 + 16) / 2.
    assert calibrated([[4.0, 8.0], [6.0, 8.0], [8.0, 16.0], [4.0, 16.0]]) == ((6.0, 12.0), (9.0, 12.0), (6.0, 12.0), (3.0, 12.0))
    # One reading that something disturbed, of the whole network and of a narrow one.
    assert calibrated([[4.0, 8.0], [6.0, 99.0], [77.0, 8.0]]) == ((4.0, 8.0), (6.0, 8.0), (8.0, 8.0))
    assert calibrated([]) == ()


def test_widths_are_multiples():
    assert widths(20, 8, 8) == (8, 16, 20)
    assert widths(16, 1, 4) == (1, 6, 11, 16)
    assert widths(7, 8, 8) == (7,)
    assert widths(1, 1, 8) == widths(1, 8, 8) == (1,)


def test_tables_of_what_structure_tells_are_exact_and_never_measured(network):
    plan, scores = plan_of(network)
    for resource in ("macs", "params"):
        table = Tabulation()(plan, scores, network, resource, {})
        assert table.whole == plan.cost(plan.everything())[resource]
        for share in (0.2, 0.5, 0.9):
            keep = plan.keep(scores, np.full(len(scores), share))
            assert table.predict_of(plan, keep) == pytest.approx(plan.cost(keep)[resource])


def test_a_drifting_machine_gives_the_same_table(network):
    plan, scores = plan_of(network)
    steady, drifting = (Tabulation(points=4)(plan, scores, network, "latency", {"latency": Stairs(slower)}) for slower in (1.0, 1.001))
    for a, b in zip(steady.costs, drifting.costs, strict=True):
        np.testing.assert_allclose(np.array(a) / steady.whole, np.array(b) / drifting.whole, rtol=5e-3)


def test_groups_that_cost_alike_are_measured_once():
    torch.manual_seed(0)
    same = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 36), nn.ReLU(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 36))
    traced = trace(same, torch.randn(2, 1, 6, 6))
    plan, scores = plan_of(traced)
    calls = []
    table = Tabulation(points=3)(plan, scores, traced, "latency", {"latency": lambda model: calls.append(1) or float(profile(model).macs)})
    assert [counts[-1] for counts in table.counts] == [8, 36, 8]
    assert len(calls) == 6
    assert table.costs[0] == table.costs[2]


def test_tables_are_plain_data(network, task):
    assert LatencyTable.from_json(TABLE.to_json()) == TABLE
    for damage in ("", "[]", "{}", TABLE.to_json()[:-9], json.dumps({**json.loads(TABLE.to_json()), "costs": [[1.0]]})):
        with pytest.raises(CorruptFileError, match="make it anew"):
            LatencyTable.from_json(damage)
    with pytest.raises(PreconditionError, match="another network"):
        halp(Budget(latency=0.6), table=TABLE, measure={"latency": Stairs()})(network, task)


def test_the_knapsack_is_the_best_of_all_choices():
    random = np.random.default_rng(3)
    for _ in range(20):
        counts = ((1, 3, 4, 6), (2, 4), (1, 2, 5))
        costs = tuple((*np.sort(random.uniform(1, 9, len(row) - 1)).tolist(), 10.0) for row in counts)
        table = LatencyTable(resource="latency", groups=("a", "b", "c"), counts=counts, costs=costs, work=costs)
        scores = [random.uniform(0, 1, row[-1]) for row in counts]
        amount = random.uniform(0, 1)

        def worth(picked, scores=scores):
            return sum(float(np.sort(values)[::-1][:count].sum()) for values, count in zip(scores, picked, strict=True))

        def cost(picked, counts=counts, costs=costs):
            return sum(costs[g][counts[g].index(count)] - costs[g][0] for g, count in enumerate(picked))

        limit = (1 - amount) * cost([row[-1] for row in counts])
        best = max(worth(picked) for picked in itertools.product(*counts) if cost(picked) <= limit + 1e-12)
        shares = Knapsack()(table, scores, amount)
        chosen = [round((1 - share) * row[-1]) for share, row in zip(shares, counts, strict=True)]
        assert cost(chosen) <= limit + 1e-9
        assert worth(chosen) == pytest.approx(best)


def test_units_that_take_more_go_before_equals():
    scores = [np.array([4.0, 3.0, 2.0, 1.0]), np.array([4.0, 3.0, 2.0, 1.0])]
    np.testing.assert_allclose(LessCost(strength=0.0)(TABLE, scores, 0.5), global_threshold(scores, 0.5))
    # Shares of the sums: importance 4 3 2 1 over 20; costs 3 3 1.5 1.5 and 2 2 2 2 over 17. The last of b takes more than the last of a.
    assert LessCost(strength=1.0)(TABLE, scores, 1 / 8).tolist() == [0, 0.25]
    # I - c by hand: a: .0235 -.0265 .0118 -.0382; b: .0824 .0324 -.0176 -.0676: b's last, a's last, a's second, b's third.
    assert LessCost(strength=1.0)(TABLE, scores, 3 / 8).tolist() == [0.5, 0.25]
    with pytest.raises(RecipeError, match="from 0"):
        LessCost(strength=-1)


class Doubles:
    num_classes = 4

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(8, 1, 6, 6, dtype=torch.float64, generator=generator), torch.randint(0, 4, (8,), generator=generator)
        self.train = self

    def batches(self, size, *, seed=None):
        yield self.x[:size], self.y[:size]


def loss_with(network, data, factors):
    """The loss with tensors' slices multiplied."""
    other = copy.deepcopy(network).eval()
    for name, dim, index, factor in factors:
        with torch.no_grad():
            other.tensor(name).select(dim, index).mul_(factor)
    return float(nn.functional.cross_entropy(other(data.x), data.y))


@pytest.mark.parametrize("unit", [0, 2])
def test_first_order_criteria_are_slopes_of_the_loss(unit):
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    data, network = Doubles(), trace(layers.double(), torch.randn(2, 1, 6, 6, dtype=torch.float64))
    with torch.no_grad():
        for name in ("1.bias", "1.weight"):
            network.tensor(name).add_(torch.randn(3, dtype=torch.float64))
    plan = PLAIN.plan(network)

    def slope(factors):
        h = 1e-5
        up, down = (loss_with(network, data, [(*place, 1 + sign * h) for place in factors]) for sign in (1, -1))
        return (up - down) / (2 * h)

    gates = plan.scores(GateTaylor(), gather(network, data, GateTaylor().needs), network)[0]
    assert gates[unit] == pytest.approx(abs(slope([("1.weight", 0, unit), ("1.bias", 0, unit)])), rel=1e-6)
    slopes = gather(network, data, {GateSlopes()})[GateSlopes()]
    assert float(slopes["0.weight"][unit, 0]) == pytest.approx(slope([("0.weight", 0, unit), ("0.bias", 0, unit)]), rel=1e-6, abs=1e-9)
    groups = plan.scores(GroupTaylor(), gather(network, data, {Gradient()}), network)[0]
    everything = [("0.weight", 0, unit), ("0.bias", 0, unit), ("1.weight", 0, unit), ("1.bias", 0, unit)]
    everything += [("4.weight", 1, 36 * unit + i) for i in range(36)]
    assert groups[unit] == pytest.approx(slope(everything) ** 2, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("recipe", [halp, vit_hessian, netadapt])
def test_measured_budgets_are_met_within_5_percent_and_the_report_says_what_the_table_did(recipe, network, task):
    machine = Stairs()
    whole = machine(network)
    extra = {"fine_tune": Fit(epochs=0), "adaptation": Adaptation(first=0.1)} if recipe is netadapt else {}
    result = recipe(Budget(latency=0.6), measure={"latency": machine}, **extra)(network, task)
    entry = result.report.entries[0]
    assert 0.95 * 0.6 * whole <= machine(result.model) <= 0.6 * whole
    assert entry.measured["latency"] == machine(result.model)
    assert entry.promised["latency"] == pytest.approx(0.6 * whole)
    predicted, of = (float(word) for word in entry.notes[1].split() if word[0].isdigit())
    assert entry.notes[1].startswith("by its table the latency is ")
    assert of == pytest.approx(whole, rel=1e-4)
    assert predicted == pytest.approx(machine(result.model), rel=0.15)
    assert "Stairs" not in entry.recipe


@pytest.mark.parametrize("recipe", [halp, vit_hessian, netadapt])
def test_what_cannot_be_measured_or_met_is_said(recipe, network, task):
    with pytest.raises(PreconditionError, match=r"needs a measurement: pass measure=\{'latency'"):
        recipe(Budget(latency=0.6))(network, task)
    with pytest.raises(BudgetError, match="cannot be met: the least this network allows is"):
        recipe(Budget(latency=1e-7), measure={"latency": Stairs()})(network, task)


def test_a_table_made_before_is_not_measured_again(network, task):
    plan, scores = plan_of(network)
    making, using, fresh = Stairs(), Stairs(), Stairs()
    table = Tabulation()(plan, scores, network, "latency", {"latency": making})
    first = halp(Budget(latency=0.6), table=table, measure={"latency": using})(network, task)
    second = halp(Budget(latency=0.6), measure={"latency": fresh})(network, task)
    assert using.calls == fresh.calls - making.calls
    assert all(torch.equal(a, b) for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True))
    with pytest.raises(PreconditionError, match="a table of latency"):
        halp(Budget(macs=0.6), table=table)(network, task)


def test_room_that_is_left_is_given_back(network):
    plan, scores = plan_of(network)
    table = Tabulation()(plan, scores, network, "macs", {})
    keep = plan.keep(scores, np.full(len(scores), 0.7))
    limit, allocation = 1.5 * plan.cost(keep)["macs"], Tabulated(table=table, policy=Knapsack())
    found = allocation.filled(plan, scores, keep, plan.cost, {"macs": limit})
    assert all((before <= after).all() for before, after in zip(keep, found, strict=True))
    assert plan.cost(found)["macs"] <= limit
    for group, kept in enumerate(found):  # nothing more fits
        if not kept.all():
            more = [k.copy() for k in found]
            more[group][np.flatnonzero(~kept)[0]] = True
            assert plan.cost(more)["macs"] > limit
    # Readings that fell by chance let in more than the limits; the one at the end does not confirm it.
    readings = itertools.chain([0.9 * limit, 0.9 * limit, 0.95 * limit], itertools.repeat(1.2 * limit))
    unsure = allocation.filled(plan, scores, keep, lambda _: {"macs": next(readings)}, {"macs": limit})
    assert all((before == after).all() for before, after in zip(keep, unsure, strict=True))


@pytest.mark.parametrize("options", [{"unit": Channels(round_to=4, per_layer=False)}, {"table": Tabulation(multiple=4)}])
def test_groups_in_round_numbers(options, network, task):
    result = halp(Budget(latency=0.6), measure={"latency": Stairs()}, **options)(network, task)
    assert all(row["channels_after"] % 4 == 0 for row in result.report.entries[0].layers)


class TwoPaths(nn.Module):
    """Two hidden layers of the same cost; nothing is read from the second one."""

    def __init__(self):
        super().__init__()
        self.used, self.idle, self.out, self.nothing = nn.Linear(36, 32), nn.Linear(36, 32), nn.Linear(32, 4), nn.Linear(32, 4)
        nn.init.zeros_(self.nothing.weight)

    def forward(self, x):
        x = x.flatten(1)
        return self.out(torch.relu(self.used(x))) + self.nothing(torch.relu(self.idle(x)))


def test_adaptation_narrows_what_costs_no_accuracy(task):
    torch.manual_seed(0)
    model = trace(TwoPaths(), task.example())
    model = fit(model, task, Fit(epochs=8, batch_size=24, optimizer=SGD(lr=0.1)), progress=False).model
    with torch.no_grad():
        model.tensor("nothing.weight").zero_()
    model.eval()
    before = evaluate(model, task.val)
    assert before > 80
    step = netadapt(Budget(macs=0.6), fine_tune=Fit(epochs=0), adaptation=Adaptation(first=0.1, decay=1.0))
    result = step(model, task)
    kept = {row["layer"]: row["channels_after"] for row in result.report.entries[0].layers}
    assert kept["used"] > kept["idle"]
    assert evaluate(result.model, task.val) >= before - 1
    assert 0.59 <= profile(result.model).macs / profile(model).macs <= 0.6
    # Without training the result is the original without the filters of least norm.
    order = model.tensor("used.weight").square().sum(1).argsort(descending=True)[:kept["used"]].sort().values
    torch.testing.assert_close(result.model.tensor("used.weight").detach(), model.tensor("used.weight").detach()[order])


def test_each_step_is_trained_and_the_last_training_follows(network, task, monkeypatch):
    from lilliput.prune import adaptation

    seen = []
    monkeypatch.setattr(adaptation, "fit", lambda model, data, config, **more: seen.append(config) or fit(model, data, config, **more))
    short, long = Fit(epochs=1, batch_size=60, optimizer=SGD(lr=0.01)), Fit(epochs=1, batch_size=24, optimizer=SGD(lr=0.02))
    result = netadapt(Budget(macs=0.7), fine_tune=long, adaptation=Adaptation(first=0.2, short=short))(network, task)
    assert len(seen) >= 2
    assert set(seen) == {short}
    assert 0.67 <= profile(result.model).macs / profile(network).macs <= 0.7  # a channel of the middle layer alone is a thirtieth
    assert evaluate(result.model, task.val) >= evaluate(network, task.val) - 10


def test_adaptation_needs_a_table_and_channels(network, task):
    prune = Prune(method="x", budget=Budget(macs=0.6), criterion=Magnitude(2.0), schedule=Adaptation(), recover=netadapt(Budget(macs=0.6)).recover)
    with pytest.raises(PreconditionError, match="allocation=ByTable"):
        prune(network, task)
    with pytest.raises(PreconditionError, match=r"pass unit=Channels\(\)"):
        Prune(method="x", budget=Budget(params=0.6), criterion=Magnitude(2.0), unit=Element(), allocation=ByTable())(network, task)
    for wrong in ({"first": 0.0}, {"decay": 1.5}, {"samples": 0}):
        with pytest.raises(RecipeError, match="first and decay"):
            Adaptation(**wrong)
    with pytest.raises(RecipeError, match="at least one more"):
        Tabulation(points=1)
