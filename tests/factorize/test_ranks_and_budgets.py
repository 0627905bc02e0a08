"""Ranks and budgets: what each allocation promises, equal slopes against exhaustion, limits met, and what comes after."""

import itertools

import numpy as np
import pytest
import torch
from factorize_nets import Data, layers_of, plain, tensors_of
from torch import nn

from lilliput import factorize, prune, quantize
from lilliput.core import Budget, BudgetError, PreconditionError, RecipeError
from lilliput.deploy import Session, export
from lilliput.factorize.fitting import Costs
from lilliput.factorize.lowrank import Kernels
from lilliput.factorize.ranks import Energy, EqualSlope, Share, Vbmf
from lilliput.factorize.recovery import FineTune, Refit
from lilliput.factorize.responses import Responses
from lilliput.factorize.step import Factorize
from lilliput.factorize.tucker import Tucker
from lilliput.graph import profile, trace
from lilliput.train import SGD, Fit


@pytest.fixture(scope="module")
def network():
    return plain()


@pytest.fixture(scope="module")
def ready(network):
    return [Kernels()(layer, tensors_of(network, layer), None) for name, layer in layers_of(network).items() if name != "d"]


def costs(network, ready):
    counted = profile(network)
    return Costs(layers=ready, original={"params": counted.params, "macs": counted.macs}, biases=False)


def test_shares_and_energies_by_hand(network, ready):
    price = costs(network, ready).price(("macs",))
    full = [len(d.spectra[0].values) for d in ready]
    assert Share(share=0.25)(ready, price)(0.75) == [(round(0.25 * n),) for n in full]
    chosen = Energy(share=0.8)(ready, price)(0.2)
    for d, ranks in zip(ready, chosen, strict=True):
        if ranks is not None:
            kept = d.spectra[0].kept
            assert kept[ranks[0]] >= 0.8 > kept[ranks[0] - 1]
    # Full rank costs more than the layer: it is left whole.
    assert Share(share=1.0)(ready, price)(0.0) == [None] * len(ready)
    with pytest.raises(RecipeError, match="a share lies above 0"):
        Share(share=0)


def test_equal_slopes_are_the_best_choice_at_their_cost(network, ready):
    """Against every combination of two layers' ranks: none costs as little and keeps a larger product of energies."""
    two = ready[1:3]
    price = costs(network, two).price(("params",))
    path = EqualSlope()(two, price)

    def outcome(chosen):
        cost = sum(float(price(d, r)) for d, r in zip(two, chosen, strict=True))
        return cost, sum(0.0 if r is None else float(np.log(d.spectra[0].kept[r[0]])) for d, r in zip(two, chosen, strict=True))

    options = [[None, *((r,) for r in range(1, len(d.spectra[0].values) + 1) if float(price(d, (r,))) < float(price(d, None)))] for d in two]
    everything = np.array([outcome(choice) for choice in itertools.product(*options)])
    before = np.inf
    for amount in np.linspace(0, 1, 60):
        cost, kept = outcome(path(amount))
        assert cost <= before + 1e-12
        before = cost
        assert everything[everything[:, 0] <= cost + 1e-12, 1].max() <= kept + 1e-9
    assert path(0.0) == [None, None]
    assert path(1.0) == [(1,), (1,)]


def test_equal_slopes_over_pairs_of_ranks(network):
    layer = layers_of(network)["b"]
    tucker = Tucker()(layer, tensors_of(network, layer), None)
    price = costs(network, [tucker]).price(("macs",))
    path = EqualSlope()([tucker], price)
    grid = [(p, q) for p in range(1, 17) for q in range(1, 13)]
    for amount in (0.2, 0.5, 0.8):
        ranks = path(amount)[0]

        def kept(r):
            return tucker.spectra[0].kept[r[0]] * tucker.spectra[1].kept[r[1]]

        assert max(kept(r) for r in grid if price(tucker, r) <= price(tucker, ranks)) <= kept(ranks) + 1e-12


def test_layers_that_save_only_one_of_the_two_costs_are_left_whole(network):
    """Before a stride a 1x1 at the input's resolution saves weights and costs multiply-accumulates."""
    layer = layers_of(network)["b"]
    tucker = Tucker()(layer, tensors_of(network, layer), None)
    ranks = (14, 9)
    assert tucker.params(ranks) < layer.params * 1.05
    assert tucker.macs((12, 10)) > layer.macs > 0
    assert tucker.params((12, 10)) < layer.params
    assert float(costs(network, [tucker]).price(("params",))(tucker, (12, 10))) == np.inf


def test_costs_are_those_of_the_network_that_is_built(network, ready):
    step = factorize.svd(Budget(macs=0.5))
    result = step(network, Data())
    counted = profile(result.model)
    entry = result.report.entries[0]
    assert counted.macs <= 0.5 * profile(network).macs
    assert entry.measured == {"macs": counted.macs}
    rows = {row["layer"]: row for row in entry.layers}
    assert list(rows) == list(layers_of(network))
    saved = sum(row["macs_before"] - row["macs_after"] for row in rows.values())
    assert profile(network).macs - saved == counted.macs
    assert rows["d"]["rank"] == "full"
    assert any(note == "d left as it is: a grouped convolution" for note in entry.notes)
    cut = [row for row in rows.values() if row["rank"] != "full"]
    assert cut
    assert all(0 < row["weight_error"] < 1 and 0 < row["output_error"] < 1 for row in cut)


