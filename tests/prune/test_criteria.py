"""Criteria, allocations and schedules on numbers worked out by hand."""

import numpy as np
import pytest
import torch

from lilliput import data
from lilliput.graph import trace
from lilliput.prune import GeometricMedian, Gradual, Layer, Magnitude, NormScale, Random, Stats, Taylor
from lilliput.prune.allocation import global_threshold, uniform
from lilliput.prune.schedules import cubic, linear
from lilliput.prune.statistics import SquaredProduct, gather

FILTERS = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])


def test_magnitude_by_hand():
    layer = Layer(name="w", weight=FILTERS)
    assert Magnitude(1.0)(layer, Stats()).sum(1).tolist() == [7.0, 1.0, 0.0]
    assert Magnitude(2.0)(layer, Stats()).sum(1).tolist() == [25.0, 1.0, 0.0]
    assert NormScale()(Layer(name="g", weight=torch.tensor([-2.0, 0.5])), Stats()).tolist() == [2.0, 0.5]


def test_geometric_median_by_hand():
    # Distances: |f0 - f1| = sqrt(9 + 9), |f0 - f2| = 5, |f1 - f2| = 1.
    scores = GeometricMedian()(Layer(name="w", weight=FILTERS), Stats())
    assert scores.tolist() == pytest.approx([18**0.5 + 5, 18**0.5 + 1, 6.0], rel=1e-5)


def test_taylor_is_the_squared_product_of_weight_and_gradient():
    digits = data.load("digits")
    traced = trace(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), digits.example())
    criterion = Taylor(products=SquaredProduct(batches=2, batch_size=16))
    stats = gather(traced, digits, criterion.needs)
    expected = torch.zeros(10, 64)
    batches = digits.train.batches(16, seed=0)
    for _ in range(2):
        x, y = next(batches)
        weight = traced.tensor("1.weight").detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(x.flatten(1) @ weight.T + traced.tensor("1.bias"), y)
        (gradient,) = torch.autograd.grad(loss, weight)
        expected += (weight.detach() * gradient).square() / 2
    scores = criterion(Layer(name="1.weight", weight=traced.tensor("1.weight").detach()), stats)
    torch.testing.assert_close(scores, expected)


def test_random_is_fixed_by_seed_and_layer():
    layer = Layer(name="w", weight=FILTERS)
    assert torch.equal(Random()(layer, Stats(seed=1)), Random()(layer, Stats(seed=1)))
    assert not torch.equal(Random()(layer, Stats(seed=1)), Random()(layer, Stats(seed=2)))
    assert not torch.equal(Random()(layer, Stats()), Random()(Layer(name="v", weight=FILTERS), Stats()))


def test_allocations_by_hand():
    scores = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 0.5])]
    assert uniform(scores, 0.5).tolist() == [0.5, 0.5]
    assert global_threshold(scores, 0.5).tolist() == [0.5, 0.5]  # the three lowest of six: 0.5, 1, 2
    assert global_threshold(scores, 1 / 3).tolist() == [0.25, 0.5]
    assert global_threshold(scores, 0.0).tolist() == [0.0, 0.0]


def test_schedules():
    assert (cubic(0.0), cubic(0.5), cubic(1.0)) == (0.0, 0.875, 1.0)
    assert linear(0.3) == 0.3
    gradual = Gradual(start=0.2, end=0.6, updates=4)
    assert gradual.fraction(0.1) == 0.0
    assert gradual.fraction(0.4) == 0.875
    assert gradual.fraction(0.9) == 1.0
    steps = [gradual.fraction(t / 100) for t in range(101)]
    assert steps == sorted(steps)
    assert len(set(steps)) == 5
