"""Pruning layer by layer: real inputs, budgets and patterns of whole networks, and what is left alone."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lilliput import zoo
from lilliput.core import Budget, BudgetError, PreconditionError
from lilliput.data import from_arrays
from lilliput.graph import trace
from lilliput.prune import Element, layerwise_obs, obc, obs, sparsegpt, wanda
from lilliput.prune.patterns import NM, Rows
from lilliput.prune.solvers import Wanda
from lilliput.prune.surgeon import ExactOBS

RECIPES = (obs, layerwise_obs, obc, sparsegpt, wanda)


def arrays(*shape, samples=120, classes=4):
    """Samples whose features have much in common."""
    random = np.random.default_rng(0)
    x = random.normal(size=(samples, *shape[:-1], shape[-1])) + 2 * random.normal(size=(samples, *([1] * len(shape))))
    return from_arrays("arrays", torch.tensor(x, dtype=torch.float32), torch.arange(samples) % classes)


@dataclass(frozen=True)
class Ids:
    """Windows of token numbers, and the next ones."""

    inputs: torch.Tensor
    num_classes: int = 7
    name: str = "ids"
    digest: str = "0"

    @property
    def train(self):
        return self

    def __len__(self):
        return len(self.inputs)

    def batches(self, size, *, seed=None):
        for part in self.inputs.split(size):
            yield part, part

    def head(self, count):
        return Ids(self.inputs[:count])

    def example(self, n=2):
        return self.inputs[:n]


def inputs_of(data):
    return next(data.train.batches(len(data.train)))[0]


def weight(result, name):
    return result.model.tensor(name).detach()


@pytest.mark.parametrize("damping", [1e-4, 1e-12])
def test_a_linear_layer_becomes_the_least_squares_optimum(damping):
    data = arrays(8)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 5))
    step = replace(obs(Budget(params=25)), solver=ExactOBS(damping=damping))
    assert obs(Budget(params=25)).solver == ExactOBS(damping=1e-4)
    found = weight(step(model, data), "0.weight").double().numpy()
    assert int((found != 0).sum()) == 20
    x, dense = inputs_of(data).double().numpy(), model[0].weight.detach().double().numpy()
    # Damping is as if there were more samples, one to an input.
    extra = np.sqrt(damping * (x**2).sum(0).mean()) * np.eye(8)
    x = np.concatenate([x, extra])
    for row, whole in zip(found, dense, strict=True):
        stay = np.flatnonzero(row)
        expected = np.linalg.lstsq(x[:, stay], x @ whole, rcond=None)[0]
        np.testing.assert_allclose(row[stay], expected, atol=1e-6)


def test_each_layer_sees_what_the_pruned_ones_give():
    data = arrays(8)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))
    result = wanda(pattern=NM(n=2, m=4), samples=40)(model, data)
    assert [row["sparsity"] for row in result.report.entries[0].layers] == [0.5, 0.5]
    x = next(data.train.head(40).batches(40))[0]
    hidden = F.relu(F.linear(x, weight(result, "0.weight"), model[0].bias))
    rows = model[2].weight.detach().double()[None]
    hessian = 2 * (hidden.double().T @ hidden.double())[None] / 40
    expected = Wanda()(rows, hessian, NM(n=2, m=4), 24)[0][0]
    torch.testing.assert_close(weight(result, "2.weight").double(), expected)
    lost = float(((expected - rows[0]) @ hessian[0] * (expected - rows[0])).sum() / (rows[0] @ hessian[0] * rows[0]).sum())
    assert result.report.entries[0].layers[1]["output_error"] == pytest.approx(lost, rel=1e-4)


class Branches(nn.Module):
    """A grouped, a depthwise and a transposed convolution, two layers with one weight, norms and dropout."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.grouped, self.depthwise = nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 2, groups=8)
        self.up, self.shared, self.head = nn.ConvTranspose2d(8, 8, 2), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = self.up(F.relu(self.depthwise(F.relu(self.grouped(x))))).mean((2, 3))
        return self.head(F.dropout(F.relu(self.shared(F.relu(self.shared(x)))), training=self.training))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_kind_of_layer(recipe):
    data = arrays(3, 6, 6)
    torch.manual_seed(0)
    model = Branches().eval()
    before = copy.deepcopy(model.state_dict())
    result = recipe(Budget(params=0.6), samples=64)(model, data)
    entry = result.report.entries[0]
    assert entry.measured["params"] <= entry.promised["params"]
    assert [row["layer"] for row in entry.layers] == ["stem", "grouped", "depthwise", "head"]
    assert all(0 < row["output_error"] < 1 for row in entry.layers)
    for name in ("shared", "up"):
        assert torch.equal(weight(result, f"{name}.weight"), before[f"{name}.weight"])
        assert any(note.startswith(f"{name} stays whole") for note in entry.notes)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(result.model.tensor("norm.running_mean"), before["norm.running_mean"])
    assert torch.isfinite(result.model(inputs_of(data))).all()


