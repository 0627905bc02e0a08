"""Masks that move or are learned while training: the papers' formulas by hand, budgets, and runs that go on where they stopped."""

import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lilliput.core import Budget, PreconditionError, RecipeError
from lilliput.data import from_arrays
from lilliput.graph import profile, trace
from lilliput.prune import Channels, Element, Magnitude
from lilliput.prune.allocation import deviations, erdos_renyi_kernel, uniform
from lilliput.prune.during import Pruning
from lilliput.prune.fitting import Target
from lilliput.prune.gates import Gate, gated, gates, settled
from lilliput.prune.growth import (
    AdaptiveThreshold,
    AtRandom,
    Rewire,
    Rewiring,
    Smallest,
    Steepest,
    highest,
    in_place,
    portions,
    to_momentum,
    to_survivors,
)
from lilliput.prune.penalty import GrowingPenalty, PressMasked
from lilliput.prune.recipes.sparse_training import (
    continuous_sparsification,
    dns,
    dnw,
    dpf,
    dsr,
    dst,
    growing_regularisation,
    lottery_ticket,
    rigl,
    soft_threshold,
    sparse_momentum,
)
from lilliput.prune.rewinding import Part, Rewinding
from lilliput.prune.rules import Feedback, SigmoidGate, SoftThreshold, Surgery, TrainableThreshold, step
from lilliput.prune.schedules import Gradual, constant, cosine_decay
from lilliput.train import SGD, Cosine, Fit, Hook, State, fit

FIT = Fit(epochs=3, batch_size=16, optimizer=SGD(lr=0.05))
OFTEN = {"interval": 2}


@pytest.fixture(scope="module")
def task():
    random = np.random.default_rng(0)
    inputs = torch.tensor(random.normal(size=(120, 1, 6, 6)), dtype=torch.float32)
    return from_arrays("squares", inputs, torch.tensor(random.integers(0, 3, 120)))


@pytest.fixture(scope="module")
def network(task):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False),
                          nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    return trace(model, task.example())


def gate_of(rule, weight, **buffers):
    gate = Gate("w", weight, rule)
    for name, value in buffers.items():
        getattr(gate, name).copy_(torch.as_tensor(value))
    return gate


def state_of(model, optimizer=None, at=10, of=100):
    return State(model=model, fabric=None, data=None, config=Fit(), total_steps=of, optimizer=optimizer, step=at)


# Allocations.

def test_erdos_renyi_kernel_by_hand():
    # 30/200 and 15/180, in proportion; of 380 weights a fifth, 76, is 76/45 times 30 and 15.
    shares = erdos_renyi_kernel([np.zeros((10, 20)), np.zeros((5, 4, 3, 3))], 0.8)
    assert shares == pytest.approx([1 - 76 / 45 * 0.15, 1 - 76 / 45 / 12])
    # The small layer would be over full: it stays dense, and the other has the 48 that are left.
    assert erdos_renyi_kernel([np.zeros((2, 2)), np.zeros((10, 10))], 0.5) == pytest.approx([0.0, 0.52])
    assert erdos_renyi_kernel([np.zeros((2, 2)), np.zeros((10, 10))], 0.0).tolist() == [0.0, 0.0]
    assert erdos_renyi_kernel([np.zeros((2, 2)), np.zeros((10, 10))], 1.0).tolist() == [1.0, 1.0]
    with pytest.raises(PreconditionError, match="unit=Element"):
        erdos_renyi_kernel([np.zeros(4)], 0.5)


def test_deviations_have_one_threshold_in_standard_deviations():
    # The second is ten times the first and one weight at its mean: both have their lowest in the same place.
    one, ten = np.array([1.0, 2.0, 3.0, 6.0]), np.array([10.0, 20.0, 30.0, 60.0])
    assert deviations([one, ten], 0.5).tolist() == [0.5, 0.5]
    assert deviations([one, np.full(2, 7.0)], 1 / 3).tolist() == [0.5, 0.0]


# Growth.

