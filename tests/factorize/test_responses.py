"""Output-aware factorization and the refit: least squares where that has a closed form, never worse than SVD on what is measured."""

import copy

import pytest
import torch
from factorize_nets import Data, layers_of, plain, tensors_of
from torch import nn

from lilliput.core import Budget, PreconditionError
from lilliput.factorize.factors import run
from lilliput.factorize.lowrank import Kernels
from lilliput.factorize.observe import inputs_and_outputs, response_covariances, responses
from lilliput.factorize.pairs import Pair, pair
from lilliput.factorize.ranks import EqualSlope
from lilliput.factorize.recovery import Refit
from lilliput.factorize.responses import Regression, Responses, relaxed
from lilliput.factorize.step import Factorize
from lilliput.graph import trace
from lilliput.graph.fold import fold_batchnorm


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(count, size, seed=0):
    return normal(count, size, seed=seed) @ torch.diag(0.6 ** torch.arange(size).double()) @ torch.linalg.qr(normal(size, size, seed=9))[0] + 0.5


def test_reduced_rank_regression_is_the_optimum():
    """`|Y - X A'|^2 = residual + |X A_ols' - X A'|^2`, and the best `X A'` of rank r truncates the SVD of the OLS fit."""
    x, y = correlated(200, 8), correlated(200, 6, seed=1) + correlated(200, 8)[:, :6]
    for rank in (1, 3, 6):
        left, right, shift = Regression(x)(y, rank)
        ours = (y - x @ (left @ right).T - shift).square().sum()
        centred, wanted = x - x.mean(0), y - y.mean(0)
        fit = centred @ torch.linalg.lstsq(centred, wanted).solution
        singular = torch.linalg.svdvals(fit)
        assert float(ours) == pytest.approx(float((wanted - fit).square().sum() + singular[rank:].square().sum()))
        assert torch.linalg.matrix_rank(left @ right) == rank
    torch.testing.assert_close(Regression(x, intercept=False)(y, 6)[2], torch.zeros(6, dtype=torch.float64))
    full = Regression(x, intercept=False)(y, 6)
    torch.testing.assert_close(full[0] @ full[1], torch.linalg.lstsq(x, y).solution.T)


def test_dead_inputs_get_no_weight():
    x = torch.cat([correlated(50, 3), torch.zeros(50, 2, dtype=torch.float64)], 1)
    left, right, _ = Regression(x)(normal(50, 4), 4)
    assert float((left @ right)[:, 3:].abs().max()) < 1e-12


@pytest.mark.parametrize("ends", [(0.0, float("inf")), (0.0, 6.0), (-1.0, 1.0)])
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_auxiliary_variables_minimise_entry_by_entry(ends, penalty):
    wanted = (4 * normal(300)).clamp(*ends)
    now = 4 * normal(300, seed=1)
    grid = torch.linspace(-12, 12, 24001, dtype=torch.float64)[:, None]

    def cost(z):
        return (wanted - z.clamp(*ends)) ** 2 + penalty * (z - now) ** 2
    found = cost(relaxed(wanted, now, penalty, ends))
    assert bool((found <= cost(grid).min(0).values + 1e-6).all())


@pytest.fixture(scope="module")
def folded():
    return fold_batchnorm(plain())


def ready_for(folded, name, method):
    layer = layers_of(folded)[name]
    covariance = response_covariances(folded, (layer,), Data().train, 96)[name]
    return layer, method(layer, tensors_of(folded, layer), covariance)


