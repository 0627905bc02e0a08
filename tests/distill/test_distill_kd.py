import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lilliput.core import Report
from lilliput.core.errors import PreconditionError, RecipeError, UnknownNameError
from lilliput.distill import Distil, Distillation, Pair, SoftKL, View, kd, kl_soft, logits
from lilliput.graph.trace import Traced, trace
from lilliput.train import SGD, Fit, Hook, State, fit


@dataclass(frozen=True)
class BlobSplit:
    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, size: int, *, seed: int | None = None, epoch: int = 0, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for part in order.split(size * world):
            yield self.inputs[part[rank::world]], self.targets[part[rank::world]]

    def head(self, count: int) -> "BlobSplit":
        return BlobSplit(self.inputs[:count], self.targets[:count])


@dataclass(frozen=True)
class Blobs:
    train: BlobSplit
    val: BlobSplit
    test: BlobSplit
    num_classes: int = 3
    name: str = "blobs"
    digest: str = "blobs"

    def example(self, n: int = 2) -> Tensor:
        return self.val.inputs[:n]


def blobs(classes: int = 3) -> Blobs:
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(3, 1, 6, 6, generator=generator)

    def split(count: int) -> BlobSplit:
        targets = torch.randint(3, (count,), generator=generator)
        return BlobSplit(places[targets] + torch.randn(count, 1, 6, 6, generator=generator), targets)

    return Blobs(split(96), split(48), split(48), classes)


def network(width: int = 4, classes: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(36 * width, classes))


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


FAST = Fit(epochs=2, batch_size=32, optimizer=SGD(lr=0.02))


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return fit(network(width=8, seed=5), blobs(), Fit(epochs=4, batch_size=32, optimizer=SGD(lr=0.05))).model


def test_divergence_by_hand() -> None:
    # Teacher (ln 9, 0) at T=1: p = (0.9, 0.1). Student (0, 0): q = (0.5, 0.5). KL = 0.9 ln 1.8 + 0.1 ln 0.2 = 0.368064.
    teacher, student = torch.tensor([[math.log(9.0), 0.0]]), torch.zeros(1, 2)
    assert kl_soft(teacher, student, 1.0).item() == pytest.approx(0.368064, abs=1e-6)
    # At T=2 the teacher's odds are sqrt(9) = 3: p = (0.75, 0.25), KL = 0.75 ln 1.5 + 0.25 ln 0.5 = 0.130812, times T^2 = 4.
    assert kl_soft(teacher, student, 2.0).item() == pytest.approx(4 * 0.130812, abs=1e-5)
    both = kl_soft(torch.cat([teacher, student]), torch.zeros(2, 2), 1.0)
    assert both.item() == pytest.approx(0.368064 / 2, abs=1e-6)


@given(st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=2, max_size=2), st.floats(0.5, 20))
def test_divergence_is_not_negative_and_ignores_shifts(rows: list[list[float]], temperature: float) -> None:
    a, b = (torch.tensor([row], dtype=torch.float64) for row in rows)
    value = kl_soft(a, b, temperature)
    assert value >= -1e-9
    assert kl_soft(a, a, temperature).item() == pytest.approx(0, abs=1e-9)
    assert kl_soft(a + 3, b - 2, temperature).item() == pytest.approx(value.item(), abs=1e-6)


def test_at_high_temperature_it_is_half_the_squared_distance_of_centred_logits() -> None:
    a, b = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    difference = (a - a.mean(1, keepdim=True)) - (b - b.mean(1, keepdim=True))
    expected = (difference**2).sum(1).mean() / (2 * 4)
    assert kl_soft(a, b, 1e4).item() == pytest.approx(expected.item(), rel=1e-3)