def test_fractions_of_a_rewiring():
    assert [cosine_decay(t) for t in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])
    rewiring = Rewiring(share=0.4, end=0.75)
    assert [rewiring.fraction(t) for t in (0.0, 0.375, 0.75, 0.9)] == pytest.approx([0.4, 0.2, 0.0, 0.0])
    assert rewiring.fraction(0.25) == pytest.approx(0.2 * (1 + math.cos(math.pi / 3)))
    assert Rewiring(share=0.4, decay=constant).fraction(0.7) == 0.4
    with pytest.raises(RecipeError, match="interval from 1"):
        Rewiring(interval=0)


def test_portions_by_hand():
    assert portions([3, 1], 4, [9, 9]) == [3, 1]
    assert portions([0.5, 0.3, 0.2], 7, [9, 9, 9]) == [4, 2, 1]  # 3.5, 2.1 and 1.4
    assert portions([3, 1], 4, [1, 9]) == [1, 3]
    assert portions([0, 0], 3, [2, 2]) == [2, 1]
    assert portions([1, 0, 0], 6, [2, 3, 1]) == [2, 3, 1]
    assert portions([1, 1], 9, [2, 3]) == [2, 3]


def test_what_drops_by_hand():
    weights = {"a": torch.tensor([4.0, -1.0, 0.5, 0.0, 3.0]), "b": torch.tensor([0.1, 0.2])}
    masks = {"a": torch.tensor([True, True, True, False, True]), "b": torch.tensor([True, True])}
    assert Smallest()(weights, masks, 0.5, {})["a"].tolist() == [True, False, False, False, True]
    memory = {}
    first = AdaptiveThreshold()(weights, masks, 2 / 6, memory)  # the lowest two of six are 0.1 and 0.2, and one must stay
    assert [m.tolist() for m in first.values()] == [[True, True, True, False, True], [False, True]]
    assert memory == {"threshold": 1.0}  # half the number wanted went under 0.5, so it doubles
    second = AdaptiveThreshold()(weights, first, 0.01, memory)
    assert [m.tolist() for m in second.values()] == [[True, True, False, False, True], [False, True]]
    assert memory == {"threshold": 0.5}


def test_who_grows_by_hand():
    masks = {"a": torch.tensor([True] * 4 + [False] * 4), "b": torch.tensor([True] * 4 + [False] * 4)}
    survivors = {"a": torch.tensor([True] * 3 + [False] * 5), "b": torch.tensor([True] * 1 + [False] * 7)}
    signal = {"a": torch.tensor([1.0, -1, 1, 1, 9, 9, 9, 9]), "b": torch.tensor([3.0, 3, -3, 3, 1, 1, 1, 1])}
    assert in_place(masks, survivors, signal) == {"a": 1, "b": 3}
    assert to_survivors(masks, survivors, signal) == {"a": 3, "b": 1}
    assert to_momentum(masks, survivors, signal) == {"a": 1, "b": 3}  # means of 1 and 3 over what was there
    signal["b"] = torch.tensor([3.0, 3, 0, 0, 0, 0, 0, 0])  # of the seven places in b, one has a gradient
    assert to_momentum(masks, survivors, signal) == {"a": 3, "b": 1}
    assert highest(torch.tensor([1.0, 5, 5, 7]), torch.tensor([True, True, True, False]), 1).tolist() == [False, True, False, False]


def test_rigl_drops_the_smallest_and_grows_the_steepest():
    model = nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, -1.0, 0.5, 0.0, 0.0, 0.0]]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.weight.grad = torch.tensor([[0.1, 0.1, 2.0, 3.0, -5.0, 2.0]])
    optimizer.state[model.weight]["momentum_buffer"] = torch.full((1, 6), 7.0)
    hook = Rewire({"weight": torch.tensor([[True, True, True, False, False, False]])}, Rewiring(share=0.4, decay=constant, interval=10))
    hook.gradients(state_of(model, optimizer))
    assert hook.masks["weight"].tolist() == [[True, True, False, False, True, False]]
    assert model.weight.tolist() == [[4.0, -1.0, 0.0, 0.0, 0.0, 0.0]]
    assert model.weight.grad.tolist() == [[pytest.approx(0.1), pytest.approx(0.1), 0.0, 0.0, -5.0, 0.0]]
    assert optimizer.state[model.weight]["momentum_buffer"].tolist() == [[7.0, 7.0, 0.0, 0.0, 0.0, 0.0]]
    before = hook.masks["weight"].clone()
    model.weight.grad = torch.tensor([[0.0, 0, 9, 9, 0, 9]])
    for at, of in ((11, 100), (80, 100), (0, 100)):  # not its turn, after the end, before anything was learned
        hook.gradients(state_of(model, optimizer, at, of))
        assert torch.equal(hook.masks["weight"], before)


