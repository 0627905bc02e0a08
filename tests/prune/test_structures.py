"""Structures found by gates on random weights and by latent vectors: formulas by hand, what may change and what may not, budgets."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lilliput import prune
from lilliput.core import Budget, PreconditionError, RecipeError
from lilliput.data import from_arrays
from lilliput.graph import profile, trace
from lilliput.prune import Channels, Element, FrozenGates, Magnitude, MetaPruning, SensitivityFeedback, Stats
from lilliput.prune.feedback import AdaptThreshold, least_loss
from lilliput.prune.from_scratch import DrawAnew, TrainGates, draw_anew_
from lilliput.prune.hypernetwork import HyperLayer, Latents, ShrinkLatents, with_hypernetworks, without_hypernetworks
from lilliput.train import SGD, Constant, Fit, evaluate, fit

FIT = Fit(epochs=2, batch_size=32, optimizer=SGD(lr=0.05))


class Small(nn.Module):
    """Convolutions with a residual sum, batch norms, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.an = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.bn = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.c, self.cn = nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.an(self.a(x)))
        x = torch.relu(x + self.cn(self.c(torch.relu(self.bn(self.b(x))))))
        return self.head(x.mean((2, 3)))


def small(seed=0):
    torch.manual_seed(seed)
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


def test_drawing_anew_forgets_everything_but_the_structure():
    model = nn.Sequential(nn.Conv2d(2, 400, 3, groups=2), nn.BatchNorm2d(400), nn.Flatten(), nn.Linear(400, 50), nn.LayerNorm(50))
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 2.0, 3.0)
    model[1].running_mean.fill_(7)
    traced = trace(model.eval(), torch.randn(2, 2, 3, 3))
    draw_anew_(traced, 3)
    # 9 and 400 inputs to each output.
    assert float(traced.tensor("0.weight").detach().std()) == pytest.approx(math.sqrt(2 / 9), rel=0.05)
    assert float(traced.tensor("3.weight").detach().std()) == pytest.approx(math.sqrt(2 / 400), rel=0.05)
    assert float(traced.tensor("3.weight").detach().mean().abs()) < 0.01
    expected = {"0.bias": 0, "3.bias": 0, "1.weight": 1, "1.bias": 0, "1.running_mean": 0, "1.running_var": 1, "4.weight": 1, "4.bias": 0}
    for name, value in expected.items():
        assert bool((traced.tensor(name) == value).all())
    first, second, third = small(0), small(1), small(2)
    for network, seed in ((first, 5), (second, 5), (third, 6)):
        draw_anew_(network, seed)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert not torch.equal(first.tensor("b.weight"), third.tensor("b.weight"))


def test_the_penalty_is_the_squared_distance_of_the_mean_gate_from_its_share():
    # Gates 0.25, 0.5 and 0.9 of two norms: (0.55 - 0.25)^2 * 2 = 0.18, and the slope is 2 * 2 * 0.3 / 3 to each.
    model = nn.Module()
    model.a, model.b = nn.Parameter(torch.tensor([0.25, 0.5])), nn.Parameter(torch.tensor([0.9]))
    hook, state = TrainGates(("a", "b"), FrozenGates(strength=2.0, share=0.25)), SimpleNamespace(model=model)
    loss = hook.loss(state, torch.zeros(1), torch.tensor(1.0))
    assert float(loss.detach()) == pytest.approx(1.18)
    loss.backward()
    assert [*model.a.grad.tolist(), *model.b.grad.tolist()] == pytest.approx([0.4] * 3)
    model.a.data, model.b.data = torch.tensor([-0.1, 1.2]), torch.tensor([0.3])
    hook.step(state)
    assert [*model.a.tolist(), *model.b.tolist()] == pytest.approx([0, 1, 0.3])
    with pytest.raises(RecipeError, match="share in"):
        FrozenGates(share=1.5)


def test_only_gates_learn_and_everything_may_learn_afterwards(task):
    traced, drawn = small(), small(1)
    traced.tensor("head.bias").requires_grad_(False)
    settings = FrozenGates(fit=FIT)
    trained = fit(traced, task, FIT, hooks=settings.hooks(traced), progress=False).model
    draw_anew_(drawn, FIT.seed)
    for name, parameter in trained.named_parameters():
        if name in ("an.weight", "bn.weight", "cn.weight"):
            assert 0 <= float(parameter.min()) <= float(parameter.max()) <= 1
            assert len(set(parameter.tolist())) > 1
        else:
            assert torch.equal(parameter, drawn.tensor(name))
        assert parameter.requires_grad == (name != "head.bias")
    with pytest.raises(PreconditionError, match="no batch norm"):
        settings.hooks(trace(nn.Linear(2, 2), torch.randn(2, 2)))


