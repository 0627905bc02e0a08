"""Patterns and solvers: one layer's weights on numbers worked out by hand, and against plain searches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.core.errors import RecipeError
from lilliput.prune.patterns import NM, Rows, Whole, shares
from lilliput.prune.solvers import LayerOBS, SparseGPT, Wanda
from lilliput.prune.surgeon import ExactOBS

PATTERNS = (Whole(), Rows(), NM(n=2, m=4))
SOLVERS = (Wanda(power=0.0), Wanda(), LayerOBS(), SparseGPT(), ExactOBS())
# The Hessian of two inputs and its inverse, (3, -1; -1, 2) / 5.
TWO = torch.tensor([[[2.0, 1.0], [1.0, 3.0]]]).double()


def layer(groups=1, outputs=6, inputs=8, seed=0, samples=32):
    """Weights, and the Hessian of inputs that have much in common."""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(groups, inputs, 3, generator=draw) @ torch.randn(groups, 3, samples, generator=draw)
    x = (mixed + 0.3 * torch.randn(groups, inputs, samples, generator=draw)).double()
    return torch.randn(groups, outputs, inputs, generator=draw).double(), 2 * x @ x.transpose(1, 2) / samples


def error(found, rows, hessian):
    return float(((found - rows) @ hessian * (found - rows)).sum())


def counts(kept):
    return (~kept).flatten(0, 1).sum(1).tolist()


def test_patterns_by_hand():
    scores = torch.tensor([[[4.0, 1.0, 3.0, 2.0], [9.0, 8.0, 7.0, 0.0]]])
    assert Whole().keep(scores, 3).int().tolist() == [[[1, 0, 1, 0], [1, 1, 1, 0]]]
    assert Rows().keep(scores, 3).int().tolist() == [[[1, 0, 1, 1], [1, 1, 0, 0]]]
    assert NM(n=2, m=4).keep(scores, 0).int().tolist() == [[[1, 0, 1, 0], [1, 1, 0, 0]]]
    assert NM(n=1, m=2).keep(scores, 0).int().tolist() == [[[1, 0, 1, 0], [1, 0, 1, 0]]]
    assert (Whole().share, Rows().span, NM(n=1, m=4).share, NM(n=1, m=4).span) == (None, None, 0.75, 4)
    with pytest.raises(RecipeError, match="some stay"):
        NM(n=4, m=4)


@given(total=st.integers(0, 1000), parts=st.integers(1, 50))
def test_shares_are_as_equal_as_can_be(total, parts):
    found = shares(total, parts)
    assert sum(found) == total
    assert max(found) - min(found) <= 1


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), drop=st.integers(0, 90), solver=st.sampled_from(SOLVERS), pattern=st.sampled_from(PATTERNS))
def test_as_many_go_as_the_pattern_says(seed, drop, solver, pattern):
    rows, hessian = layer(groups=2, seed=seed)
    drop = drop if pattern.share is None else 48
    found, kept = solver(rows, hessian, pattern, drop)
    assert int((~kept).sum()) == drop
    assert bool((found[~kept] == 0).all())
    assert torch.isfinite(found).all()
    if isinstance(pattern, NM):
        assert (kept.reshape(-1, 4).sum(1) == 2).all()
    if isinstance(pattern, Rows) and not isinstance(solver, SparseGPT):
        assert max(counts(kept)) - min(counts(kept)) <= 1


def test_wanda_by_hand():
    rows = torch.tensor([[[4.0, 0, 1, -1], [3, -2, -1, -3], [-3, 1, 0, 2]]]).double()
    hessian = torch.diag(torch.tensor([1.0, 2, 8, 3]).double() ** 2)[None]
    # Weight times norm: 4 0 8 3, 3 4 8 9, 3 2 0 6.
    found, _ = Wanda()(rows, hessian, Rows(), 6)
    assert found.tolist() == [[[4, 0, 1, 0], [0, 0, -1, -3], [-3, 0, 0, 2]]]
    found, _ = Wanda(power=0.0)(rows, hessian, Rows(), 6)
    assert found[0, 0, 0] == 4
    assert found[0, 1].tolist() == [3, 0, 0, -3]


def test_one_step_of_each_by_hand():
    # Removing w2 = 0.2 costs 0.04 / 0.4, w1 = 0.6 costs 0.36 / 0.6; w1 becomes 0.6 - 0.2 / 0.4 * -0.2.
    rows = torch.tensor([[[0.6, 0.2]]]).double()
    for solver in (ExactOBS(damping=1e-12), LayerOBS(damping=1e-12)):
        assert solver(rows, TWO, Whole(), 1)[0].flatten().tolist() == pytest.approx([0.7, 0.0])
    # Columns in order: w2, whose own curvature is 3 by then, goes (0.04 * 3 against 0.36 / 0.6), and nothing comes after it.
    assert SparseGPT(damping=1e-12)(rows, TWO, Whole(), 1)[0].flatten().tolist() == pytest.approx([0.6, 0.0])
    # w1 goes, w2 becomes 1 - 0.1 / 0.6 * -0.2.
    found, _ = SparseGPT(damping=1e-12)(torch.tensor([[[0.1, 1.0]]]).double(), TWO, Whole(), 1)
    assert found.flatten().tolist() == pytest.approx([0.0, 1 + 0.02 / 0.6])


def plain_surgeon(rows, hessian, pattern, drop):
    """The optimal brain surgeon with a new inverse of what is left after every step."""
    weights, kept = rows.copy(), np.ones(rows.shape, dtype=bool)
    for members, count in pattern.pools(len(rows), drop):
        for _ in range(count):
            best = (np.inf, 0, 0)
            for r in members:
                places = np.flatnonzero(kept[r])
                inverse = np.linalg.inv(hessian[np.ix_(places, places)])
                allowed = pattern.eligible(kept[r])
                options = [(weights[r, q] ** 2 / inverse[i, i], r, q) for i, q in enumerate(places) if allowed[q]]
                best = min([best, *options])
            _, r, q = best
            places = np.flatnonzero(kept[r])
            inverse, i = np.linalg.inv(hessian[np.ix_(places, places)]), int(np.flatnonzero(places == q)[0])
            weights[r, places] -= weights[r, q] / inverse[i, i] * inverse[i]
            kept[r, q] = False
            weights[r, q] = 0
    return weights, kept


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_kept_steps_are_the_plain_surgeon(pattern):
    rows, hessian = layer()
    drop = 24 if pattern.share else 29
    found, kept = ExactOBS(damping=1e-12)(rows, hessian, pattern, drop)
    expected, mask = plain_surgeon(rows[0].numpy(), hessian[0].numpy(), pattern, drop)
    assert (kept[0].numpy() == mask).all()
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-8)
    if isinstance(pattern, Whole):
        assert len(set(counts(kept))) > 1


def test_outputs_compete_in_parts_where_there_is_no_room(monkeypatch):
    rows, hessian = layer()
    monkeypatch.setattr("lilliput.prune.surgeon._ROOM", 8 * 2 * 15)
    found, kept = ExactOBS()(rows, hessian, Whole(), 30)
    halves = [ExactOBS()(rows[:, half], hessian, Whole(), 10) for half in (slice(0, 2), slice(2, 4), slice(4, 6))]
    assert torch.equal(found, torch.cat([half[0] for half in halves], 1))
    assert int((~kept).sum()) == 30


def optimum(rows, hessian, kept):
    """The least-squares weights with zeros where they are not kept."""
    out = np.zeros_like(rows)
    for r, mask in enumerate(kept):
        stay = np.flatnonzero(mask)
        out[r, stay] = np.linalg.solve(hessian[np.ix_(stay, stay)], hessian[stay] @ rows[r])
    return out


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_what_stays_is_the_least_squares_optimum(pattern):
    rows, hessian = layer(seed=3)
    found, kept = ExactOBS(damping=1e-12)(rows, hessian, pattern, 24)
    np.testing.assert_allclose(found[0].numpy(), optimum(rows[0].numpy(), hessian[0].numpy(), kept[0].numpy()), atol=1e-6)


def test_with_inputs_that_have_nothing_in_common_nothing_is_made_up_for():
    rows, _ = layer(groups=2, inputs=12)
    hessian = torch.diag_embed(torch.rand(2, 12, generator=torch.Generator().manual_seed(1)).double() + 0.1)
    for pattern, drop in ((Whole(), 70), (NM(n=1, m=4), 108)):
        expected, mask = Wanda()(rows, hessian, pattern, drop)
        for solver in (SparseGPT(damping=1e-12), LayerOBS(damping=1e-12), ExactOBS(damping=1e-12)):
            found, kept = solver(rows, hessian, pattern, drop)
            assert torch.equal(kept, mask)
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_errors_are_in_order(pattern):
    rows, hessian = layer(outputs=16, inputs=32, samples=200)
    errors = [error(solver(rows, hessian, pattern, 256)[0], rows, hessian)
              for solver in (ExactOBS(), SparseGPT(), Wanda(), Wanda(power=0.0))]
    assert errors == sorted(errors)
    assert errors[1] < 0.6 * errors[2]
    assert error(LayerOBS()(rows, hessian, pattern, 256)[0], rows, hessian) < errors[2]


def test_blocks_are_masks_of_their_own_and_change_no_n_m():
    rows, hessian = layer(outputs=4, inputs=16, samples=100)
    kept = SparseGPT(block=4)(rows, hessian, Whole(), 32)[1]
    assert [int((~part).sum()) for part in kept.split(4, 2)] == [8, 8, 8, 8]
    found = [SparseGPT(block=block)(rows, hessian, NM(), 32)[0] for block in (4, 7, 128)]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_inputs_that_repeat_each_other_or_never_come(solver):
    rows, hessian = layer(inputs=8, samples=2)
    hessian[:, :, 3] = hessian[:, 3] = 0
    found, kept = solver(rows, hessian, Rows(), 24)
    assert torch.isfinite(found).all()
    assert found.abs().max() < 1e3
    assert int((~kept).sum()) == 24
    nothing = solver(rows, torch.zeros_like(hessian), Rows(), 24)[0]
    assert torch.isfinite(nothing).all()


def test_settings_that_mean_nothing_are_refused():
    for make in (ExactOBS, LayerOBS, SparseGPT):
        with pytest.raises(RecipeError, match="damped by a positive share"):
            make(damping=0.0)
    with pytest.raises(RecipeError, match="one column or more"):
        SparseGPT(block=0)
