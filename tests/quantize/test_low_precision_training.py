import math
from itertools import pairwise

import pytest
import torch
from quantize_nets import NETS, Arrays, ArraySplit, arrays
from torch import nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph.trace import Traced, trace
from lilliput.quantize import Quantizer
from lilliput.quantize.low_precision import (
    FP8,
    FP16,
    FixedPoint,
    Float,
    GradientCast,
    LossScale,
    MixedPrecision,
    Nearest,
    NoisyUniform,
    Ranged,
    RangeNorm,
    Rounded,
    RoundedSGD,
    ScaleLoss,
    Stochastic,
    cast_gradients,
    without_casts,
)
from lilliput.quantize.low_precision.range_norm import RangeBatchNorm, range_deviation
from lilliput.quantize.recipes.low_precision import fixed_point_sr, fp8_training, int8_training, mixed_precision_training
from lilliput.train import SGD, AdamW, Constant, DivergenceError, Fit, Hook, fit

FIT = Fit(epochs=2, batch_size=16, optimizer=SGD(lr=0.05))


# Range batch norm.


def test_range_deviation_worked_by_hand():
    # Two rows of 4 values: C(4) = 1 / sqrt(2 ln 4) = 0.600561.
    x = torch.tensor([[0.0, 1.0, 2.0, 4.0], [3.0, 3.0, 3.0, 2.0]])
    assert range_deviation(x).tolist() == pytest.approx([4 * 0.600561, 0.600561], rel=1e-5)
    normal = torch.randn(200, 4096)
    assert float(range_deviation(normal, 0.5).mean()) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 5), (3, 3, 4, 2)])
def test_gradients_of_range_batch_norm_against_finite_differences(shape):
    norm = RangeBatchNorm("norm", RangeNorm(), momentum=0.1, eps=1e-5)
    x, gain, shift = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in (shape, (3,), (3,)))

    def run(x, gain, shift):
        return norm(x, gain, shift, torch.zeros(3), torch.ones(3))

    assert torch.autograd.gradcheck(run, (x, gain, shift))


def test_range_batch_norm_normalises_and_becomes_a_batch_norm():
    norm = RangeBatchNorm("norm", RangeNorm(factor=1.0), momentum=0.25, eps=1e-5)
    x, mean, variance = torch.randn(32, 2, 4, 4) * torch.tensor([3.0, 0.2])[:, None, None] + 5, torch.zeros(2), torch.ones(2)
    y = norm(x, None, None, mean, variance)
    rows = x.transpose(0, 1).flatten(1)
    d = (rows.amax(1) - rows.amin(1)) / math.sqrt(2 * math.log(512))
    torch.testing.assert_close(y.transpose(0, 1).flatten(1), (rows - rows.mean(1, keepdim=True)) / d[:, None], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mean, 0.25 * rows.mean(1))
    torch.testing.assert_close(variance, 0.75 + 0.25 * d**2)
    gain, shift = torch.rand(2), torch.rand(2)
    plain = nn.functional.batch_norm(x, mean, variance, gain, shift, False, 0.25, 1e-5)
    torch.testing.assert_close(norm.eval()(x, gain, shift, mean, variance), plain, rtol=1e-4, atol=1e-5)
    with pytest.raises(PreconditionError, match="larger batch_size"):
        norm.train()(x[:1, :, 0, 0], None, None, mean, variance)


def test_range_batch_norm_casts_what_enters_and_what_comes_back():
    norm = RangeBatchNorm("norm", RangeNorm(activation=Ranged(), error=Rounded(format=Float(exponent=4, mantissa=1))), momentum=0.1, eps=0.0)
    x = torch.randn(16, 1, requires_grad=True)
    shift = torch.zeros(1, requires_grad=True)
    y = norm(x, None, shift, torch.zeros(1), torch.ones(1))
    cast = Ranged()(x.detach()).dense()
    torch.testing.assert_close(y, (cast - cast.mean()) / range_deviation(cast.t(), 0.5))
    error = torch.randn(16, 1)
    y.backward(error)
    assert shift.grad.item() == pytest.approx(float(Float(exponent=4, mantissa=1).round(error).sum()), rel=1e-5)


# Updates.