def test_gates_open_where_the_task_is():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 2, (512,), generator=generator)
    inputs = torch.randn(512, 6, generator=generator)
    inputs[:, :3] += 3.0 * (2 * targets[:, None] - 1)
    data = from_arrays("signals", inputs, targets, num_classes=2)
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    config = Fit(epochs=6, batch_size=32, optimizer=SGD(lr=0.1))
    settings = FrozenGates(fit=config)
    traced = trace(model, inputs[:2])
    gates = fit(traced, data, config, hooks=settings.hooks(traced), progress=False).model.tensor("0.weight")
    assert float(gates[:3].min()) > float(gates[3:].max())


def test_only_the_structure_of_the_network_counts(task):
    step = prune.prune_from_scratch(Budget(macs=0.5), train=FrozenGates(fit=FIT), fine_tune=FIT)
    one, other = (step(small(seed), task).model for seed in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert profile(one).macs <= 0.5 * profile(small()).macs
    assert repr(step.recover.hooks[0]) == repr(DrawAnew(1)) == "DrawAnew(seed=1)"


def test_hypernetworks_by_hand():
    # Z = (2, 3)' 5 + (0, 1)' = (10, 16)'; E = Z (1, 2) + (0, 1); the kernel of two is w2 E + b2.
    latents = Latents(torch.ones(3))
    latents.values.data = torch.tensor([2.0, 3.0, 5.0])
    layer = HyperLayer(torch.zeros(2, 1, 2), latents, (torch.tensor([0, 1]), torch.tensor([2])), 2)
    layer.b0.data, layer.w1.data = torch.tensor([[0.0], [1.0]]), torch.tensor([1.0, 2.0]).expand(2, 1, 2)
    layer.b1.data = torch.tensor([0.0, 1.0]).expand(2, 1, 2)
    layer.w2.data = torch.tensor([[1.0, 0.0], [1.0, -1.0]]).expand(2, 1, 2, 2)
    layer.b2.data = torch.tensor([[[0.5, 0.0]], [[0.0, 0.0]]])
    # (10, 21): 10.5 and -11; (16, 33): 16 and -17.
    assert layer(torch.zeros(2, 1, 2)).tolist() == [[[10.5, -11.0]], [[16.0, -17.0]]]
    assert latents.of(torch.tensor([-1, 0, -1])).tolist() == [1, 2, 1]


def test_hypernetworks_start_as_the_network_itself_and_give_it_back():
    traced = small()
    plan, x = Channels().plan(traced), torch.randn(4, 1, 6, 6)
    hyper = with_hypernetworks(traced, plan, plan.scores(Magnitude(), Stats(), traced), 5)
    latents, = {module for module in hyper.modules() if isinstance(module, Latents)}
    # The first group is made by two layers: the mean of their norms, each over its layer's mean.
    norms = [traced.tensor(f"{layer}.weight").detach().abs().flatten(1).sum(1) for layer in "abc"]
    a, b, c = (values / values.mean() for values in norms)
    torch.testing.assert_close(latents.values.detach(), torch.cat([(a + c) / 2, b]))
    torch.testing.assert_close(hyper(x), traced(x), rtol=1e-5, atol=1e-5)
    back = without_hypernetworks(hyper)
    assert back.state_dict().keys() == traced.state_dict().keys()
    torch.testing.assert_close(back(x), traced(x), rtol=1e-5, atol=1e-5)


def test_a_latent_at_zero_is_a_channel_gone_wherever_it_is_made_or_read():
    traced = small()
    plan, x = Channels().plan(traced), torch.randn(4, 1, 6, 6)
    hyper = with_hypernetworks(traced, plan, plan.scores(Magnitude(), Stats(), traced), 3)
    latents = next(module for module in hyper.modules() if isinstance(module, Latents))
    assert [g.units for g in plan.groups] == [8, 12]
    generator = torch.Generator().manual_seed(0)
    latents.values.data = torch.rand(20, generator=generator) + 0.5
    gone = torch.tensor([0, 3, 8, 15, 19])
    latents.values.data[gone] = 0
    kept = (latents.values.detach() != 0).numpy()
    shrunk = plan.apply([kept[:8], kept[8:]], without_hypernetworks(hyper))
    torch.testing.assert_close(shrunk(x), hyper(x), rtol=1e-5, atol=1e-5)


def proximal(values, meets, kept):
    """One step of the hook, on latents of the first group's eight units and the second one's twelve."""
    traced = small()
    plan = Channels().plan(traced)
    hyper = with_hypernetworks(traced, plan, [np.ones(8), np.ones(12)], 1)
    latents = next(module for module in hyper.modules() if isinstance(module, Latents))
    latents.values.data = torch.cat([torch.tensor(values), torch.ones(20 - len(values))])
    target = SimpleNamespace(structural=lambda plan: True, met=lambda cost: meets)
    hook = ShrinkLatents(SimpleNamespace(target=target, kept=lambda scores, traced: kept(scores)), plan, traced, 2.0)
    state = SimpleNamespace(model=hyper, optimizer=SimpleNamespace(param_groups=[{"lr": 0.05}]))
    hook.step(state)
    return latents, hook, state


def test_the_proximal_step_by_hand():
    latents, _, _ = proximal([1.0, -0.3, 0.05, -0.1], False, None)
    assert latents.values[:5].tolist() == pytest.approx([0.9, -0.2, 0.0, 0.0, 0.9])
    assert not bool(latents.chosen)


def test_what_meets_the_budget_first_is_chosen_by_the_latents_before_and_stays_gone():
    seen = []

    def kept(scores):
        seen.extend(scores)
        return [scores[0] > 0.08, scores[1] > 0]

    latents, hook, state = proximal([1.0, -0.3, 0.05, -0.09], True, kept)
    assert seen[0][:4].tolist() == pytest.approx([1.0, 0.3, 0.05, 0.09])
    assert bool(latents.chosen)
    assert latents.kept.tolist() == [True, True, False, *[True] * 17]
    latents.values.data[2] = 0.7  # momentum
    hook.step(state)
    assert float(latents.values[2]) == 0
    assert float(latents.values[0]) == pytest.approx(0.9)  # no more shrinking


@pytest.mark.parametrize("strength", [2.0, 1e-9])
def test_latents_meet_the_budget_by_the_penalty_or_by_their_order(strength, task, tmp_path):
    config = Fit(epochs=3, batch_size=32, optimizer=SGD(lr=0.1), schedule=Constant())
    step = prune.dhp(Budget(macs=0.5), fine_tune=config, schedule=MetaPruning(embedding=2, strength=strength, search=0.67))
    traced = small()
    result = step(traced, task)
    assert 0.45 * profile(traced).macs < profile(result.model).macs <= 0.5 * profile(traced).macs
    assert {name for name, _ in result.model.named_parameters()} == {name for name, _ in traced.named_parameters()}
    assert evaluate(result.model, task.val) > 60
    saved = prune.dhp(Budget(macs=0.5), fine_tune=config, schedule=step.schedule, checkpoint=tmp_path / "run.ckpt")(traced, task)
    assert all(torch.equal(a, b) for a, b in zip(saved.model.state_dict().values(), result.model.state_dict().values(), strict=True))


def test_the_search_takes_its_share_of_the_epochs_and_of_the_schedule():
    opening, rest = MetaPruning(search=0.25)._parts(Fit(epochs=8))
    assert (opening.epochs, rest.epochs) == (2, 6)
    assert opening.schedule(1.0) == rest.schedule(0.0) == Fit().schedule(0.25)
    assert MetaPruning(search=0.01)._parts(Fit(epochs=8))[0].epochs == 1
    assert MetaPruning(search=1.0)._parts(Fit(epochs=8))[1].epochs == 0


def test_latents_are_of_channels(task):
    step = prune.dhp(Budget(params=0.5), fine_tune=FIT, unit=Element())
    with pytest.raises(PreconditionError, match="latent vectors are of channels"):
        step(small(), task)
    with pytest.raises(RecipeError, match="MetaPruning has"):
        MetaPruning(search=0)


def test_what_a_twin_can_make_up_for_costs_the_loss_nothing_once_scales_are_refitted():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double().eval()
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias):
            tensor[1] = tensor[0]
    x = torch.randn(32, 3).double()
    traced = trace(model, x)
    before = {name: value.clone() for name, value in traced.state_dict().items()}
    plan = Channels().plan(traced)
    masks = plan.masks([np.array([False, True, True, True])])
    batch, loss = (x, model(x).detach() + 0.5), nn.functional.mse_loss
    # The outputs want 0.5 more, which shifts of norms alone give; the twin's scale makes up for one output of what is masked only in part.
    whole = least_loss(traced, {}, batch, loss, 40)
    with torch.no_grad():
        untouched = float(loss(plan.apply([np.array([False, True, True, True])], traced)(x), batch[1]))
    refitted = least_loss(traced, masks, batch, loss, 40)
    assert whole < 1e-6
    assert refitted < 0.9 * untouched
    with torch.no_grad():
        traced.tensor("2.weight")[:, 1] = traced.tensor("2.weight")[:, 0]
    batch = (x, traced(x).detach())
    assert least_loss(traced, masks, batch, loss, 40) < 1e-6
    assert all(torch.equal(value, before[name]) for name, value in traced.state_dict().items() if name != "2.weight")