def test_a_weight_that_is_dropped_and_grown_at_once_keeps_its_value():
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, 1.0, 0.0]]))
    model.weight.grad = torch.tensor([[0.0, 5.0, 1.0]])
    hook = Rewire({"weight": torch.tensor([[True, True, False]])}, Rewiring(share=0.5, decay=constant, interval=10))
    hook.gradients(state_of(model, torch.optim.SGD(model.parameters(), lr=0.1)))
    assert hook.masks["weight"].tolist() == [[True, True, False]]
    assert model.weight.tolist() == [[4.0, 1.0, 0.0]]


def test_momentum_hears_what_is_masked_and_random_growth_is_fixed_by_seed_and_step():
    model = nn.Linear(2, 1, bias=False)
    hook = Rewire({"weight": torch.tensor([[True, False]])}, Rewiring(grow=Steepest(smoothing=0.75)))
    for gradient, heard in (([4.0, 8.0], [1.0, 2.0]), ([0.0, -8.0], [0.75, -0.5])):
        model.weight.grad = torch.tensor([gradient])
        hook.gradients(state_of(model, at=3))
        assert hook.smoothed["weight"].tolist() == [heard]
        assert model.weight.grad.tolist() == [[gradient[0], 0.0]]
    draws = [AtRandom()(torch.zeros(2, 3), torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


class Watch(Hook):
    """Remembers which weights were there after every step."""

    seen: list

    def start(self, state):
        self.seen = []

    def step(self, state):
        self.seen.append({n: p.detach() != 0 for n, p in state.model.named_parameters() if p.ndim > 1})


@pytest.mark.parametrize(("recipe", "moves"), [(rigl, False), (dsr, True), (sparse_momentum, True)])
def test_counts_are_kept_while_masks_move(recipe, moves, network, task):
    step_ = recipe(Budget(params=0.4), fine_tune=FIT)
    watch = Watch()
    step_ = replace(step_, schedule=replace(step_.schedule, **OFTEN, share=0.3), recover=replace(step_.recover, hooks=(watch,)))
    step_(network, task)
    first, last = ({n: int(m.sum()) for n, m in row.items()} for row in (watch.seen[0], watch.seen[-1]))
    assert sum(last.values()) == pytest.approx(sum(first.values()), abs=2)  # one that has just grown may be zero still
    assert any(not torch.equal(watch.seen[0][n], watch.seen[-1][n]) for n in first)
    assert (first != last) == moves


def test_a_budget_of_macs_holds_where_weights_change_layers(network, task):
    step_ = sparse_momentum(Budget(macs=0.3), fine_tune=FIT)
    result = replace(step_, schedule=replace(step_.schedule, **OFTEN))(network, task)
    entry = result.report.entries[0]
    assert 0.97 * entry.promised["macs"] < entry.measured["macs"] <= entry.promised["macs"]


# Gates.

def test_soft_threshold_by_hand():
    weight = torch.tensor([-0.5, 0.2, 1.0], requires_grad=True)
    gate = gate_of(SoftThreshold(), weight, level=0.6)  # 0.6 sigmoid(0) = 0.3
    values = gate(weight)
    assert values.tolist() == pytest.approx([-0.2, 0.0, 0.7])
    assert gate.scores(weight).tolist() == pytest.approx([1.0, 0.4, 2.0])
    values.backward(torch.tensor([2.0, 5.0, 1.0]))
    assert weight.grad.tolist() == [2.0, 0.0, 1.0]
    assert float(gate.learned.grad) == pytest.approx(-0.6 * 0.25 * (-2.0 + 1.0))


def test_the_step_has_a_long_tail():
    x = torch.tensor([-0.4, -0.1, 0.0, 0.1, 0.7, -1.0, 1.2], requires_grad=True)
    value = step(x)
    value.sum().backward()
    assert value.tolist() == [0, 0, 0, 1, 1, 0, 1]
    assert x.grad.tolist() == pytest.approx([0.4, 1.6, 2.0, 1.6, 0.4, 0.4, 0.0])


def test_trainable_threshold_by_hand():
    weight = torch.tensor([[0.5, -0.2], [0.1, 0.4]], requires_grad=True)
    gate = gate_of(TrainableThreshold(strength=0.1), weight)
    with torch.no_grad():
        gate.learned.copy_(torch.tensor([0.3, 0.0]))
    values = gate(weight)
    assert torch.equal(values.detach(), torch.tensor([[0.5, 0.0], [0.1, 0.4]]))
    assert float(gate.rule.penalty(gate).detach()) == pytest.approx(0.1 * (math.exp(-0.3) + 1))
    values[0].sum().backward()  # slopes 1.2 and 1.6 at 0.2 and -0.1
    assert weight.grad[0].tolist() == pytest.approx([1 + 0.5 * 1.2, 0.2 * 1.6])
    assert gate.learned.grad.tolist() == pytest.approx([-(0.5 * 1.2 - 0.2 * 1.6), 0.0])


def test_sigmoid_gate_by_hand():
    weight = torch.tensor([[2.0, 2.0]])
    gate = gate_of(SigmoidGate(sharpest=16.0, strength=0.1), weight)
    assert gate(weight).tolist() == [[2.0, 2.0]]  # over sigmoid(s_0), so that the network starts as it was
    with torch.no_grad():
        gate.learned.copy_(torch.tensor([0.5, 0.0]))
    gate.level.fill_(0.25)
    gate.time.fill_(0.5)  # beta = 4
    opening = 1 / (1 + math.exp(-1))
    assert gate(weight).tolist() == [pytest.approx([4 * opening, 4 * (1 - opening)])]
    assert float(gate.rule.penalty(gate).detach()) == pytest.approx(0.1)
    gate.time.fill_(1.0)
    gate.mask.copy_(torch.tensor([[1.0, 0.0]]))
    assert gate(weight).tolist() == [pytest.approx([4 / (1 + math.exp(-4)), 0.0])]


def test_feedback_gives_the_dense_gradient_and_surgery_has_two_thresholds():
    weight = torch.tensor([0.95, 1.05, 1.05, 1.2, 0.85], requires_grad=True)
    gate = gate_of(Feedback(), weight, mask=[1.0, 1.0, 0.0, 0.0, 1.0])
    (gate(weight) * torch.arange(5)).sum().backward()
    assert weight.grad.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    cut = gate_of(Surgery(), weight, mask=[1.0, 1.0, 0.0, 0.0, 1.0])
    assert (cut.scores(weight) > 1).tolist() == [True, True, False, True, False]  # 0.9 and 1.1 around a threshold of 1


def test_a_level_lies_under_what_passes_and_not_under_what_does_not():
    gate = gate_of(TrainableThreshold(), torch.tensor([[0.3, -0.7, 0.5]]))
    weight = torch.tensor([[0.3, -0.7, 0.5]])
    gate.choose_(torch.tensor([[False, True, True]]), gate.scores(weight))
    assert float(gate.level) == pytest.approx(0.3)
    assert gate(weight).tolist() == [pytest.approx([0.0, -0.7, 0.5])]
    with torch.no_grad():
        gate.learned.fill_(0.6)
    gate.choose_(torch.ones(1, 3, dtype=torch.bool), gate.scores(weight))
    assert torch.equal(gate(weight), weight)  # nothing is to go, though thresholds lie over two of them


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def test_gates_go_on_weights_whoever_reads_them_and_leave_a_plain_network():
    torch.manual_seed(0)
    traced, x = trace(Tied(), torch.randn(2, 5)), torch.randn(4, 5)
    inside = gated(traced, ["first.weight"], Feedback())
    torch.testing.assert_close(inside(x), traced(x))
    gate = gates(inside)["first.weight"]
    gate.mask.copy_((torch.arange(25) % 2).view(5, 5))
    masked = traced.tensor("first.weight").detach() * gate.mask
    expected = torch.relu(x @ masked.T) @ masked.T
    torch.testing.assert_close(inside(x), expected)
    plain = settled(inside)
    torch.testing.assert_close(plain(x), expected)
    assert [n.op for n in plain.graph.nodes] == [n.op for n in traced.graph.nodes]
    assert list(plain.state_dict()) == list(traced.state_dict())
    assert not gates(plain)
    assert bool((traced.tensor("first.weight") != 0).all())


@pytest.mark.parametrize("recipe", [soft_threshold, dst, continuous_sparsification, dnw, dns, dpf])
def test_gated_training_meets_the_budget_and_learns(recipe, network, task):
    result = recipe(Budget(params=0.4), fine_tune=FIT)(network, task)
    entry, dense = result.report.entries[0], profile(network).params
    assert 0.99 * 0.4 * dense <= entry.measured["params"] <= 0.4 * dense
    kept = sum(int((p != 0).sum()) if p.ndim > 1 else p.numel() for p in result.model.parameters())
    assert kept == entry.measured["params"]
    assert any(not torch.equal(result.model.tensor(n), p * (result.model.tensor(n) != 0)) for n, p in network.named_parameters())


def test_masks_follow_the_ramp_and_what_is_masked_comes_back(network, task):
    class Masks(Hook):
        def start(self, state):
            self.shares, self.back = [], 0
            self.last = {}

        def step(self, state):
            found = gates(state.model)
            self.shares.append(1 - float(sum(g.mask.sum() for g in found.values()) / sum(g.mask.numel() for g in found.values())))
            self.back += sum(int(((g.mask > 0) & ~self.last.get(n, g.mask > 0)).sum()) for n, g in found.items())
            self.last = {n: g.mask > 0 for n, g in found.items()}

    masks = Masks()
    step_ = dpf(Budget(params=0.2), fine_tune=FIT, interval=1, ramp=Gradual(end=0.5, updates=10))
    replace(step_, recover=replace(step_.recover, hooks=(masks,)))(network, task)
    assert masks.shares[0] < 0.3
    assert masks.shares == pytest.approx(sorted(masks.shares), abs=2e-3)
    assert masks.shares[-1] == pytest.approx(masks.shares[len(masks.shares) // 2 + 2], abs=2e-3)
    assert masks.back > 0


# Growing regularisation.

def test_growing_penalty_by_hand():
    schedule = GrowingPenalty(ceiling=0.8, updates=4, end=0.5)
    assert [schedule.strength(t) for t in (0.0, 0.1, 0.125, 0.3, 0.5, 0.9)] == pytest.approx([0, 0, 0.2, 0.4, 0.8, 0.8])
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, -3.0]]))
    model.weight.grad = torch.ones(1, 3)
    hook = PressMasked({"weight": torch.tensor([[True, False, False]])}, schedule)
    hook.gradients(state_of(model, at=30))
    assert model.weight.grad.tolist() == [pytest.approx([1.0, 1.8, -0.2])]
    hook.step(state_of(model, at=30))
    assert model.weight.tolist() == [[1.0, 2.0, -3.0]]
    hook.step(state_of(model, at=50))
    assert model.weight.tolist() == [[1.0, 0.0, 0.0]]