def test_covariance_of_responses(folded):
    layer = layers_of(folded)["b"]
    y = responses(inputs_and_outputs(folded, (layer,), Data().train.inputs)["b"][1], layer).double()
    torch.testing.assert_close(response_covariances(folded, (layer,), Data().train, 96)["b"], torch.cov(y.T, correction=0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["a", "b", "c", "fc", "out"])
def test_no_worse_than_svd_in_responses(folded, name):
    inputs = list(Data().train.inputs.split(32))
    layer, ready = ready_for(folded, name, Responses())
    seen = pair(folded, copy.deepcopy(folded), layer, inputs)
    svd = Kernels()(layer, tensors_of(folded, layer), None)

    def error(factors):
        response = responses(run(factors, seen.inputs), layer)[seen.rows].double()
        low, high = seen.clamp or (-torch.inf, torch.inf)
        return float((response.clamp(low, high) - seen.wanted.double().clamp(low, high)).square().sum())

    for rank in (1, 2, 4):
        ours, theirs = error(ready.factors((rank,), seen)), error(svd.factors((rank,), None))
        assert ours <= theirs * (1 + 1e-6)
    assert ours < 0.9 * theirs


def test_without_a_clamp_it_is_the_least_squares_optimum(folded):
    layer, ready = ready_for(folded, "out", Responses())
    seen = pair(folded, folded, layer, list(Data().train.inputs.split(32)))
    assert seen.clamp is None
    made = responses(run(ready.factors((2,), seen), seen.inputs), layer).double()
    power = torch.linalg.eigvalsh(response_covariances(folded, (layer,), Data().train, 96)["out"]).flip(0)
    # The original's responses are the network's own, so what is lost is the energy of the principal components left out.
    assert float((made - seen.wanted).square().mean(0).sum()) == pytest.approx(float(power[2:].sum()), rel=1e-4)


def test_the_nonlinear_solution_beats_the_linear_one_where_relu_hides_errors():
    # Responses mostly negative, so that only few of them matter.
    x = correlated(2000, 8)
    weight = normal(12, 8, seed=3)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 5)).double().eval()
    model[0].weight.data, model[0].bias.data = weight, -x.mean(0) @ weight.T - 2.0
    traced = trace(model, x[:2])
    layer = layers_of(traced)["0"]
    covariance = torch.cov((x @ weight.T).T)
    seen = pair(traced, traced, layer, [x])
    assert seen.clamp == (0.0, float("inf"))
    errors = {}
    for name, clamp in (("linear", None), ("through the ReLU", seen.clamp)):
        ready = Responses()(layer, tensors_of(traced, layer), covariance)
        factors = ready.factors((3,), Pair(inputs=seen.inputs, made=seen.made, wanted=seen.wanted, rows=seen.rows, clamp=clamp))
        errors[name] = float((run(factors, x).relu() - model[:2](x)).square().sum())
    assert errors["through the ReLU"] < 0.95 * errors["linear"]


def test_later_layers_mend_what_earlier_ones_lost(folded):
    """Asymmetric: fitted to what the factorized layers before feed it, not to what the original does."""
    inputs = list(Data().train.inputs.split(32))
    small = copy.deepcopy(folded)
    first, ready = ready_for(folded, "a", Responses())
    from lilliput.factorize.factors import replace_

    replace_(small, first, ready.factors((2,), pair(folded, small, first, inputs)))
    layer, ready = ready_for(folded, "b", Responses())
    seen = pair(folded, small, layer, inputs)
    errors = []
    for given in (seen, pair(folded, folded, layer, inputs)):
        response = responses(run(ready.factors((6,), given), seen.inputs), layer)[seen.rows].double()
        errors.append(float((response.relu() - seen.wanted.double().relu()).square().sum()))
    assert errors[0] < errors[1]


def test_positions_are_drawn_the_same_in_both_networks(folded):
    layer = layers_of(folded)["a"]
    inputs = list(Data().train.inputs.split(32))
    few = pair(folded, folded, layer, inputs, most=100)
    assert few.made.shape == (100, 12)
    torch.testing.assert_close(few.made, few.wanted)
    assert torch.equal(few.made, pair(folded, folded, layer, inputs).made[few.rows])


def test_it_needs_data():
    with pytest.raises(PreconditionError, match="pass data="):
        Factorize(method="x", decomposition=Responses(), allocation=EqualSlope(), budget=Budget(macs=0.5))(plain(), None)


def test_refit_lowers_the_error_of_the_response_to_the_least_possible(folded):
    layer = layers_of(folded)["c"]
    inputs = list(Data().train.inputs.split(32))
    seen = pair(folded, folded, layer, inputs)
    before = Kernels()(layer, tensors_of(folded, layer), None).factors((4,), None)
    after = Refit()(layer, before, seen)

    def error(factors):
        return float((responses(run(factors, seen.inputs), layer).double() - seen.wanted).square().sum())

    assert error(after) < 0.9 * error(before)
    hidden = torch.cat([responses(run(before[:1], seen.inputs), layer).double(), torch.ones(len(seen.wanted), 1)], 1)
    best = torch.linalg.lstsq(hidden, seen.wanted.double()).solution
    assert error(after) == pytest.approx(float((hidden @ best - seen.wanted).square().sum()), rel=1e-4)
    assert torch.equal(after[0].weight, before[0].weight)


def test_refit_of_rows_and_of_layers_without_bias(folded):
    from lilliput.factorize.lowrank import Separable

    network = plain()
    for name in ("b", "a"):
        layer = layers_of(network)[name]
        seen = pair(network, network, layer, list(Data().train.inputs.split(32)))
        before = Separable()(layer, tensors_of(network, layer), None).factors((3,), None)
        after = Refit()(layer, before, seen)
        assert (after[1].bias is None) == (layer.bias is None)
        errors = [float((responses(run(f, seen.inputs), layer).double() - seen.wanted).square().sum()) for f in (before, after)]
        assert errors[1] < errors[0]
