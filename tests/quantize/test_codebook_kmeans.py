"""k-means: exact in one dimension, never worse from step to step, weighed, and the same for the same seed."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize.sharing import Density, Exact, Linear, Lloyd, PlusPlus, Random
from lilliput.quantize.sharing.kmeans import assign, iterate, optimal


def error(values, masses, centroids):
    return float((masses * ((values[:, None] - np.asarray(centroids)[None, :]) ** 2).min(1)).sum())


def brute_force(values, masses, count):
    """The least error over all ways to cut the sorted values into runs."""
    order = np.argsort(values)
    x, w = values[order], masses[order]
    best = np.inf
    for cuts in combinations(range(1, len(x)), min(count, len(x)) - 1):
        ends = [0, *cuts, len(x)]
        total = 0.0
        for a, b in pairwise(ends):
            mean = np.average(x[a:b], weights=w[a:b])
            total += float((w[a:b] * (x[a:b] - mean) ** 2).sum())
        best = min(best, total)
    return best


NUMBERS = st.floats(-100, 100, allow_nan=False, width=32).map(lambda v: round(v, 3))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(NUMBERS, st.floats(0.1, 10)), min_size=1, max_size=8), st.integers(1, 4))
def test_dynamic_programming_finds_the_least_error(pairs, count):
    values, masses = (np.array(part, np.float64) for part in zip(*pairs, strict=True))
    found = optimal(values, count, masses)
    assert len(found) <= count
    assert (np.diff(found) > 0).all()
    wanted = brute_force(values, masses, count)
    slack = 1e-6 * (1 + np.abs(values).max() ** 2) * masses.sum()
    assert error(values, masses, found) == pytest.approx(wanted, rel=1e-6, abs=slack)


def test_two_clusters_by_hand():
    found = Exact()(torch.tensor([[1.0], [2.0], [10.0], [12.0], [14.0]]), 2)
    assert found.table.flatten().tolist() == [1.5, 12.0]
    assert found.codes.tolist() == [0, 0, 1, 1, 1]


def test_weights_of_zero_do_not_count():
    values = np.array([0.0, 1.0, 50.0, 10.0])
    assert optimal(values, 2, np.array([1.0, 1.0, 0.0, 1.0])).tolist() == [0.5, 10.0]
    assert optimal(values, 2, np.zeros(4)).size == 2


@pytest.mark.parametrize("count", [2, 4, 16])
@pytest.mark.parametrize("weighed", [False, True])
def test_exact_is_never_worse_than_lloyd_from_any_start(count, weighed):
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(700, 1, generator=generator, dtype=torch.float64)
    weights = torch.rand(700, 1, generator=generator, dtype=torch.float64) if weighed else None

    def total(found):
        squares = (values - found.table[found.codes]).square()
        return float((squares if weights is None else squares * weights).sum())

    best = total(Exact()(values, count, weights))
    for initial in (Linear(), Density(), Random(), PlusPlus()):
        assert best <= total(Lloyd(initial=initial)(values, count, weights)) * (1 + 1e-12)


def test_many_values_go_through_bins_and_end_near_the_best():
    values = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, finer = (Exact(points=points)(values, 8) for points in (256, 2048))
    errors = [float((values - f.table[f.codes]).square().sum()) for f in (found, finer)]
    assert errors[0] == pytest.approx(errors[1], rel=2e-3)


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("weighed", [False, True])
def test_error_never_rises(d, weighed):
    generator = torch.Generator().manual_seed(d)
    vectors = torch.randn(300, d, generator=generator, dtype=torch.float64)
    weights = torch.rand(300, d, generator=generator, dtype=torch.float64) + 0.01 if weighed else None
    start = vectors[:12].clone()
    errors = []
    for rounds in range(6):
        found = iterate(vectors, start, weights, rounds)
        squares = (vectors - found.table[found.codes]).square()
        errors.append(float((squares if weights is None else squares * weights).sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_assignment_is_nearest_under_the_weights():
    generator = torch.Generator().manual_seed(0)
    vectors, table = torch.randn(50, 4, generator=generator).double(), torch.randn(7, 4, generator=generator).double()
    weights = torch.rand(50, 4, generator=generator).double()
    distance = ((vectors[:, None] - table[None]).square() * weights[:, None]).sum(2)
    codes, errors = assign(vectors, table, weights)
    assert torch.equal(codes, distance.argmin(1))
    assert torch.allclose(errors, distance.amin(1))


def test_fixed_point_centroids_are_weighted_means():
    generator = torch.Generator().manual_seed(1)
    vectors, weights = torch.randn(200, 2, generator=generator).double(), torch.rand(200, 2, generator=generator).double()
    found = Lloyd()(vectors, 5, weights)
    for k, centre in enumerate(found.table):
        mine = found.codes == k
        mean = (vectors[mine] * weights[mine]).sum(0) / weights[mine].sum(0)
        assert torch.allclose(centre, mean)


def test_every_entry_is_used_and_empty_clusters_move():
    vectors = torch.tensor([[0.0, 0.0]] * 20 + [[5.0, 5.0], [9.0, 0.0], [0.0, 9.0]]).double()
    # Three of four centroids start where nobody is nearest to them.
    start = torch.tensor([[0.0, 0.0], [-50.0, 0.0], [-60.0, 0.0], [-70.0, 0.0]]).double()
    found = iterate(vectors, start, None, 20)
    assert len(found.table) == 4
    assert float((vectors - found.table[found.codes]).abs().max()) == 0.0
    assert set(found.codes.tolist()) == {0, 1, 2, 3}


def test_fewer_different_vectors_than_entries():
    found = Lloyd()(torch.tensor([[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]), 3)
    assert len(found.table) == 2


def test_the_seed_decides():
    vectors = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    first, again, other = (Lloyd(seed=seed, iterations=1)(vectors, 9) for seed in (1, 1, 2))
    assert torch.equal(first.table, again.table)
    assert not torch.equal(first.table, other.table)


def test_starts():
    values = torch.tensor([[0.0], [1.0], [2.0], [3.0], [12.0]]).double()
    generator = torch.Generator().manual_seed(0)
    assert Linear()(values, None, 4, generator).flatten().tolist() == [0.0, 4.0, 8.0, 12.0]
    # Quantiles at 1/4 and 3/4.
    assert Density()(values, None, 2, generator).flatten().tolist() == [1.0, 3.0]
    assert sorted(Random()(values, None, 5, generator).flatten().tolist()) == values.flatten().tolist()
    # Once a value is drawn its distance is zero, so k-means++ draws five different ones.
    assert sorted(PlusPlus()(values, None, 5, generator).flatten().tolist()) == values.flatten().tolist()


@pytest.mark.parametrize("solver", [Lloyd(initial=Linear()), Lloyd(initial=Density()), Exact()])
def test_what_is_for_numbers_refuses_vectors(solver):
    with pytest.raises(RecipeError, match="PlusPlus"):
        solver(torch.zeros(4, 2), 2)


def test_nothing_to_cluster():
    with pytest.raises(PreconditionError, match="no vectors"):
        Lloyd()(torch.zeros(0, 2), 2)
