"""Widths learned in training: the formulas of the simulations, their gradients, and the hook that holds the budget."""

import copy

import numpy as np
import pytest
import torch
from quantize_nets import NETS, arrays

from lilliput.core import Budget, PreconditionError, RecipeError
from lilliput.quantize import Integer, Quantizer, Static, Train, Widths, dnas_bits, dq, fracbits
from lilliput.quantize.mixed.flexible import WithinBudget, at_width, between, interpolation, noise
from lilliput.quantize.mixed.learned import uniform_width
from lilliput.quantize.mixed.learners import Branches, Fractional, FractionalBits, LearnedStep, SampledBranches, StepAndRange
from lilliput.quantize.mixed.task import Task
from lilliput.quantize.scheme import Scheme
from lilliput.train import SGD, Fit, fit

GRID, WIDTHS = Integer(bits=8, axis=0), (2, 3, 4, 6)
W = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))


def test_interpolation_between_widths():
    assert interpolation(torch.tensor(3.25), WIDTHS).tolist() == [0, 0.75, 0.25, 0]
    assert interpolation(torch.tensor(5.0), WIDTHS).tolist() == [0, 0, 0.5, 0.5]
    assert interpolation(torch.tensor(6.0), WIDTHS).tolist() == [0, 0, 0, 1]
    assert interpolation(torch.tensor(2.0), WIDTHS).tolist() == [1, 0, 0, 0]
    assert interpolation(torch.tensor(4.0), (4,)).tolist() == [1]
    assert between(torch.tensor(3.0), WIDTHS)[0] == 1
    bits = torch.tensor(4.5, requires_grad=True)
    (interpolation(bits, WIDTHS) * torch.tensor([2.0, 3, 4, 6])).sum().backward()
    assert bits.grad == pytest.approx(1.0)


def test_fractional_bits_are_a_mixture_with_the_slope_of_the_difference():
    simulation = Fractional(GRID, WIDTHS, 3.25, W.numel()).train()
    low, high = at_width(W, GRID.at(3)), at_width(W, GRID.at(4))
    torch.testing.assert_close(simulation(W), 0.75 * low + 0.25 * high)
    weight = torch.randn(W.shape, generator=torch.Generator().manual_seed(1))
    (simulation(W) * weight).sum().backward()
    assert float(simulation.bits.grad) == pytest.approx(float(((high - low) * weight).sum()), rel=1e-4)
    x = W.clone().requires_grad_()
    simulation(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))
    assert torch.equal(simulation.eval()(W), low)
    simulation.fix(6)
    assert torch.equal(simulation.train()(W), at_width(W, GRID.at(6)))


def test_step_and_range_follow_the_paper():
    grid = Integer(bits=8)
    simulation = StepAndRange(grid, WIDTHS, 3.0, W.numel()).train()
    # A width of 3 bits: three steps to the end of the range.
    assert float(2.0**simulation.step) == pytest.approx(1 / 3)
    assert float(simulation.smooth()) == pytest.approx(3.0)
    assert simulation.shares().tolist() == pytest.approx([0, 1, 0, 0], abs=1e-5)
    with torch.no_grad():
        simulation.range.fill_(-1.0)
        simulation.step.fill_(-2.0)
    most = float(W.abs().max())
    v, d, q = W / most, 0.25, 0.5
    wanted = torch.where(v.abs() <= q, v.sign() * d * (v.abs() / d + 0.5).floor(), v.sign() * q) * most
    torch.testing.assert_close(simulation(W), wanted)
    # Two steps to the end of the range: log2(2 + 1) + 1 = 2.58 bits, rounded up to 3.
    assert float(simulation.smooth()) == pytest.approx(2.585, abs=1e-3)
    assert simulation.shares().tolist() == pytest.approx([0, 1, 0, 0], abs=1e-3)
    weight = torch.randn(W.shape, generator=torch.Generator().manual_seed(1))
    x = W.clone().requires_grad_()
    (simulation(x) * weight).sum().backward()
    inside = v.abs() <= q
    slope_d = torch.where(inside, (wanted / most - v) / d, 0.0)
    assert float(simulation.step.grad) == pytest.approx(float((slope_d * weight).sum()) * most * d * np.log(2), rel=1e-4)
    assert float(simulation.range.grad) == pytest.approx(float((v.sign() * weight)[~inside].sum()) * most * q * np.log(2), rel=1e-4)
    torch.testing.assert_close(x.grad, weight * inside)


