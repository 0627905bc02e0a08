"""Depth, width and resolution together: the polynomial by hand, the search exact, the budget met."""

import itertools

import numpy as np
import pytest

from lilliput import prune, zoo
from lilliput.core import Budget, BudgetError, PreconditionError, RecipeError
from lilliput.graph import profile, trace
from lilliput.graph.branches import Residuals
from lilliput.prune import dimensions
from lilliput.prune.polynomial import Product, regress
from lilliput.train import SGD, Fit, evaluate

QUICK = Fit(epochs=2, batch_size=64, optimizer=SGD(lr=0.02))


def test_a_product_of_polynomials_by_hand():
    product = Product((np.array([1.0, 2.0]), np.array([0.0, 1.0, -1.0]), np.array([3.0])))
    # (1 + 2 * 0.5) * (0.5 - 0.25) * 3
    assert product(np.array([[0.5, 0.5, 7.0]]))[0] == pytest.approx(1.5)


def test_a_product_is_found_again_from_fewer_points_than_a_grid_has():
    truth = Product((np.array([0.2, 1.0, -0.3]), np.array([0.5, 0.8, -0.4]), np.array([0.3, 0.9, -0.2])))
    points = np.array(list(dimensions.Samples(shares=(0.75, 0.5)).points((True, True, True))))
    assert len(points) == 11  # 27 of a grid; 3 + 2 + 2 numbers to find
    found = regress(points, truth(points), 2)
    grid = np.array(list(itertools.product((1.0, 0.75, 0.6, 0.5), repeat=3)))
    np.testing.assert_allclose(found(grid), truth(grid), atol=1e-5)


def test_the_fit_of_one_dimension_is_the_parabola_through_its_points():
    points = np.array([[1.0, 1.0, 1.0], [0.75, 1.0, 1.0], [0.5, 1.0, 1.0]])
    found = regress(points, np.array([90.0, 88.0, 80.0]), 2)
    # Through (1, 90), (0.75, 88), (0.5, 80): second difference -6 over 2 * 0.25^2 gives -48 x^2; then 92 x + 46.
    assert [len(c) for c in found.coefficients] == [3, 1, 1]
    np.testing.assert_allclose(found(points), [90, 88, 80], atol=1e-6)
    assert found(np.array([[0.25, 1.0, 1.0]]))[0] == pytest.approx(-48 * 0.0625 + 92 * 0.25 + 46)


def test_a_dimension_that_does_not_vary_stays_whole():
    points = list(dimensions.Samples(shares=(0.5,)).points((True, True, False)))
    assert points == [(1.0, 1.0, 1.0), (1.0, 0.5, 1.0), (0.5, 1.0, 1.0), (0.5, 0.5, 1.0)]


def chosen(monkeypatch, coefficients, trained, digits, **options):
    monkeypatch.setattr(dimensions, "regress", lambda points, values, degree: Product(tuple(np.array(c, dtype=float) for c in coefficients)))
    monkeypatch.setattr(dimensions.ThreeDimensions, "_accuracy", lambda *_: 0.0)
    samples = prune.Samples(shares=(0.5,), sides=3)
    return prune.three_d(Budget(macs=0.5), collect=None, samples=samples, **options)(trained, digits)


@pytest.mark.parametrize(("what", "coefficients"), [("width", ([1], [0, 1], [1])), ("depth", ([0, 1], [1], [10, 1])), ("resolution", ([1], [1], [2, -1])),
                                                    ("branches", ([2, -1], [1], [0, 0.1]))])
def test_the_polynomial_decides_what_goes(what, coefficients, trained, digits, monkeypatch):
    result = chosen(monkeypatch, coefficients, trained, digits)
    entry, macs = result.report.entries[0], profile(result.model).macs
    scaled = any("upsample" in str(n.target) for n in result.model.graph.nodes)
    branches = len(Residuals(result.model).found)
    assert macs == pytest.approx(entry.measured["macs"])
    assert macs <= 0.5 * profile(trained).macs
    if what == "width":
        # Widest: everything else as small as the search goes.
        assert branches < 3 or scaled
        assert float(entry.notes[0].split("width ")[1].split(",")[0]) > 0.8
    elif what == "depth":
        assert branches == 3
        assert not scaled
    elif what == "resolution":
        assert scaled
        # 4 x 4 takes a quarter of the operations: less than there is to use.
        assert "images scaled to 6 x 6 at the front from 8 x 8" in entry.notes[0]
        assert result.model(digits.example(3)).shape == (3, 10)
    else:
        assert branches < 3


def test_the_maximum_is_that_over_all_that_meets_the_budget(trained, digits, monkeypatch):
    seen = {}
    original = dimensions._feasible

    def kept(space, target):
        seen["space"], seen["found"] = space, original(space, target)
        return seen["found"]

    monkeypatch.setattr(dimensions, "_feasible", kept)
    coefficients = ([0.1, 0.9], [0.2, 0.8], [0.3, 0.7])
    result = chosen(monkeypatch, coefficients, trained, digits)
    space, found = seen["space"], seen["found"]
    product = Product(tuple(np.array(c) for c in coefficients))
    values = [float(product(np.array([space.shares(*row[:3])]))[0]) for row in found]
    best = found[int(np.argmax(values))]
    assert len(found) >= 3
    assert f"depth {3 - best[0]} of 3 branches, width {1 - best[1]:.3f}, images scaled to {best[2][0]} x {best[2][1]}" in result.report.entries[0].notes[0]
    limit = 0.5 * profile(trained).macs
    for gone, amount, size, keep in found:
        small = space.plans[size].apply(keep, space.networks[size])
        assert 0.97 * limit <= profile(small).macs <= limit
        assert space.nearest(space.shares(gone, amount, size)) == (gone, amount, size)


def test_networks_bound_to_their_resolution_keep_it_and_say_why(digits):
    network = trace(zoo.create("vit_tiny", num_classes=10, in_chans=1, seed=0, options={"image_size": 8, "dim": 16, "depth": 2, "heads": 4}), digits.example())
    result = prune.three_d(Budget(macs=0.6), collect=None)(network, digits)
    assert any(note.startswith("the resolution stays: the network is bound to its resolution") for note in result.report.entries[0].notes)
    assert "from 8 x 8" in result.report.entries[0].notes[0]
    assert profile(result.model).macs <= 0.6 * profile(network).macs


def test_fitted_to_short_trainings_it_beats_random_channels(trained, digits):
    budget = Budget(macs=0.25)
    result = prune.three_d(budget, collect=QUICK, fine_tune=QUICK, samples=prune.Samples(shares=(0.6,), sides=2))(trained, digits)
    promised = float(result.report.entries[0].notes[1].rpartition("promises ")[2])
    ours, random = (evaluate(model, digits.val) for model in (result.model, prune.random(budget, fine_tune=QUICK)(trained, digits).model))
    assert ours >= random
    assert abs(ours - promised) < 6


def test_what_it_needs(trained, digits):
    with pytest.raises(PreconditionError, match="pass data="):
        prune.three_d(Budget(macs=0.5))(trained, None)
    with pytest.raises(RecipeError, match="shares lie in"):
        prune.Samples(shares=(1.5,))
    with pytest.raises(BudgetError, match="cannot be met"):
        prune.three_d(Budget(macs=100), collect=None)(trained, digits)