class Fixed:
    """A plan and a budget of numbers of units, so that what is met is plain."""

    def __init__(self, scores, limit):
        self.traced = small()
        self.plan, self.given, self.limit = Channels().plan(self.traced), scores, limit
        self.target = SimpleNamespace(cost=lambda plan, keep, network: sum(int(k.sum()) for k in keep), met=lambda cost: cost <= limit)

    def scores(self, traced):
        return self.given

    def kept(self, scores, traced):
        order = np.sort(np.concatenate(scores))[::-1]
        return [values >= order[self.limit - 1] for values in scores]


def stepped(rises, *, limit=3, last=False):
    """Updates of a threshold on scores 0.05 to 1 whose rises of the loss are given; what is masked after each."""
    scores = [np.arange(1, 9) / 20, np.arange(9, 21) / 20]
    pruning = Fixed(scores, limit)
    hook, masked = AdaptThreshold(pruning, SensitivityFeedback(stride=0.11)), []
    for rise in rises:
        hook._rise = lambda *_, rise=rise: rise
        hook.update(pruning.traced, 0, last=last)
        masked.append(sum(int((~hook.masks[name].flatten(1).any(1)).sum()) for name in ("a.weight", "b.weight")))
    return hook, masked


def test_the_threshold_rises_by_strides_that_double_and_waits_where_the_loss_would_rise():
    # 0.11 takes two of twenty; 0.33 six; 0.77 is refused, 0.55 taken: seven of eight, for one always stays, and 0.45 to 0.55.
    hook, masked = stepped([0.0, 0.0, 9.0, 0.0])
    assert masked == [2, 6, 6, 10]
    assert (hook.threshold, hook.stride, hook.done) == (pytest.approx(0.55), pytest.approx(0.44), False)