def test_the_width_of_step_and_range_passes_its_gradient_straight():
    simulation = StepAndRange(GRID, WIDTHS, 3.4, W.numel())
    (simulation.shares() * torch.tensor([2.0, 3, 4, 6])).sum().backward()
    ratio = 2 ** (3.4 - 1) - 1
    assert float(simulation.range.grad) == pytest.approx(ratio / (ratio + 1), rel=1e-4)
    assert float(simulation.step.grad) == pytest.approx(-ratio / (ratio + 1), rel=1e-4)
    with torch.no_grad():
        simulation.range.fill_(1.0)
        simulation.step.fill_(5.0)
    simulation.project_()
    assert float(simulation.range) == 0
    assert float(simulation.smooth()) == pytest.approx(2.0)


def test_branches_are_sampled_and_cool_down():
    torch.manual_seed(0)
    simulation = Branches(GRID, WIDTHS, (5.0, 0.01)).train()
    assert simulation.shares().tolist() == [0.25] * 4
    simulation.advance(1.0)
    assert float(simulation.temperature) == pytest.approx(0.01)
    values = [at_width(W, GRID.at(width)) for width in WIDTHS]
    drawn = [min(range(4), key=lambda k: float((sample - values[k]).abs().max())) for sample in (simulation(W) for _ in range(60))]
    assert set(drawn) == {0, 1, 2, 3}
    with torch.no_grad():
        simulation.logits[2] = 50.0
    torch.testing.assert_close(simulation(W), values[2], atol=1e-4, rtol=0)
    assert simulation.width == 4
    simulation(W).square().sum().backward()
    assert simulation.logits.grad.isfinite().all()


def test_prices():
    loss, spent, limits = torch.tensor(2.0), torch.tensor([150.0, 30.0]), torch.tensor([100.0, 60.0])
    assert float(FractionalBits(strength=0.5).priced(loss, spent, limits)) == pytest.approx(2 + 0.5 * (0.5 + 0.5))
    assert float(LearnedStep(strength=2.0).priced(loss, spent, limits)) == pytest.approx(2 + 2 * 0.5)
    factor = (np.log(1.5e6) / np.log(1e6) * np.log(0.5e6) / np.log(1e6)) ** 0.9
    assert float(SampledBranches().priced(loss, spent, limits)) == pytest.approx(2 * factor, rel=1e-5)
    assert noise(torch.tensor(3.0), (2, 3, 4), 10).tolist() == [40, 10, 2.5]
    for learner in (lambda: FractionalBits(strength=0), lambda: LearnedStep(strength=-1), lambda: SampledBranches(temperature=(1.0, 0.0))):
        with pytest.raises(RecipeError, match="positive"):
            learner()


@pytest.mark.parametrize("make", [lambda: Fractional(GRID, WIDTHS, 3.4, 60), lambda: StepAndRange(GRID, WIDTHS, 3.4, 60), lambda: Branches(GRID, WIDTHS, (5.0, 1.0))])
def test_settled_weights_lie_on_the_grid_that_is_left(make):
    quantizer = Quantizer(GRID, layer="a", weight=True, channels=5)
    quantizer.set(GRID.parameters(W.flatten(1).amin(1), W.flatten(1).amax(1)))
    quantizer.simulation = make()
    quantizer.simulation.fix(4)
    evaluated = quantizer.eval()(W)
    values = quantizer.settle(W)
    assert quantizer.simulation is None
    assert quantizer.grid.bits == 4
    assert torch.equal(values, evaluated)
    assert torch.equal(quantizer(values), values)
    assert all(len(row.unique()) <= 15 for row in values)