def test_growing_regularisation_takes_filters_too(network, task):
    step_ = growing_regularisation(Budget(macs=0.5), fine_tune=FIT, unit=Channels())
    small = step_(network, task).model
    assert profile(small).macs <= 0.5 * profile(network).macs
    assert small.tensor("3.weight").shape[0] < 8
    assert bool((small.tensor("3.weight") != 0).all())


# Rewinding.

def test_a_part_of_a_schedule_and_the_epochs_before_going_back(network, task):
    part = Part(schedule=Cosine(), start=0.5, end=1.0)
    assert [part(t) for t in (0.0, 0.5, 1.0)] == [Cosine()(t) for t in (0.5, 0.75, 1.0)]

    class Early(Hook):
        def epoch(self, state):
            if state.epoch == 0:
                self.weights = {n: p.detach().clone() for n, p in state.model.state_dict().items()}

    early = Early()
    fit(network, task, FIT, hooks=(early,), progress=False)
    opening, rest = Rewinding(to=1)._parts(FIT)
    again = fit(network, task, opening, progress=False).model.state_dict()
    assert all(torch.equal(again[n], v) for n, v in early.weights.items())
    assert rest.epochs == 2
    assert rest.schedule(0.0) == Cosine()(1 / 3)
    with pytest.raises(PreconditionError, match="no going back"):
        Rewinding(to=3)._parts(FIT)