def test_the_threshold_ends_on_the_budget():
    hook, masked = stepped([0.0, 0.0], limit=17)  # 0.11 leaves 18, 0.33 would leave 14
    assert masked == [2, 3]
    assert hook.done
    hook, masked = stepped([9.0], limit=12, last=True)
    assert (masked, hook.done) == ([8], True)
    copied = AdaptThreshold(hook.pruning, hook.settings)
    copied.load_state_dict(hook.state_dict())
    assert copied.state_dict().keys() == hook.state_dict().keys()
    assert (copied.threshold, copied.stride, copied.taken, copied.done) == (hook.threshold, hook.stride, hook.taken, True)


def test_nothing_but_training_changes_what_stays(task):
    config = Fit(epochs=1, batch_size=32, optimizer=SGD(lr=1e-12, weight_decay=0.0))
    traced = small()
    result = prune.aster(Budget(macs=0.5), fine_tune=config, schedule=SensitivityFeedback(updates=3, iterations=2))(traced, task)
    rows = {row["layer"]: row for row in result.report.entries[0].layers}
    assert profile(result.model).macs <= 0.5 * profile(traced).macs
    assert rows["b"]["channels_after"] < 12
    filters = {tuple(f.flatten().tolist()) for f in traced.tensor("a.weight").detach()}
    assert {tuple(f.flatten().tolist()) for f in result.model.tensor("a.weight").detach()} <= filters
    with pytest.raises(PreconditionError, match="no batch norm"):
        prune.aster(Budget(macs=0.5), fine_tune=config)(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Linear(8, 2)), task)
    with pytest.raises(PreconditionError, match="Channels"):
        prune.aster(Budget(params=0.5), fine_tune=config, unit=Element())(traced, task)
    with pytest.raises(RecipeError, match="SensitivityFeedback has"):
        SensitivityFeedback(end=0)
