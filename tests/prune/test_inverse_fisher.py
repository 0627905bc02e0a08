"""The inverse empirical Fisher matrix against the dense one, and what its removals cost and make up for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lilliput import data
from lilliput.core import Budget, RecipeError
from lilliput.data import from_arrays
from lilliput.graph import profile, trace
from lilliput.prune import Gradual, Layer, Stats, mfac, woodfisher
from lilliput.prune.inverse_fisher import BlockFisher, Compensate, MatrixFreeFisher, RemovalCost
from lilliput.prune.statistics import gather
from lilliput.train import SGD, Fit, fit, loss_of

GRADIENTS = torch.randn(10, 24, generator=torch.Generator().manual_seed(0)).double()


def dense(gradients, damping):
    g = gradients.numpy()
    return np.linalg.inv(damping * np.eye(g.shape[1]) + g.T @ g / len(g))


@pytest.fixture
def small():
    """A network of two layers without biases, and 48 samples of three classes."""
    random = np.random.default_rng(0)
    arrays = from_arrays("clouds", torch.tensor(random.normal(size=(60, 4)), dtype=torch.float32), torch.arange(60) % 3)
    torch.manual_seed(0)
    return trace(nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)), arrays.example()), arrays


@pytest.fixture(scope="module")
def digits():
    found = data.load("digits")
    torch.manual_seed(0)
    model = trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10)), found.example())
    return fit(model, found, Fit(epochs=3, batch_size=32, optimizer=SGD(lr=0.05)), progress=False).model.eval(), found


@pytest.mark.parametrize("damping", [1e-3, 1.0])
@pytest.mark.parametrize("block", [7, 24, 64])
def test_blocks_are_those_of_the_dense_inverse(block, damping):
    fisher = BlockFisher(block=block, damping=damping)
    found, weight = fisher.inverse(GRADIENTS), torch.zeros(4, 6)
    vector = torch.randn(4, 6).double()
    product = fisher.product({"w": found}, {"w": vector})["w"].flatten()
    for i, start in enumerate(range(0, 24, block)):
        part = GRADIENTS[:, start: start + block]
        expected, size = dense(part, damping), part.shape[1]
        np.testing.assert_allclose(found[i, :size, :size], expected, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(fisher.diagonal(found, weight).flatten()[start: start + block], expected.diagonal(), rtol=1e-7)
        wanted = expected @ vector.flatten()[start: start + block].numpy()
        np.testing.assert_allclose(product[start: start + block], wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_vectors_are_the_whole_dense_inverse(damping):
    fisher = MatrixFreeFisher(damping=damping)
    vectors = fisher.vectors(GRADIENTS)
    found = {"a": vectors[:, :18], "b": vectors[:, 18:]}
    expected, wanted = dense(GRADIENTS, damping), torch.randn(24).double()
    product = fisher.product(found, {"a": wanted[:18].reshape(3, 6), "b": wanted[18:].reshape(6, 1)})
    joined = torch.cat([part.flatten() for part in product.values()])
    np.testing.assert_allclose(joined, expected @ wanted.numpy(), rtol=1e-6, atol=1e-8)
    diagonal = torch.cat([fisher.diagonal(part, torch.zeros(part.shape[1])) for part in found.values()])
    np.testing.assert_allclose(diagonal, expected.diagonal(), rtol=1e-7)
    assert (product["a"].shape, product["b"].shape) == ((3, 6), (6, 1))


def test_gradients_are_those_of_small_batches_and_zero_for_what_has_gone(small):
    traced, arrays = small
    weight = traced.tensor("0.weight").detach().clone()
    weight[1, 2] = 0
    traced.set_tensor("0.weight", weight)
    found = BlockFisher(batches=3, batch_size=5).gradients(traced, arrays, 7)
    assert (found["0.weight"].shape, found["2.weight"].shape) == ((3, 20), (3, 15))
    batches = arrays.train.batches(5, seed=7)
    for row in found["0.weight"]:
        inputs, targets = next(batches)
        free = weight.clone().requires_grad_()
        loss = loss_of(arrays)(torch.relu(inputs @ free.T) @ traced.tensor("2.weight").detach().T, targets)
        (slope,) = torch.autograd.grad(loss, free)
        slope[1, 2] = 0
        torch.testing.assert_close(row, slope.flatten().double())


@pytest.mark.parametrize("fisher", [BlockFisher(block=64, batches=12, batch_size=4, damping=1e-2),
                                    MatrixFreeFisher(batches=12, batch_size=4, damping=1e-2)], ids=lambda f: type(f).__name__)
def test_one_removal_is_the_optimum_of_the_quadratic_model(fisher, small):
    traced, arrays = small
    stats = gather(traced, arrays, RemovalCost(fisher=fisher).needs)
    name = "2.weight"
    weight = traced.tensor(name).detach().double()
    masks = {name: torch.ones(3, 5, dtype=torch.bool)}
    masks[name][1, 3] = False
    found = Compensate(fisher=fisher)(traced, stats, masks)[name].double().flatten().numpy()
    gradients = fisher.gradients(traced, arrays, 0)
    rows = gradients[name] if isinstance(fisher, BlockFisher) else torch.cat([gradients["0.weight"], gradients[name]], 1)
    matrix = np.linalg.inv(dense(rows, fisher.damping))
    place, size = (8, 15) if isinstance(fisher, BlockFisher) else (28, 35)
    # The least d' F d / 2 with d[place] = -w[place]: by the row of the inverse.
    inverse = np.linalg.inv(matrix)
    change = -float(weight[1, 3]) / inverse[place, place] * inverse[place]
    np.testing.assert_allclose(found, weight.flatten().numpy() + change[size - 15:], atol=1e-6)
    cost = RemovalCost(fisher=fisher)(Layer(name=name, weight=traced.tensor(name).detach()), stats)
    assert float(cost[1, 3]) == pytest.approx(0.5 * change @ matrix @ change, rel=1e-5)


def test_two_removals_are_the_sum_of_both_by_hand(small):
    traced, _ = small
    # The inverse of two weights is (2, 1; 1, 4), the weights are 3 and 2 (and 5 is in a block of its own).
    fisher = BlockFisher(block=2)
    traced.set_tensor("0.weight", torch.tensor([[3.0, 2.0, 5.0]]))
    stats = Stats(values={fisher: {"0.weight": torch.tensor([[[2.0, 1.0], [1.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]]).double()}})

    def left(*mask):
        return Compensate(fisher=fisher)(traced, stats, {"0.weight": torch.tensor([mask])})["0.weight"].tolist()

    assert left(False, True, True) == [[0, 2 - 1.5, 5]]
    assert left(True, False, True) == [[3 - 0.5, 0, 5]]
    assert left(False, False, True) == [[0, 0, 5]]
    cost = RemovalCost(fisher=fisher)(Layer(name="0.weight", weight=traced.tensor("0.weight").detach()), stats)
    assert cost.tolist() == [[9 / 4, 4 / 8, 25 / 2]]


def loss(result, found):
    inputs, targets = next(found.val.batches(1000))
    with torch.no_grad():
        return float(loss_of(found)(result.model.eval()(inputs), targets))


@pytest.mark.parametrize("recipe", [woodfisher, mfac])
def test_making_up_for_removals_helps(recipe, digits):
    model, found = digits
    step = recipe(Budget(params=0.4))
    assert loss(step(model, found), found) < loss(replace(step, compensate=None)(model, found), found)


@pytest.mark.parametrize("recipe", [woodfisher, mfac])
def test_gradually_while_training(recipe, digits):
    model, found = digits
    fisher = replace(recipe(Budget(params=0.2)).criterion.fisher, batches=8)
    training = Fit(epochs=1, batch_size=32, optimizer=SGD(lr=0.01))
    step = recipe(Budget(params=0.2), schedule=Gradual(updates=3), fine_tune=training, fisher=fisher)
    result = step(model, found)
    left = sum(int((p != 0).sum()) for p in result.model.parameters() if p.ndim > 1) + 34
    assert 0.99 * 0.2 * profile(model).params <= left <= 0.2 * profile(model).params
    assert loss(result, found) < 0.6


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(RecipeError, match="positive number"):
        MatrixFreeFisher(damping=0.0)
    with pytest.raises(RecipeError, match="one weight or more"):
        BlockFisher(block=0)