def test_rounded_updates_worked_by_hand():
    # Eighths: g = R(0.3 + 0.5 * 1.0) = R(0.8) = 0.75, w = R(1 - 0.5 * 0.75) = R(0.625) = 0.625;
    # then v = R(0.5 * 0.75 + R(0.3 + 0.5 * 0.625)) = R(0.375 + 0.625) = 1, w = R(0.625 - 0.5) = 0.125.
    number = Rounded(format=FixedPoint(integer=3, fraction=3))
    weight = nn.Parameter(torch.tensor([[1.03]]))
    optimizer = RoundedSGD(number=number, lr=0.5, momentum=0.5, weight_decay=0.5).build([weight])
    seen = [weight.item()]
    for _ in range(2):
        weight.grad = torch.tensor([[0.3]])
        optimizer.step()
        seen.append(weight.item())
    assert seen == [1.0, 0.625, 0.125]


def test_updates_repeat_in_every_process_and_after_a_pause():
    number = Rounded(format=FP16, rounding=Stochastic())

    def run(steps, weight=None, state=None):
        weight = nn.Parameter(torch.linspace(-1, 1, 64).reshape(8, 8) if weight is None else weight)
        optimizer = RoundedSGD(number=number, lr=0.01).build([weight])
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            torch.rand(3)  # the global generator stands elsewhere in every process
            weight.grad = weight.detach() * 0.1 + 0.01
            optimizer.step()
            assert torch.equal(FP16.round(weight), weight)
        return weight.detach(), optimizer.state_dict()

    whole, _ = run(6)
    half, state = run(3)
    torch.manual_seed(5)
    rest, _ = run(3, half, state)
    assert torch.equal(whole, rest)
    assert not torch.equal(whole, run(5)[0])


def test_settings_of_plain_sgd_are_taken_over():
    number = Rounded(format=FP16)
    taken = RoundedSGD.like(SGD(lr=0.3, momentum=0.5, weight_decay=0.1), number)
    assert (taken.lr, taken.momentum, taken.weight_decay, taken.number) == (0.3, 0.5, 0.1, number)
    assert RoundedSGD.like(taken, Rounded(format=FP8)) is taken
    with pytest.raises(RecipeError, match="AdamW"):
        RoundedSGD.like(AdamW(), number)
    with pytest.raises(RecipeError, match="lr"):
        RoundedSGD(number=number, lr=-1.0)


# Fixed point.


def _regression():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(960, 6, generator=generator)
    return Arrays(ArraySplit(x, x @ (torch.rand(6, 2, generator=generator) - 0.5)), num_classes=0)