@pytest.mark.parametrize("budget", [{"macs": 0.6}, {"params": 0.6}, {"params": 0.7, "macs": 0.5}])
@pytest.mark.parametrize("decomposition", [Kernels(), Tucker(), Responses(rounds=2)], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("allocation", [EqualSlope(), Share(), Vbmf(), Energy()], ids=lambda a: type(a).__name__)
def test_budgets_are_met(network, budget, decomposition, allocation):
    step = Factorize(method="x", decomposition=decomposition, allocation=allocation, budget=Budget(**budget), samples=32)
    result = step(network, Data())
    counted, original = profile(result.model).totals(), profile(network).totals()
    for name, share in budget.items():
        assert counted[name] <= share * original[name]
        assert result.report.entries[0].promised[name] == pytest.approx(share * original[name])
    # And not missed by much: the tightest limit is used (variational ranks may be below it from the start).
    assert isinstance(allocation, Vbmf) or max(counted[name] / (share * original[name]) for name, share in budget.items()) > 0.75


def test_impossible_needless_and_unmeasurable_budgets_say_so(network):
    with pytest.raises(BudgetError, match=r"cannot be met: the least this factorization allows is \d"):
        factorize.svd(Budget(params=0.01))(network, Data())
    with pytest.raises(BudgetError, match="already"):
        factorize.svd(Budget(params="10M"))(network, Data())
    with pytest.raises(PreconditionError, match="limits no cost"):
        factorize.svd(Budget(max_drop=1.0))(network, Data())
    with pytest.raises(PreconditionError, match="latency budget needs a measurement"):
        factorize.svd(Budget(latency="1ms"))(network, Data())
    with pytest.raises(PreconditionError, match="EqualSlope needs a budget"):
        Factorize(method="x", decomposition=Kernels(), allocation=EqualSlope())(network, Data())


def test_measured_budgets_are_met_by_the_measurement(network):
    from dataclasses import replace

    def size(model):
        return float(sum(p.numel() * 4 for p in model.parameters()))

    result = replace(factorize.svd(Budget(size=0.6)), measure={"size": size})(network, Data())
    assert size(result.model) <= 0.6 * size(network)
    assert result.report.entries[0].measured == {"size": size(result.model)}


def test_the_original_is_left_alone_and_runs_agree(network):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    first, second = (factorize.gsvd(Budget(macs=0.5), nonlinear=Responses(rounds=3))(network, Data()).model for _ in range(2))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_weights_alone_need_no_data(network):
    result = factorize.svd(Budget(macs=0.5))(network, None)
    assert "output_error" not in result.report.entries[0].layers[0]
    with pytest.raises(PreconditionError, match="pass data="):
        factorize.svd(Budget(macs=0.5))(nn.Linear(4, 4), None)
    with pytest.raises(PreconditionError, match="pass data="):
        Factorize(method="x", decomposition=Kernels(), allocation=Share(), recover=Refit())(network, None)


def test_refit_and_fine_tuning_recover(network):
    from dataclasses import replace

    step, data = factorize.svd(Budget(macs=0.4)), Data()
    target = network(data.train.inputs).detach()

    def distance(model):
        return float((model.eval()(data.train.inputs) - target).square().mean())

    errors = [distance(replace(step, recover=recover)(network, data).model)
              for recover in (None, Refit(), FineTune(fit=Fit(epochs=0, batch_size=32, optimizer=SGD(lr=0.01))))]
    assert errors[1] < 0.7 * errors[0]
    trained = factorize.svd(Budget(macs=0.4), fine_tune=Fit(epochs=3, batch_size=32, optimizer=SGD(lr=0.05)))(network, data).model
    loss = nn.CrossEntropyLoss()
    plain_cut = step(network, data).model.eval()
    assert float(loss(trained.eval()(data.train.inputs), data.train.targets)) < float(loss(plain_cut(data.train.inputs), data.train.targets))
    names = [n for n, _ in trained.named_parameters() if "factor" in n]
    assert names
    assert profile(trained).macs == profile(plain_cut).macs


@pytest.mark.parametrize("step", [factorize.svd(Budget(macs=0.5)), factorize.svd(Budget(macs=0.7), across=factorize.Separable()),
                                  factorize.tucker(Budget(macs=0.6)), factorize.filter_basis(Budget(params=0.7), channels=4)],
                         ids=["kernels", "separable", "tucker", "basis"])
def test_what_comes_out_is_exported_pruned_and_quantized(network, step, tmp_path):
    data = Data()
    small = step(network, data).model.eval()
    session = Session(export(small, tmp_path / "small.onnx", data.example(4)))
    np.testing.assert_allclose(session(data.example(7).numpy()), small(data.example(7)).detach().numpy(), atol=1e-4)
    thinner = prune.l1_norm(Budget(params=0.7))(small, data)
    assert profile(thinner.model).params <= 0.7 * profile(small).params
    integer = quantize.minmax(samples=64)(small, data).model.eval()
    session = Session(export(integer, tmp_path / "int8.onnx", data.example(4)))
    simulated = integer(data.example(7)).detach().numpy()
    step_size = np.diff(np.unique(simulated.round(6))).min()
    assert np.abs(session(data.example(7).numpy()) - simulated).max() <= 1.05 * step_size
    with pytest.raises(PreconditionError, match="quantized"):
        step(integer, data)


def test_a_network_without_anything_to_factorize_is_refused():
    depthwise = trace(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)).eval(), torch.zeros(2, 4, 8, 8))
    with pytest.raises(PreconditionError, match=r"nothing .* factorized by quantize\.svd: 0 is a grouped convolution"):
        factorize.svd(Budget(macs=0.5))(depthwise, None)


def test_training_mode_is_kept(network):
    from copy import deepcopy

    assert factorize.svd(Budget(macs=0.5))(deepcopy(network).train(), Data()).model.training
    assert not factorize.svd(Budget(macs=0.5))(network, Data()).model.training