def test_rounds_go_back_to_the_same_weights_with_fewer_each_time(network, task):
    calls = []

    def train(model, config, hooks, phase):
        calls.append((phase, config.epochs, model))
        moved = Element().plan(model).apply(Element().plan(model).present(model), model)
        with torch.no_grad():
            for p in moved.parameters():
                p.mul_(2.0)
        return moved

    plan = Element().plan(network)
    target = Target.of(Budget(params=0.25), plan, network, None)
    pruning = Pruning(plan=plan, criterion=Magnitude(), allocation=uniform, target=target, amount=0.0, keep=[], data=task, fit=FIT,
                      train=train)
    trained, keep = Rewinding(rounds=2, to=1).carry_out(network, pruning)
    assert [(phase, epochs) for phase, epochs, _ in calls] == [("opening", 1), ("round0", 2), ("round1", 2), ("round2", 2)]
    early, dense = calls[1][2], profile(network).params
    counts = [sum(int((p != 0).sum()) for p in model.parameters()) for _, _, model in calls]
    weights = [plan.present(model) for _, _, model in calls[2:]]
    left = [plan.cost(kept)["params"] for kept in (*weights, keep)]
    assert left == pytest.approx([0.5 * dense, 0.25 * dense, 0.25 * dense], rel=0.01)
    assert counts[0] > counts[2] > counts[3]
    assert all(bool((second <= first).all()) for first, second in zip(*weights, strict=True))
    for _, _, model in calls[2:]:
        for name in plan.names:
            there = model.tensor(name) != 0
            assert torch.equal(model.tensor(name)[there], early.tensor(name)[there])
    assert torch.equal(trained.tensor("7.weight"), 2 * calls[-1][2].tensor("7.weight"))