@pytest.mark.parametrize("recipe", [fracbits, dq, dnas_bits])
def test_training_ends_within_the_budget(recipe):
    torch.manual_seed(0)
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    train = Train(fit=Fit(epochs=2, batch_size=8, optimizer=SGD(lr=0.01)), samples=32)
    result = recipe(Budget(bits=3.2), widths=Widths(weights=(2, 3, 4, 6)), train=train)(model, data)
    (entry,) = result.report.entries
    assert entry.method == f"quantize.{recipe.__name__}"
    assert "0x" not in entry.recipe
    assert entry.promised == {"bits": 3.2}
    held = {m.layer: (m.grid.bits, result.model.tensor(f"{m.layer}.weight")) for m in result.model.modules() if isinstance(m, Quantizer) and m.weight}
    bits = sum(width * w.numel() for width, w in held.values()) / sum(w.numel() for _, w in held.values())
    assert entry.measured["bits"] == entry.metrics["bits"] == pytest.approx(bits)
    assert bits <= 3.2
    for module in result.model.modules():
        if isinstance(module, Quantizer) and module.weight:
            values = result.model.tensor(f"{module.layer}.weight")
            torch.testing.assert_close(module(values), values, rtol=1e-6, atol=0)


def _equipped(learner, data, model, start=3.2):
    from lilliput.quantize import equip
    from lilliput.quantize.bits import Uniform
    from lilliput.quantize.mixed.flexible import LearnedWidths

    layers = ("stem", "depthwise", "head")
    estimator = LearnedWidths(learner=learner, layers=layers, widths=WIDTHS, start=start)
    network, _ = equip(model, data, Scheme(bits=Uniform(weights=6, activations=8)), estimator=estimator, samples=32)
    counts = np.array([[144.0], [72.0], [64.0]])
    return network, WithinBudget(learner=learner, layers=layers, costs={"bits": counts * np.array(WIDTHS)}, limits={"bits": 3.2 * 280})


def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path):
    torch.manual_seed(0)
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    network, hook = _equipped(FractionalBits(), data, model)
    whole = fit(network, data, Fit(epochs=2, batch_size=12, optimizer=SGD(lr=0.01)), hooks=(copy.deepcopy(hook),), progress=False).model

    config, path = Fit(epochs=2, batch_size=12, optimizer=SGD(lr=0.01)), tmp_path / "run.ckpt"
    stopping = WithinBudget(learner=hook.learner, layers=hook.layers, costs=hook.costs, limits=hook.limits)
    stopping.epoch = lambda state: (_ for _ in ()).throw(RuntimeError("stop")) if state.epoch == 1 else None
    with pytest.raises(RuntimeError, match="stop"):
        fit(network, data, config, hooks=(stopping,), checkpoint=path, progress=False)
    resumed = fit(network, data, config, hooks=(copy.deepcopy(hook),), checkpoint=path, progress=False).model
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_the_hook_prices_widths_and_moves_them_alone():
    torch.manual_seed(0)
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    network, hook = _equipped(FractionalBits(strength=100.0), data, model, start=5.0)
    before = copy.deepcopy(network)
    # With a price that drowns the loss and a budget of 3.2 bits, all widths fall.
    trained = fit(network, data, Fit(epochs=1, batch_size=24, optimizer=SGD(lr=0.01)), hooks=(hook,), progress=False).model
    bits = {n: (float(a), float(b)) for (n, a), (_, b) in zip(before.named_parameters(), trained.named_parameters(), strict=True) if n.endswith(".bits")}
    assert len(bits) == 3
    assert all(after < start for start, after in bits.values())
    plain = NETS["residual"][0]()
    with pytest.raises(PreconditionError, match="no layer has a width"):
        fit(plain, data, Fit(epochs=1), hooks=(hook,), progress=False)
    with pytest.raises(RecipeError, match="search"):
        WithinBudget(learner=FractionalBits(), layers=(), costs={}, limits={}, search=0)


def test_widths_start_where_the_budget_is_just_met():
    torch.manual_seed(0)
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()

    def start(**limits):
        costs = {"latency": lambda layer, bits: float(bits.weights**2)}
        return uniform_width(Task.of(model, data, Static(), budget=Budget(**limits), widths=Widths(weights=(2, 4, 8)), costs=costs))

    assert start(bits=4.0) == 4.0
    assert start(bits=5.0) == pytest.approx(5.0)
    assert start(bits=8.0) == 8.0
    assert start(bits=1.0) == 2.0
    # Three layers: 48 at four bits, 192 at eight.
    assert start(latency=84.0) == pytest.approx(5.0)
    assert start(latency=84.0, bits=3.0) == pytest.approx(3.0)