class Losses(Hook):
    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:
        self.seen.append((state.inputs, state.targets, outputs.detach(), loss.detach()))
        return loss


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_the_published_sum(teacher: nn.Module, weight: float) -> None:
    after = Losses()
    fit(network(), blobs(), FAST, hooks=[Distil(teacher, distance=SoftKL(temperature=3.0), weight=weight), after])
    still = copy.deepcopy(teacher).eval()
    for inputs, targets, outputs, loss in after.seen:
        task = nn.functional.cross_entropy(outputs, targets)
        with torch.no_grad():
            p = (still(inputs) / 3).softmax(1)
        soft = (p * (p.log() - (outputs / 3).log_softmax(1))).sum(1).mean()
        assert loss.item() == pytest.approx(((1 - weight) * task + weight * 9 * soft).item(), rel=1e-4)
    assert len(after.seen) == 6


def test_the_teacher_stays_as_it_was_and_gets_no_gradient(teacher: nn.Module) -> None:
    teacher = copy.deepcopy(teacher).train().requires_grad_(True)
    before = bits(teacher)
    student = network()
    initial = bits(student)
    result = kd(teacher=teacher, fit=FAST)(student, blobs())
    assert same_bits(bits(teacher), before)
    assert same_bits(bits(student), initial)
    assert teacher.training
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())
    assert isinstance(result.model, Traced)
    assert {name for name, _ in result.model.named_parameters()} == {name for name, _ in student.named_parameters()}


def test_the_student_comes_to_agree_with_its_teacher(teacher: nn.Module) -> None:
    data, config = blobs(), Fit(epochs=8, batch_size=32, optimizer=SGD(lr=0.02))
    taught = kd(teacher=teacher, weight=1.0, temperature=2.0, fit=config)(network(), data).model.eval()
    alone = fit(network(), data, config).model.eval()
    with torch.no_grad():
        target = teacher.eval()(data.train.inputs)
        start, near, far = (kl_soft(target, model.eval()(data.train.inputs), 2.0).item() for model in (network(), taught, alone))
    assert near < 0.2 * start
    assert near < far


def test_it_is_deterministic_under_a_seed(teacher: nn.Module) -> None:
    first, second = (kd(teacher=teacher, fit=FAST)(network(), blobs()).model for _ in range(2))
    other = kd(teacher=teacher, fit=Fit(epochs=2, batch_size=32, optimizer=SGD(lr=0.02), seed=1))(network(), blobs()).model
    assert same_bits(bits(first), bits(second))
    assert not same_bits(bits(first), bits(other))


def test_the_entry_tells_what_happened(teacher: nn.Module) -> None:
    step = kd(teacher=teacher, temperature=2.5, fit=FAST)
    result = step(network(), blobs())
    (entry,) = result.report.entries
    assert entry.method == "distill.kd"
    assert entry.recipe == repr(step)
    assert len(entry.recipe) < 700
    for part in ("Sequential(", "parameters, sha256", "knowledge=logits", "SoftKL(temperature=2.5)", "weight=0.9", "Fit(epochs=2"):
        assert part in entry.recipe
    assert " at 0x" not in entry.recipe
    assert {row["layer"] for row in entry.layers} == {"0", "5"}
    assert all(row["relative_change"] > 0 for row in entry.layers)
    assert 0 <= entry.metrics["accuracy"] <= 100
    assert Report.from_json(result.report.to_json()) == result.report


def test_a_teacher_worse_than_its_student_is_noted(teacher: nn.Module) -> None:
    fresh = kd(teacher=network(seed=3), fit=FAST)(teacher, blobs())
    assert any("worse than the student" in note for note in fresh.report.entries[0].notes)


def test_other_classes_are_refused(teacher: nn.Module) -> None:
    with pytest.raises(PreconditionError, match="same classes"):
        kd(teacher=network(classes=5), fit=FAST)(network(), blobs())
    with pytest.raises(PreconditionError, match="same classes"):
        kd(teacher=network(classes=2), fit=FAST)(network(), blobs())
    with pytest.raises(PreconditionError, match="no classes"):
        kd(teacher=teacher, fit=FAST)(network(), blobs(classes=0))


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"temperature": float("nan")}, {"weight": 1.1}, {"weight": -0.1}])
def test_wrong_settings_are_refused_when_the_recipe_is_written(teacher: nn.Module, wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError):
        kd(teacher=teacher, **wrong)