def test_sixteen_bits_train_by_chance_where_nearest_stalls():
    data, model = _regression(), nn.Linear(6, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    config = Fit(epochs=60, batch_size=32, optimizer=SGD(lr=0.0015, momentum=0.0, weight_decay=0.0), schedule=Constant())
    start = float(data.train.targets.square().mean())
    left = {}
    for rounding in (Nearest(), Stochastic()):
        # <8, 8>: no update reaches half a step, 2^-9, since lr * |gradient| < 0.0015 * 1.3.
        result = fixed_point_sr(weights=FixedPoint(integer=8, fraction=8), rounding=rounding, fit=config)(model, data)
        left[rounding] = float((result.model(data.train.inputs) - data.train.targets).square().mean().detach())
        for parameter in result.model.parameters():
            assert torch.equal(parameter * 256, (parameter * 256).round())
    assert left[Nearest()] == pytest.approx(start, rel=1e-6)
    assert left[Stochastic()] < 0.05 * start


# Loss scaling.


class _Poison(Hook):
    """Makes the gradients of given steps infinite before they are unscaled."""

    def __init__(self, steps):
        self.steps = steps

    def gradients(self, state):
        if state.step in self.steps:
            next(state.model.parameters()).grad[0] = math.inf


def test_overflow_leaves_the_step_out_and_calm_raises_the_scale():
    data, model, seen = arrays(2, 8, 8), NETS["residual"][0](), []

    class Watch(Hook):
        def step(self, state):
            seen.append((scaler.scale, next(state.model.parameters()).detach().clone()))

    scaler = ScaleLoss(LossScale(initial=8.0, interval=2))
    history = fit(model, data, FIT, hooks=[_Poison({2, 3}), scaler, Watch()], progress=False).history
    # Three steps an epoch: two calm ones double it, two poisoned ones halve it twice, two more calm ones double it again.
    assert [scale for scale, _ in seen] == [8, 16, 8, 4, 4, 8]
    moved = [not torch.equal(a, b) for (_, a), (_, b) in pairwise(seen)]
    assert moved == [True, False, False, True, True]
    assert [(row["loss_scale"], row["skipped_steps"]) for row in history] == [(8.0, 1.0), (8.0, 1.0)]
    other = ScaleLoss(LossScale(initial=8.0, interval=2))
    other.load_state_dict(scaler.state_dict())
    assert (other.scale, other.calm, other.skipped) == (scaler.scale, scaler.calm, scaler.skipped)


def test_a_power_of_two_changes_neither_weights_nor_the_reported_loss():
    data, model = arrays(2, 8, 8), NETS["residual"][0]()
    plain = fit(model, data, FIT, progress=False)
    scaled = fit(model, data, FIT, hooks=[ScaleLoss(LossScale(initial=2.0**10, interval=None))], progress=False)
    assert all(torch.equal(a, b) for a, b in zip(plain.model.state_dict().values(), scaled.model.state_dict().values(), strict=True))
    assert [row["train_loss"] for row in plain.history] == [row["train_loss"] for row in scaled.history]


def test_gradients_that_no_scale_mends_are_reported():
    with pytest.raises(DivergenceError, match="any loss scale"):
        fit(NETS["residual"][0](), arrays(2, 8, 8), Fit(epochs=20, batch_size=16, optimizer=SGD(lr=0.01)),
            hooks=[_Poison(set(range(60))), ScaleLoss(LossScale(initial=1.0))], progress=False)
    with pytest.raises(RecipeError, match="loss scale"):
        LossScale(backoff=1.5)


def test_small_gradients_survive_half_precision_only_when_scaled():
    """Errors of 1e-8 lie below half precision's least number, 6e-8."""
    data = arrays(2, 8, 8)

    class Small(Hook):
        def loss(self, state, outputs, loss):
            return loss * 1e-7

        def gradients(self, state):
            sums.append(sum(float(p.grad.abs().sum()) for p in state.model.parameters() if p.ndim > 1))

    config = Fit(epochs=1, batch_size=48, optimizer=SGD(lr=0.01), precision="16-mixed")
    sums: list[float] = []
    fit(NETS["residual"][0](), data, config, hooks=[Small()], progress=False)
    fit(NETS["residual"][0](), data, config, hooks=[ScaleLoss(LossScale(initial=2.0**15)), Small()], progress=False)
    assert sums[0] < 0.05 * sums[1]


# Gradients of a few bits.


def test_dorefas_gradients_worked_by_hand():
    # k = 2 without noise: max 0.8, so g / 1.6 + 1/2 = 1, 0.3125, 0.5625 -> levels 1, 1/3, 2/3 -> 1.6 (level - 1/2).
    g = torch.tensor([[0.8, -0.3, 0.1], [0.0, 0.0, 0.0]])
    assert NoisyUniform(bits=2, noise=False)(g).dense().tolist() == [pytest.approx([0.8, -0.8 / 3, 0.8 / 3]), [0.0, 0.0, 0.0]]
    with pytest.raises(RecipeError, match="bits"):
        NoisyUniform(bits=0)


@pytest.mark.parametrize("bits", [1, 2, 6])
def test_dorefas_noise_makes_gradients_unbiased(bits):
    count, g = 100_000, torch.tensor([0.8, -0.31, 0.1, -0.8])
    drawn = NoisyUniform(bits=bits)(g.expand(count, 4).contiguous()).dense()
    gap = 1.6 / (2**bits - 1)
    assert len(drawn[:, 1].unique()) == 2
    assert (drawn.double().mean(0) - g.double()).abs().max() < 6 * gap / 2 / math.sqrt(count)


def test_gradient_casts_go_behind_layers_and_come_out_again():
    data, model = arrays(2, 8, 8), NETS["residual"][0]()
    network = trace(model, data.example())
    rounded = cast_gradients(network, NoisyUniform(bits=2, noise=False))
    assert sum(isinstance(m, GradientCast) for m in rounded.modules()) == 3
    torch.testing.assert_close(rounded(data.example()), network(data.example()))
    outputs = rounded(data.example(4))
    error = torch.randn(4, 4)
    outputs.backward(error)
    torch.testing.assert_close(rounded.tensor("head.bias").grad, NoisyUniform(bits=2, noise=False)(error).dense().sum(0))
    trained = fit(cast_gradients(network, NoisyUniform(bits=6)), data, FIT, progress=False).model
    plain = without_casts(trained)
    assert not any(isinstance(m, GradientCast) for m in plain.modules())
    torch.testing.assert_close(plain.eval()(data.example()), trained.eval()(data.example()))


# The steps.


@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("recipe", [fixed_point_sr, fp8_training, int8_training])
def test_every_kind_of_network_trains_and_comes_back_ordinary(name, recipe):
    build, shape = NETS[name]
    model, data = build().eval(), arrays(*shape)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = recipe(fit=Fit(epochs=1, batch_size=16, optimizer=SGD(lr=0.01)))(model, data)
    assert isinstance(result.model, Traced)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.isfinite(result.model(data.example())).all()
    (entry,) = result.report.entries
    assert entry.method == f"quantize.{recipe.__name__}"
    assert "0x" not in entry.recipe
    modules = list(result.model.modules())
    if recipe is int8_training:
        assert any(isinstance(module, Quantizer) for module in modules)
    else:
        assert set(dict(result.model.named_parameters())) == set(dict(model.named_parameters()))
        assert any(row["relative_change"] > 0 for row in entry.layers)


def test_a_trained_network_lies_on_the_grids_it_was_trained_on():
    data, model = arrays(2, 8, 8), NETS["residual"][0]()
    weights = dict(fp8_training(fit=FIT)(model, data).model.named_parameters())
    for name, grid in (("stem.weight", FP8), ("depthwise.weight", FP8), ("head.weight", FP16), ("depthwise.bias", FP16), ("norm.weight", FP16)):
        assert torch.equal(grid.round(weights[name]), weights[name]), name
    assert not torch.equal(FP8.round(weights["head.weight"]), weights["head.weight"])
    fixed = FixedPoint(integer=2, fraction=14)
    for name, weight in fixed_point_sr(fit=FIT)(model, data).model.named_parameters():
        assert torch.equal(fixed.round(weight), weight), name


def test_the_trained_network_behaves_as_in_its_last_validation():
    data, model = arrays(2, 8, 8), NETS["residual"][0]()
    seen = []

    class Keep(Hook):
        def end(self, state):
            seen.append(state.model.eval()(data.example(16)).detach())

    result = int8_training(fit=FIT, hooks=(Keep(),))(model, data)
    assert float((result.model(data.example(16)) - seen[0]).abs().max()) < 0.1 * float(seen[0].abs().max())


def test_quantized_networks_and_other_optimizers_are_refused():
    data, model = arrays(2, 8, 8), NETS["residual"][0]()
    quantized = int8_training(fit=Fit(epochs=0))(model, data).model
    with pytest.raises(PreconditionError, match="quantized already"):
        fp8_training(fit=FIT)(quantized, data)
    with pytest.raises(RecipeError, match="AdamW"):
        fp8_training(fit=Fit(epochs=1, optimizer=AdamW()))(model, data)
    with pytest.raises(RecipeError, match="16-mixed"):
        MixedPrecision(precision="32-true")


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_mixed_precision_computes_in_half_and_keeps_single(precision):
    data, model = arrays(2, 8, 8), NETS["residual"][0]()
    kinds = []

    class Watch(Hook):
        def loss(self, state, outputs, loss):
            kinds.append((outputs.dtype, loss.dtype))
            return loss

    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            y = self.inner(x)
            kinds.append((y.dtype, self.inner.head.weight.dtype))
            return y

    fit(Probe(), data, Fit(epochs=1, batch_size=48, optimizer=SGD(lr=0.01), precision=precision), hooks=[Watch()], progress=False)
    half = torch.float16 if precision == "16-mixed" else torch.bfloat16
    # Inside the network, at the loss, and in validation, which runs in single precision.
    assert kinds == [(half, torch.float32), (torch.float32, torch.float32), (torch.float32, torch.float32)]
    result = mixed_precision_training(precision=precision, fit=FIT)(model, data)
    assert all(p.dtype == torch.float32 for p in result.model.parameters())
    assert "loss scale" in result.report.entries[0].notes[0]
