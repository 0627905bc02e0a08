"""Mixed precision: sensitivities against closed forms, tasks counted by hand, and the step that puts them together."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from quantize_nets import NETS, ArraySplit, arrays
from torch import nn

from lilliput.core import Budget, BudgetError, PreconditionError, RecipeError, UnknownNameError
from lilliput.quantize import Bits, Fixed, Mixed, Quantizer, Scheme, Static, Train, Widths, hawq, mixed
from lilliput.quantize.mixed.agreement import agreement
from lilliput.quantize.mixed.evaluator import Evaluator, batches_of
from lilliput.quantize.mixed.hessian import HessianEigenvalue, HessianTrace, hessian_eigenvalues, hessian_traces
from lilliput.quantize.mixed.sensitivity import Fisher, LossRise, OutputNoise, WeightNoise, gradient_squares
from lilliput.quantize.mixed.step import Additive
from lilliput.quantize.mixed.task import Task
from lilliput.train import SGD, Fit

WIDTHS = Widths(weights=(2, 4, 8))


@dataclass(frozen=True)
class Regression:
    """A linear map of 6 numbers to 3, in two layers without anything between them."""

    train: ArraySplit
    name: str = "regression"
    num_classes: int = 0
    digest: str = "0"

    @property
    def val(self):
        return self.train

    def example(self, n=2):
        return self.train.inputs[:n]


@pytest.fixture(scope="module")
def regression():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3, bias=False)).eval()
    x = torch.randn(32, 6) * torch.tensor([3.0, 1, 1, 1, 1, 1])
    return model, Regression(ArraySplit(x, model(x).detach() + torch.randn(32, 3)))


def _task(model, data, budget=Budget(bits=4.0), widths=WIDTHS, scheme=Scheme(), costs=None):
    return Task.of(model, data, Static(scheme=scheme), budget=budget, widths=widths, costs=costs or {})


@pytest.fixture(scope="module")
def residual():
    torch.manual_seed(0)
    data = arrays(2, 8, 8)
    model = NETS["residual"][0]().eval()
    return model, data, _task(model, data)


def test_trace_and_eigenvalue_of_least_squares_are_those_of_the_inputs(regression):
    model, data = regression
    task = _task(model, data)
    x = data.train.inputs.double()
    covariance = x.T @ x / len(x)
    # The loss is the mean over 3 outputs of squares: the Hessian holds 2/3 E[x x'] once for each output.
    assert hessian_traces(task, probes=400, samples=32, seed=0)[0] == pytest.approx(2 * float(covariance.trace()), rel=0.05)
    largest = 2 / 3 * float(torch.linalg.eigvalsh(covariance)[-1])
    assert hessian_eigenvalues(task, iterations=30, samples=32, seed=0)[0] == pytest.approx(largest, rel=1e-3)
    error = (task.quantized(task.layers[0], 2)["0.weight"] - model[0].weight).detach().double()
    table = HessianEigenvalue(iterations=30, samples=32)(task)
    assert table.shape == (1, 3)
    assert table[0, 0] == pytest.approx(largest / 18 / 2 * float(error.square().sum()), rel=1e-3)
    assert HessianTrace(samples=32)(task)[0, 0] == pytest.approx(hessian_traces(task, 16, 32, 0)[0] / 18 / 2 * float(error.square().sum()))


def test_the_loss_of_least_squares_rises_by_the_quadratic_form(regression):
    model, data = regression
    task = _task(model, data)
    x, y = data.train.inputs, data.train.targets
    w = task.quantized(task.layers[0], 4)["0.weight"]
    rise = float((x @ w.T - y).square().mean() - (model(x) - y).square().mean())
    assert LossRise(samples=100)(task)[0, 1] == pytest.approx(rise, rel=1e-4)
    wanted = float((x @ w.T - model(x)).square().sum() / model(x).square().sum())
    assert OutputNoise(samples=100)(task)[0, 1] == pytest.approx(wanted, rel=1e-4)
    noise = float((w - model[0].weight).square().sum() / model[0].weight.square().sum())
    assert WeightNoise()(task)[0, 1] == pytest.approx(noise, rel=1e-5)


def test_fisher_is_the_mean_squared_gradient_of_single_samples(regression):
    model, data = regression
    task = _task(model, data)
    total = torch.zeros(3, 6)
    for x, y in zip(data.train.inputs, data.train.targets, strict=True):
        total += torch.autograd.grad((model(x[None]) - y[None]).square().mean(), model[0].weight)[0].square() / 32
    found = gradient_squares(task, samples=32, batch=1)["0.weight"]
    torch.testing.assert_close(found.float(), total, rtol=1e-4, atol=1e-6)
    error = (task.quantized(task.layers[0], 8)["0.weight"] - model[0].weight).detach()
    assert Fisher(samples=32, batch=1)(task)[0, 2] == pytest.approx(0.5 * float((total * error.square()).sum()), rel=1e-4)


def test_sensitivity_falls_with_the_width(residual):
    _, _, task = residual
    for sensitivity in (HessianTrace(samples=16, probes=4), Fisher(samples=16), OutputNoise(samples=16), WeightNoise()):
        table = sensitivity(task)
        assert table.shape == (3, 3)
        assert (np.diff(table, axis=1) <= 0).all(), sensitivity
        assert table[:, 0].min() > 0, sensitivity


def test_the_task_counts_weights_and_bytes(residual):
    model, data, _ = residual
    task = _task(model, data, Budget(bits=3.5, size="10%"))
    assert [(layer.name, layer.count, layer.scales) for layer in task.layers] == [("stem", 144, 8), ("depthwise", 72, 8), ("head", 64, 4)]
    assert task.limits["bits"] == 3.5 * 280
    # Biases of all three layers, since batch norms are folded: 20 numbers of 32 bits, counted with the first layer.
    assert task.costs["size"].tolist() == [[144 / 2 + 32 + 80] * 2 + [144 + 32 + 80], [36 + 32] * 2 + [72 + 32], [32 + 16] * 2 + [64 + 16]]
    assert task.limits["size"] == pytest.approx(0.1 * 4 * 300)
    assert task.cost("bits", [0, 1, 2]) == 2 * 144 + 4 * 72 + 8 * 64
    assert task.bits([0, 1, 2]).bits == {"stem": Bits(2, 8), "depthwise": Bits(4, 8), "head": Bits(8, 8)}
    assert [layer.name for layer in _task(model, data, scheme=Scheme(exclude=("stem",))).layers] == ["depthwise", "head"]


def test_weights_of_a_candidate_are_those_that_calibration_would_give(residual):
    model, data, task = residual
    quantized = Static(scheme=Scheme(bits=task.bits([0, 1, 2])), samples=32)(model, data).model
    seen = {m.layer: m(quantized.tensor(f"{m.layer}.weight")) for m in quantized.modules() if isinstance(m, Quantizer) and m.weight}
    assert all(torch.equal(values, seen[name.removesuffix(".weight")]) for name, values in task.weights([0, 1, 2]).items())


def test_evaluation_replaces_weights_and_restores_them(residual):
    _, data, task = residual
    before = {name: p.clone() for name, p in task.network.named_parameters()}
    evaluate = Evaluator.of(task.network, data, 40)
    assert sum(len(x) for x, _ in evaluate.batches) == 40
    base, narrow = evaluate({}), evaluate(task.weights([0, 0, 0]))
    assert base != narrow
    assert evaluate({}) == base
    assert all(torch.equal(p, before[name]) for name, p in task.network.named_parameters())
    x, y = data.train.head(40).inputs, data.train.head(40).targets
    assert base.loss == pytest.approx(float(nn.functional.cross_entropy(task.network(x), y)), rel=1e-5)
    assert base.accuracy == pytest.approx(100 * float((task.network(x).argmax(1) == y).float().mean()))


def test_the_step_meets_every_limit_and_records_it(residual):
    model, data, _ = residual
    latency = {name: {2: 1.0, 4: 2.0, 8: 4.0} for name in ("stem", "depthwise", "head")}

    def energy(layer, bits):
        return bits.weights * (10.0 if layer == "head" else 1.0)

    budget = Budget(bits=5.0, latency=0.6, energy=60.0)
    step = hawq(budget, sensitivity=HessianTrace(samples=16, probes=2), widths=WIDTHS, costs={"latency": latency, "energy": energy},
                inner=Static(samples=32))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = step(model, data)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    (entry,) = result.report.entries
    assert entry.method == "quantize.hawq"
    assert "0x" not in entry.recipe
    assert entry.promised == {"bits": 5.0, "latency": pytest.approx(0.6 * 12), "energy": 60.0}
    assert all(entry.measured[name] <= limit for name, limit in entry.promised.items())
    rows = {row["layer"]: row for row in entry.layers}
    chosen = {name: rows[name]["weight_bits"] for name in latency}
    assert sum(latency[name][bits] for name, bits in chosen.items()) == entry.measured["latency"]
    assert sum(energy(name, Bits(bits, 8)) for name, bits in chosen.items()) == entry.measured["energy"]
    counts = {"stem": 144, "depthwise": 72, "head": 64}
    assert entry.metrics["bits"] == entry.measured["bits"] == sum(counts[n] * b for n, b in chosen.items()) / 280
    assert entry.metrics["predicted_loss"] == pytest.approx(sum(rows[name]["sensitivity"] for name in latency))
    # The very widths that trained or quantized elsewhere would get.
    assert all(m.grid.bits == chosen[m.layer] for m in result.model.modules() if isinstance(m, Quantizer) and m.weight)


def test_the_exact_choice_is_predicted_to_be_no_worse_than_uniform_widths(residual):
    _, _, task = residual
    for sensitivity in (HessianTrace(samples=16, probes=2), WeightNoise()):
        table = sensitivity(task)
        found = Additive(sensitivity=sensitivity)(task)
        assert task.met(found.options)
        assert found.expected["predicted_loss"] <= table[:, 1].sum()


def test_widths_found_go_into_training(residual):
    model, data, _ = residual
    inner = Train(fit=Fit(epochs=1, batch_size=24, optimizer=SGD(lr=0.01)), samples=32)
    result = Mixed(budget=Budget(bits=3.0), search=Additive(sensitivity=WeightNoise()), widths=WIDTHS, inner=inner)(model, data)
    assert result.report.entries[0].measured["bits"] <= 3.0
    assert {m.grid.bits for m in result.model.modules() if isinstance(m, Quantizer) and m.weight} <= {2, 4, 8}


def test_mixed_refuses_what_cannot_be_met(residual):
    model, data, _ = residual
    with pytest.raises(BudgetError, match="cheapest options take"):
        mixed(Budget(bits=1.9), sensitivity=WeightNoise())(model, data)
    with pytest.raises(PreconditionError, match="latency budget needs a table"):
        mixed(Budget(latency="1ms"))(model, data)
    with pytest.raises(PreconditionError, match="exclude fewer"):
        mixed(Budget(bits=4.0), inner=Static(scheme=Scheme(exclude=("*",))))(model, data)
    with pytest.raises(RecipeError, match="ascending"):
        Widths(weights=(4, 2))
    with pytest.raises(RecipeError, match="samples"):
        HessianTrace(samples=0)
    with pytest.raises(UnknownNameError, match="did you mean stem"):
        Static(scheme=Scheme(bits=Fixed({"stemm": Bits(4, 8)})))(model, data)
    empty = replace(data, train=ArraySplit(torch.empty(0, 2, 8, 8), torch.empty(0, dtype=torch.long)))
    with pytest.raises(Exception, match="empty"):
        batches_of(empty.train, 4)


def test_predictions_and_losses_are_ranked(residual):
    _, _, task = residual
    found = agreement(task, LossRise(samples=32), allocations=8, samples=32)
    assert len(found.predicted) == len(found.true) == 8
    assert -1 <= found.rank <= 1
    one = replace(task, layers=task.layers[:1], costs={"bits": task.costs["bits"][:1]})
    # With one layer the prediction is the loss itself.
    exact = agreement(one, LossRise(samples=48), allocations=8, samples=48)
    assert exact.predicted == pytest.approx(exact.true)
    assert exact.rank == pytest.approx(1.0)