@dataclass(frozen=True)
class Inner:
    """Knowledge of inner values, which later methods build on."""

    teacher_nodes: tuple[str, ...]
    student_nodes: tuple[str, ...]

    def __call__(self, teacher: View, student: View, batch: tuple[Tensor, Tensor]) -> tuple[Pair, ...]:
        names = zip(self.teacher_nodes, self.student_nodes, strict=True)
        return tuple(Pair(teacher.features[a], student.features[b]) for a, b in names)


class Widen(nn.Module):
    """A matcher that trains: the student's channels to the teacher's."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(4, 8, 1)
        self.calls: list[float] = []

    def forward(self, pair: Pair) -> Pair:
        self.calls.append(self.project.weight.sum().item())
        return Pair(pair.teacher, self.project(pair.student))


@dataclass(frozen=True)
class Squared:
    def __call__(self, pair: Pair) -> Tensor:
        return nn.functional.mse_loss(pair.student, pair.teacher)


def test_the_frame_takes_inner_values_and_a_matcher_that_trains(teacher: nn.Module) -> None:
    data, student = blobs(), network()
    example = data.example()
    name = next(n.name for n in trace(student, example).graph.nodes if "relu" in n.name)
    matcher = Widen()
    step = Distillation(teacher=teacher, knowledge=Inner((name,), (name,)), matcher=matcher, distance=Squared(), fit=FAST, method="distill.test")
    result = step(student, data)
    assert matcher.calls == []
    assert {n for n, _ in result.model.named_modules()} == {n for n, _ in trace(student, example).named_modules()}
    assert result.model.state_dict().keys() == trace(student, example).state_dict().keys()
    assert not any(node.op == "call_module" for node in result.model.graph.nodes)
    assert result.model(example).shape == (2, 3)
    plain = fit(trace(student, example), data, FAST).model
    assert not torch.equal(plain.state_dict()["0.weight"], result.model.state_dict()["0.weight"])


def test_a_matcher_that_trains_moves(teacher: nn.Module) -> None:
    data, student = blobs(), trace(network(), blobs().example())
    name = next(n.name for n in student.graph.nodes if "relu" in n.name)
    weights: list[Tensor] = []

    class Look(Hook):
        def step(self, state: State) -> None:
            weights.append(state.model.distil_matcher.project.weight.detach().clone())

    hook = Distil(trace(teacher, data.example()), knowledge=Inner((name,), (name,)), matcher=Widen(), distance=Squared())
    fit(student, data, FAST, hooks=[hook, Look()])
    assert len(weights) == 6
    assert not torch.equal(weights[0], weights[-1])


def test_unknown_nodes_are_named_with_their_neighbours(teacher: nn.Module) -> None:
    step = Distillation(teacher=teacher, knowledge=Inner(("relu_9",), ("relu",)), fit=FAST)
    with pytest.raises(UnknownNameError, match=r"relu_9.*did you mean"):
        step(network(), blobs())


def test_outside_the_loop_the_hook_says_where_it_belongs(teacher: nn.Module) -> None:
    with pytest.raises(PreconditionError, match="hooks="):
        Distil(teacher).loss(None, torch.zeros(1), torch.zeros(()))


def test_the_hook_learns_with_two_processes(teacher: nn.Module) -> None:
    data = blobs()
    student = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    traced, big = trace(student, data.example()), trace(teacher, data.example())
    runs = [fit(traced, data, Fit(epochs=1, batch_size=32, optimizer=SGD(lr=0.02), devices=n), hooks=[Distil(big)]).model for n in (1, 2)]
    torch.testing.assert_close(runs[0].state_dict()["1.weight"], runs[1].state_dict()["1.weight"], rtol=1e-4, atol=1e-6)


def test_logits_are_the_outputs() -> None:
    x = torch.zeros(2, 3)
    assert logits(View(outputs=x), View(outputs=x + 1), (x, x))[0].student is not x
    assert logits(View(outputs=x), View(outputs=x + 1), (x, x))[0].teacher is x