# All of them.

class Stop(Hook):
    """Ctrl-C at a step."""

    def __init__(self, at=None):
        self.at = at

    def __repr__(self):
        return "Stop()"

    def step(self, state):
        if state.step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("recipe", [dsr, sparse_momentum, dst, continuous_sparsification, dns, growing_regularisation, lottery_ticket])
def test_a_run_that_was_stopped_gives_the_uninterrupted_one_bit_for_bit(recipe, network, task, tmp_path):
    plain = recipe(Budget(params=0.4), fine_tune=replace(FIT, epochs=2))
    if isinstance(plain.schedule, Rewiring):
        plain = replace(plain, schedule=replace(plain.schedule, **OFTEN))

    def run(at, path):
        return replace(plain, recover=replace(plain.recover, hooks=(Stop(at),)), checkpoint=path)(network, task).model.state_dict()

    whole = run(None, None)
    with pytest.raises(KeyboardInterrupt):
        run(8, tmp_path / "c.pt")
    resumed = run(None, tmp_path / "c.pt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_schedules_of_single_weights_say_so(network, task):
    for recipe in (rigl, dpf, lottery_ticket):
        with pytest.raises(PreconditionError, match=r"unit=Element\(|shapes of weights"):
            replace(recipe(Budget(macs=0.5), fine_tune=FIT), unit=Channels())(network, task)
    with pytest.raises(PreconditionError, match="pass fine_tune"):
        replace(rigl(Budget(params=0.5)), recover=None)(network, task)