@pytest.mark.parametrize("recipe", [obc, sparsegpt, wanda])
def test_n_of_every_m_input_channels_at_each_position(recipe):
    data = arrays(3, 6, 6)
    torch.manual_seed(0)
    result = recipe(pattern=NM(n=1, m=4), samples=64)(Branches().eval(), data)
    entry = result.report.entries[0]
    assert [row["layer"] for row in entry.layers] == ["grouped", "head"]
    assert any("stem stays whole: its 3 input channels do not divide into parts of 4" in note for note in entry.notes)
    for name in ("grouped", "head"):
        found = weight(result, f"{name}.weight")
        parts = (found != 0).flatten(2).movedim(1, -1) if found.ndim > 2 else (found != 0)
        assert (parts.reshape(-1, 4).sum(1) == 1).all()
    assert entry.promised == {}


def test_a_weight_under_two_names_stays_whole():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix, self.head = nn.Embedding(6, 8), nn.Linear(8, 8), nn.Linear(8, 6, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(F.gelu(self.mix(self.embed(x))))

    data = Ids(torch.randint(0, 6, (40, 5)))
    result = sparsegpt(pattern=NM())(Tied(), data)
    assert [row["layer"] for row in result.report.entries[0].layers] == ["mix"]
    assert float((weight(result, "mix.weight") == 0).float().mean()) == 0.5


@pytest.mark.parametrize("recipe", [sparsegpt, wanda])
def test_language_models_keep_two_of_four(recipe):
    data = Ids(torch.randint(0, 7, (64, 6)))
    model = zoo.create("decoder", num_classes=7, in_chans=6, seed=0, options={"dim": 16, "depth": 1, "heads": 2})
    result = recipe(pattern=NM(), unit=Element(exclude=("head",)))(model, data)
    rows = result.report.entries[0].layers
    assert [row["layer"] for row in rows] == ["blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2"]
    assert all(row["sparsity"] == 0.5 for row in rows)
    assert not any("head" in note for note in result.report.entries[0].notes)


def test_inputs_that_never_come_cost_nothing_and_what_stays_of_them_is_unchanged():
    x = inputs_of(arrays(8)).clone()
    x[:, :3] = 0
    data = from_arrays("dark", x, torch.arange(len(x)) % 4)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4))
    for recipe in RECIPES:
        few = weight(recipe(Budget(params=30))(model, data), "0.weight")
        assert int((few == 0).sum()) == 6
        assert torch.equal(few[:, 3:], model[0].weight.detach()[:, 3:])
        stays = few[:, :3] != 0
        assert torch.equal(few[:, :3][stays], model[0].weight.detach()[:, :3][stays])


def test_what_is_asked_for_must_be_said_and_possible():
    data = arrays(8)
    model = nn.Sequential(nn.Linear(8, 4))
    with pytest.raises(PreconditionError, match="not told how much goes"):
        sparsegpt()(model, data)
    with pytest.raises(PreconditionError, match="pass data="):
        wanda(Budget(params=0.5))(trace(model, torch.zeros(2, 8)), None)
    with pytest.raises(BudgetError, match=r"cannot be met: the least this network allows is 20 with NM\(n=2, m=4\)"):
        wanda(Budget(params=0.5), pattern=NM())(model, data)
    with pytest.raises(BudgetError, match="finds nothing in this network to prune"):
        wanda(pattern=NM(n=1, m=3))(model, data)
    result = wanda(Budget(params=0.7), pattern=NM())(model, data)
    assert result.report.entries[0].measured == {"params": 20}
    assert "Rows()" in wanda(Budget(params=0.7), pattern=Rows())(model, data).report.entries[0].recipe
