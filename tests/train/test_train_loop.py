import copy
import json
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from train_toy import ToyData, ToySplit, convnet, plain, same_bits, toy

from lilliput.core.errors import DataError, PreconditionError, RecipeError
from lilliput.graph.trace import Traced, trace
from lilliput.train import SGD, AdamW, Constant, Cosine, CrossEntropy, DivergenceError, Fit, Hook, OneCycle, State, evaluate, fit

FAST = Fit(epochs=3, batch_size=32, optimizer=SGD(lr=0.05))


def test_training_learns_and_leaves_the_model_alone() -> None:
    data, model = toy(), convnet()
    before = copy.deepcopy(model)
    model.eval()
    trained = fit(model, data, FAST)
    assert same_bits(model, before)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert evaluate(trained.model, data.test) > 80 > evaluate(model, data.test) + 20
    assert [row["epoch"] for row in trained.history] == [0, 1, 2]
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    assert trained.history[-1]["val_accuracy"] == evaluate(trained.model, data.val)
    assert json.loads(json.dumps(trained.history)) == list(trained.history)


def test_a_traced_network_trains_to_the_same_weights_as_the_eager_one() -> None:
    data, model = toy(), convnet()
    model[4] = nn.Identity()
    eager = fit(model, data, FAST).model
    traced = fit(trace(model, data.example()), data, FAST).model
    assert isinstance(traced, Traced)
    weights = dict(eager.named_parameters())
    for name, parameter in traced.named_parameters():
        torch.testing.assert_close(parameter, weights[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(traced.eval()(data.test.inputs), eager.eval()(data.test.inputs), rtol=1e-3, atol=1e-4)


def test_the_seed_decides() -> None:
    data, model = toy(), convnet()
    torch.manual_seed(1)
    first = fit(model, data, FAST).model
    torch.manual_seed(2)
    assert same_bits(first, fit(model, data, FAST).model)
    assert not same_bits(first, fit(model, data, Fit(epochs=3, batch_size=32, optimizer=SGD(lr=0.05), seed=1)).model)


def test_one_step_of_plain_sgd_is_the_gradient() -> None:
    data, model = toy(n=20), plain()
    config = Fit(epochs=1, batch_size=20, schedule=Constant(), optimizer=SGD(lr=0.1, momentum=0.0, weight_decay=0.0))
    trained = fit(model, data, config)
    loss = nn.functional.cross_entropy(model(data.train.inputs), data.train.targets)
    loss.backward()
    assert trained.history[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    for old, new in zip(model.parameters(), trained.model.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.1 * old.grad, rtol=1e-4, atol=1e-6)


def test_train_loss_is_the_mean_over_samples_with_an_uneven_last_batch() -> None:
    data, model = toy(n=25), plain()
    config = Fit(epochs=1, batch_size=16, schedule=Constant(), optimizer=SGD(lr=1e-12))
    expected = nn.functional.cross_entropy(model(data.train.inputs), data.train.targets).item()
    assert fit(model, data, config).history[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_vectors_do_not_decay_unless_asked() -> None:
    for decay_vectors, expected in ((False, 1.0), (True, 0.9)):
        for settings in (SGD(lr=1.0, weight_decay=0.1, decay_vectors=decay_vectors), AdamW(lr=1.0, weight_decay=0.1, decay_vectors=decay_vectors)):
            scale, weight = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, 3))
            optimizer = settings.build([scale, weight])
            scale.grad, weight.grad = torch.zeros(3), torch.zeros(3, 3)
            optimizer.step()
            if isinstance(settings, AdamW):
                assert scale[0].item() == pytest.approx(expected)
                assert weight[0, 0].item() == pytest.approx(0.9)
            else:
                assert (scale[0].item() == 1.0) != decay_vectors
                assert weight[0, 0].item() < 1.0


def test_frozen_parameters_stay() -> None:
    model = convnet()
    model[0].requires_grad_(False)
    trained = fit(model, toy(), FAST).model
    assert torch.equal(trained[0].weight, model[0].weight)
    assert not torch.equal(trained[6].weight, model[6].weight)
    with pytest.raises(PreconditionError, match="requires_grad_"):
        fit(model.requires_grad_(False), toy(), FAST)


class Recorder(Hook):
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def start(self, state: State) -> None:
        assert state.optimizer is None
        self.calls.append(f"{self.name}.start")

    def batch(self, state: State, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.calls.append(f"{self.name}.batch")
        return batch[0] + 1, batch[1]

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:
        self.calls.append(f"{self.name}.loss")
        return loss * 2

    def gradients(self, state: State) -> None:
        assert all(p.grad is not None for p in state.model.parameters())
        self.calls.append(f"{self.name}.gradients")

    def step(self, state: State) -> None:
        self.calls.append(f"{self.name}.step")

    def epoch(self, state: State) -> None:
        assert len(state.history) == state.epoch + 1
        self.calls.append(f"{self.name}.epoch")

    def end(self, state: State) -> None:
        self.calls.append(f"{self.name}.end")


def test_hooks_run_in_order_and_each_sees_the_one_before() -> None:
    calls: list[str] = []
    data, model = toy(n=10), plain()
    config = Fit(epochs=1, batch_size=10, optimizer=SGD(lr=1e-12))
    history = fit(model, data, config, hooks=[Recorder("a", calls), Recorder("b", calls)]).history
    moments = ["start", "batch", "loss", "gradients", "step", "epoch", "end"]
    assert calls == [f"{name}.{moment}" for moment in moments for name in "ab"]
    shifted = nn.functional.cross_entropy(model(data.train.inputs + 2), data.train.targets).item()
    assert history[0]["train_loss"] == pytest.approx(4 * shifted, rel=1e-5)


class AddScale(Hook):
    """Adds a parameter to the network, and bakes it in at the end."""

    def start(self, state: State) -> None:
        state.model.register_parameter("gain", nn.Parameter(torch.ones(())))

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:
        return loss + (state.model.gain - 3) ** 2


def test_a_hook_may_add_parameters_that_train() -> None:
    trained = fit(plain(), toy(), Fit(epochs=5, batch_size=32, optimizer=SGD(lr=0.1)), hooks=[AddScale()]).model
    assert abs(trained.gain.item() - 3) < 0.5


class Blow(Hook):
    def step(self, state: State) -> None:
        if state.step == 4:
            with torch.no_grad():
                next(state.model.parameters()).fill_(float("nan"))


def test_divergence_names_the_place_and_the_remedy() -> None:
    with pytest.raises(DivergenceError, match=r"training loss is nan in epoch 2, step 6 of 9: lower the learning rate"):
        fit(plain(), toy(), FAST, hooks=[Blow()])
    data = toy()
    data.train.inputs[3, 0, 0, 0] = float("nan")
    with pytest.raises(DivergenceError, match="clean the data"):
        fit(plain(), data, FAST)


def test_divergence_in_the_last_step_is_found_by_validation() -> None:
    with pytest.raises(DivergenceError, match="validation loss is nan in epoch 1"):
        fit(plain(), toy(n=96), Fit(epochs=1, batch_size=20), hooks=[Blow()])


def test_schedules_are_applied_per_step() -> None:
    seen: list[float] = []

    class Look(Hook):
        def step(self, state: State) -> None:
            seen.append(state.optimizer.param_groups[0]["lr"])

    fit(plain(), toy(n=40), Fit(epochs=2, batch_size=10, optimizer=SGD(lr=0.2), schedule=Cosine(warmup=0.25)), hooks=[Look()])
    assert seen == pytest.approx([0.2 * Cosine(warmup=0.25)((i + 0.5) / 8) for i in range(8)])
    assert min(seen) > 0


@pytest.mark.parametrize("schedule", [Constant(), Cosine(), Cosine(warmup=0.1, floor=0.01), OneCycle(), OneCycle(peak=0.0)])
def test_schedules_stay_in_range_and_reach_one(schedule) -> None:
    values = [schedule(i / 1000) for i in range(1001)]
    assert all(0 <= v <= 1 for v in values)
    assert max(values) == pytest.approx(1.0, abs=1e-4)
    assert all(abs(a - b) < 0.02 for a, b in pairwise(values))


def test_mixed_precision_and_channels_last_train() -> None:
    data = toy()
    reference = fit(convnet(), data, FAST)
    mixed = fit(convnet(), data, Fit(epochs=3, batch_size=32, optimizer=SGD(lr=0.05), precision="bf16-mixed"))
    assert all(p.dtype == torch.float32 for p in mixed.model.parameters())
    assert not same_bits(mixed.model, reference.model)
    assert evaluate(mixed.model, data.test) > 80
    layouts: list[bool] = []

    class Look(Hook):
        def step(self, state: State) -> None:
            layouts.append(state.model[0].weight.is_contiguous(memory_format=torch.channels_last))

    wide = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    a = fit(wide, data, Fit(epochs=1, batch_size=32, optimizer=SGD(lr=0.01), channels_last=True), hooks=[Look()]).model
    b = fit(wide, data, Fit(epochs=1, batch_size=32, optimizer=SGD(lr=0.01))).model
    assert all(layouts)
    assert a[1].weight.is_contiguous()
    torch.testing.assert_close(a[1].weight, b[1].weight, rtol=1e-4, atol=1e-5)


def test_data_without_classes_trains_on_squared_error() -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    split = ToySplit(x, x @ torch.arange(8.0).view(4, 2))
    data = ToyData(split, split, split, 0)
    torch.manual_seed(0)
    history = fit(nn.Linear(4, 2), data, Fit(epochs=20, batch_size=16, optimizer=SGD(lr=0.05, weight_decay=0.0))).history
    assert history[-1]["val_loss"] < 0.01 < history[0]["val_loss"]
    assert "val_accuracy" not in history[0]


def test_label_smoothing_by_hand() -> None:
    outputs, targets = torch.tensor([[0.0, 0.0]]), torch.tensor([0])
    assert CrossEntropy()(outputs, targets).item() == pytest.approx(0.693147, rel=1e-5)
    outputs = torch.tensor([[1.0, 0.0]])
    # -log softmax = (0.313262, 1.313262); smoothing 0.2 over two classes weighs them 0.9 and 0.1.
    assert CrossEntropy(label_smoothing=0.2)(outputs, targets).item() == pytest.approx(0.9 * 0.313262 + 0.1 * 1.313262, rel=1e-5)


def test_no_epochs_give_the_model_back() -> None:
    trained = fit(convnet(), toy(), Fit(epochs=0))
    assert same_bits(trained.model, convnet())
    assert trained.history == ()


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"epochs": 1.5}, {"batch_size": 0}, {"devices": 3}, {"precision": "fp4"}, {"seed": True}])
def test_wrong_settings_are_refused(wrong) -> None:
    with pytest.raises(RecipeError):
        Fit(**wrong)


@pytest.mark.parametrize("build", [lambda: SGD(lr=0.0), lambda: SGD(lr=float("nan")), lambda: SGD(momentum=1.0), lambda: AdamW(betas=(1.0, 0.9)),
                                   lambda: SGD(weight_decay=-1.0), lambda: Cosine(warmup=1.0), lambda: OneCycle(peak=-0.1),
                                   lambda: CrossEntropy(label_smoothing=1.0)])
def test_wrong_pieces_are_refused(build) -> None:
    with pytest.raises(RecipeError):
        build()


def test_an_empty_training_split_is_refused() -> None:
    data = toy()
    empty = ToyData(ToySplit(data.train.inputs[:0], data.train.targets[:0]), data.val, data.test, 3)
    with pytest.raises(DataError, match="empty"):
        fit(plain(), empty, FAST)
