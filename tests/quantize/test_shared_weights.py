"""Weights as codes and tables: what stands in the graph, what trains, what is counted, and how it composes."""

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError, RecipeError, UnknownNameError
from lilliput.core.step import chain
from lilliput.graph import profile, trace
from lilliput.graph.fold import fold_batchnorm
from lilliput.graph.saving import load, save
from lilliput.quantize import Integer, Scheme, Share, Static, Tune, is_quantized, minmax, qat
from lilliput.quantize.codebook import Hash, Shared, Stage, member_counts, rounded, share_
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.sharing import (
    Averaged,
    Blocks,
    Exact,
    Fisher,
    Frequencies,
    Hashed,
    Imitation,
    KMeans,
    Normalised,
    Outputs,
    Product,
    Residual,
    Scalars,
    Subvectors,
    Weight,
)
from lilliput.quantize.sharing.hashing import bands
from lilliput.train import SGD, Fit, fit


def weight_of(*shape, seed=0, **options):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return Weight(shape=shape, rows=rows.flatten(1), **options)


class Tied(nn.Module):
    """One weight under two names, and a layer of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(F.relu(self.second(F.relu(self.first(x)))))


# The name under which the tracer keeps a tensor that has two.
SHARED = "second"


@pytest.fixture
def tied():
    torch.manual_seed(0)
    return Tied().eval()


# The graph.


def test_the_weight_is_looked_up_and_its_values_are_the_tables(tied):
    traced, x = trace(tied, torch.randn(3, 6)), torch.randn(5, 6)
    table, codes = torch.tensor([[0.5], [-1.0], [2.0]]), torch.arange(24).reshape(4, 6).int() % 3
    shared = Shared(shape=(4, 6), stages=(Stage(table=table, codes=codes),))
    assert share_(traced, "head.weight", shared) == ("head.weight_table",)
    assert torch.equal(shared.values(), table[codes.long(), 0])
    with torch.no_grad():
        assert torch.allclose(traced(x), F.relu(tied.second(F.relu(tied.first(x)))) @ shared.values().T, atol=1e-6)
    names = {name for name, _ in [*traced.named_parameters(), *traced.named_buffers()]}
    assert "head.weight" not in names
    assert traced.tensor("head.weight_codes").dtype == torch.int32


def test_gradient_of_an_entry_is_the_sum_over_its_members(tied):
    traced, x = trace(tied, torch.randn(3, 6)), torch.randn(5, 6)
    codes = torch.randint(0, 4, (6, 6), generator=torch.Generator().manual_seed(0)).int()
    shared = Shared(shape=(6, 6), stages=(Stage(table=torch.randn(4, 1), codes=codes),))
    dense = copy.deepcopy(tied)
    with torch.no_grad():
        dense.first.weight.copy_(shared.values())
    share_(traced, "first.weight", shared)
    for model in (traced, dense):
        F.cross_entropy(model(x), torch.tensor([0, 1, 2, 3, 0])).backward()
    wanted = torch.zeros(4).index_add_(0, codes.flatten().long(), dense.first.weight.grad.flatten())
    assert torch.allclose(traced.tensor("first.weight_table").grad[:, 0], wanted, atol=1e-6)


def test_a_weight_under_two_names_is_shared_once(tied):
    result = Share(method="m", codebooks=KMeans(entries=4), tune=None)(tied, arrays(6))
    assert [row["layer"] for row in result.report.entries[0].layers] == [SHARED, "head"]
    tables = [name for name, _ in result.model.named_parameters() if "table" in name]
    assert sorted(tables) == ["head.weight_table", f"{SHARED}.weight_table"]


def test_saved_and_loaded_again(tied, tmp_path):
    data = arrays(6)
    for codebooks in (KMeans(entries=4), Hashed(compression=4.0), Product(entries=2)):
        partition = Subvectors(3) if isinstance(codebooks, Product) else Scalars()
        model = Share(method="m", codebooks=codebooks, partition=partition)(tied, data).model
        save(model, tmp_path / "m.pt2")
        with torch.no_grad():
            assert torch.equal(load(tmp_path / "m.pt2")(data.example(4)), model.eval()(data.example(4)))


def test_profile_counts_the_same_work_under_the_same_names():
    make, shape = NETS["residual"]
    data = arrays(*shape)
    before = trace(make().eval(), data.example())
    for codebooks in (KMeans(entries=4), Frequencies(compression=4.0)):
        after = profile(Share(method="m", codebooks=codebooks)(before, data).model)
        wanted = profile(before)
        assert after.macs == wanted.macs
        assert after.peak_memory == wanted.peak_memory
        counts = [{row.layer: row.macs for row in found.layers if row.macs} for found in (after, wanted)]
        assert counts[0] == counts[1]


def test_batch_norms_fold_into_a_factor_to_each_channel():
    make, shape = NETS["residual"]
    torch.manual_seed(3)
    net, data = make(), arrays(*shape)
    with torch.no_grad():
        net.train()(data.example(16))
    model = Share(method="m", codebooks=KMeans(entries=4), tune=Tune(fit=Fit(epochs=1)))(net.eval(), data).model.eval()
    folded = fold_batchnorm(model)
    assert not any("batch_norm" in str(node.target) for node in folded.graph.nodes)
    assert folded.tensor("stem.weight_scale").shape == (8, 1, 1, 1)
    with torch.no_grad():
        assert torch.allclose(folded(data.example(8)), model(data.example(8)), atol=1e-5)


def test_shapes_and_names_are_checked(tied):
    traced = trace(tied, torch.randn(3, 6))
    shared = KMeans(entries=2)(weight_of(4, 6))
    with pytest.raises(PreconditionError, match="has shape"):
        share_(traced, "first.weight", shared)
    share_(traced, "head.weight", shared)
    with pytest.raises(AttributeError):
        share_(traced, "head.weight", shared)


# Codebooks.


def test_bits_are_codes_and_tables():
    weight = weight_of(8, 12)
    shared = KMeans(entries=5, solver=Exact())(weight)
    assert shared.bits == 96 * 3 + 5 * 32
    assert shared.bits_per_weight == (96 * 3 + 160) / 96
    half = KMeans(entries=16)(weight_of(8, 12, block=3, stored=torch.float16))
    assert half.bits == 32 * 4 + 16 * 3 * 16
    assert torch.equal(half.stages[0].table, half.stages[0].table.half().float())
    product = Product(entries=4)(weight_of(8, 12, block=3))
    assert product.bits == 32 * 2 + 4 * 4 * 3 * 32
    assert Hashed(compression=8.0)(weight).bits == 12 * 32


def test_product_uses_a_codebook_to_each_column():
    weight = weight_of(16, 12, block=3)
    shared = Product(entries=4)(weight)
    stage = shared.stages[0]
    assert (stage.books, stage.entries) == (4, 4)
    assert torch.equal(stage.codes.long() // 4, torch.arange(4).expand(16, 4))
    values = shared.values().reshape(16, 4, 3)
    for b in range(4):
        assert len(values[:, b].unique(dim=0)) <= 4
    one = KMeans(entries=4)(weight)
    error = [float((s.values() - weight.rows).square().sum()) for s in (shared, one)]
    assert error[0] < error[1]


def test_product_with_more_entries_than_rows_is_exact():
    weight = weight_of(3, 8, block=4)
    assert torch.allclose(Product(entries=256)(weight).values(), weight.rows, atol=1e-6)


def test_every_residual_stage_lowers_the_error():
    weight = weight_of(32, 18, block=3)
    errors = [float((Residual(entries=8, stages=n)(weight).values() - weight.rows).square().sum()) for n in (1, 2, 3, 4)]
    assert all(b < 0.75 * a for a, b in pairwise(errors))
    assert torch.equal(Residual(entries=8, stages=1)(weight).values(), KMeans(entries=8)(weight).values())


def test_rows_over_their_size_share_a_codebook():
    weight = weight_of(16, 12, block=3)
    rows = weight.rows * torch.logspace(-3, 0, 16)[:, None]
    weight = Weight(shape=(16, 12), rows=rows, block=3)
    shared, plain = Normalised(codebooks=KMeans(entries=8))(weight), KMeans(entries=8)(weight)
    assert shared.bits == plain.bits + 16 * 32
    half = Normalised(codebooks=KMeans(entries=8))(replace(weight, stored=torch.float16))
    assert half.bits == 64 * 3 + 8 * 3 * 16 + 16 * 16
    assert torch.equal(half.scales, half.scales.half().float())
    relative = [((s.values() - rows).square().sum(1) / rows.square().sum(1)).mean() for s in (shared, plain)]
    assert relative[0] < 0.5 * relative[1]
    # Large rows count for more: with one block to a row and two entries the error is that of weighted clusters.
    two = Weight(shape=(3, 2), rows=torch.tensor([[30.0, 0.0], [0.0, 20.0], [0.1, 0.1]]), block=2)
    assert torch.allclose(Normalised(codebooks=KMeans(entries=2))(two).values()[:2], two.rows[:2], atol=0.2)


def test_scales_train_and_stand_in_the_graph(tied):
    tune = Tune(fit=Fit(epochs=1, batch_size=8))
    model = Share(method="m", codebooks=Normalised(codebooks=KMeans(entries=4)), tune=tune)(tied, arrays(6)).model
    assert model.tensor("head.weight_scales").shape == (4, 1)
    assert model.tensor("head.weight_scales").requires_grad


def test_pruned_blocks_stay_zero_through_training(tied):
    with torch.no_grad():
        tied.first.weight[:, ::2] = 0
    tune = Tune(fit=Fit(epochs=1, batch_size=8, optimizer=SGD(lr=0.1)))
    model = Share(method="m", codebooks=KMeans(entries=4), tune=tune)(tied, arrays(6)).model
    table, codes = model.tensor(f"{SHARED}.weight_table"), model.tensor(f"{SHARED}.weight_codes")
    assert len(table) == 4
    assert table[0].item() == 0.0
    assert (codes[:, ::2] == 0).all()
    assert (codes[:, 1::2] != 0).all()
    everything = KMeans(entries=4)(Weight(shape=(2, 3), rows=torch.zeros(2, 3)))
    assert torch.equal(everything.values(), torch.zeros(2, 3))


@pytest.mark.parametrize(("partition", "shape", "wanted"), [
    (Scalars(), (4, 3, 3, 3), 1), (Blocks(), (4, 3, 3, 3), 9), (Blocks(spatial=2), (4, 6, 3, 3), 18),
    (Blocks(spatial=2), (4, 3, 3, 3), 9), (Blocks(pointwise=4), (4, 8, 1, 1), 4), (Blocks(pointwise=4), (4, 6), 3),
    (Subvectors(4), (5, 27), 3), (Subvectors(4), (5, 3, 4, 4), 4), (Subvectors(100), (5, 7), 7),
])
def test_blocks_divide_rows(partition, shape, wanted):
    assert partition(shape) == wanted


# What errors cost.


def test_output_weighting_lowers_the_error_of_the_results():
    """Inputs of very different size, and blocks whose inputs move together."""
    torch.manual_seed(0)
    net, data = nn.Sequential(nn.Linear(8, 64, bias=False)), arrays(8, samples=64)
    mix = torch.tensor([[3.0, 2.9], [0.0, 0.1]])
    inputs = torch.cat([data.train.inputs[:, 2 * i: 2 * i + 2] @ mix for i in range(4)], 1)
    data.train.inputs.copy_(inputs)

    def error(**options):
        model = Share(method="m", codebooks=KMeans(entries=8), **options)(net, data).model.eval()
        with torch.no_grad():
            return float((model(inputs) - net(inputs)).square().mean())

    assert error(partition=Subvectors(2), weighting=Outputs()) < 0.5 * error(partition=Subvectors(2))
    # Large weights on small inputs would take most of the centroids.
    with torch.no_grad():
        net[0].weight[:, ::2] *= 20
    data.train.inputs[:, ::2] *= 0.001
    inputs = data.train.inputs
    assert error(weighting=Outputs()) < 0.5 * error()


def test_layers_are_weighed_by_what_they_read_once_those_before_are_shared():
    torch.manual_seed(0)
    net, data = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), arrays(6, samples=64)
    traced = trace(net, data.example())
    weigher, _ = Outputs()(traced, data, 64)
    first, second = [node for node in traced.graph.nodes if "linear" in str(node.target)]
    moment = weigher(first, "0.weight").moment[0]
    assert torch.allclose(moment, (data.train.inputs.double().T @ data.train.inputs.double()) / 64, atol=1e-5)
    coarse = torch.full_like(net[0].weight, 0.1)
    weigher.took("0.weight", coarse)
    with torch.no_grad():
        hidden = F.relu(F.linear(data.train.inputs, coarse, net[0].bias)).double()
    assert torch.allclose(weigher(second, "2.weight").moment[0], hidden.T @ hidden / 64, atol=1e-5)
    assert torch.equal(traced.tensor("0.weight"), net[0].weight)


def test_metric_is_the_mean_of_the_blocks_on_the_diagonal():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.Flatten(), nn.Linear(6, 4))
    data = arrays(4, 3, 3, samples=32)
    traced = trace(net.eval(), data.example())
    weigher, _ = Outputs()(traced, data, 32)
    layer = next(node for node in traced.graph.nodes if "conv2d" in str(node.target))
    importance = weigher(layer, "0.weight")
    x = data.train.inputs.reshape(32, 4, 9).double()  # kernel and image are one size: one position
    wanted = torch.einsum("ncp,ncq->pq", x, x) / 32 / 4
    assert torch.allclose(importance.metric(9), wanted, atol=1e-5)
    elements = (x.square().sum(0) / 32).reshape(2, 18).repeat_interleave(3, 0)
    assert torch.allclose(importance.elements(6), elements, atol=1e-5)


def test_fisher_is_the_mean_squared_gradient(tied):
    data = arrays(6, samples=5)
    traced = trace(tied, data.example())
    weigher, _ = Fisher()(traced, data, 5)
    squares = torch.zeros(4, 6)
    for x, y in zip(data.train.inputs, data.train.targets, strict=True):
        tied.zero_grad()
        F.cross_entropy(tied(x[None]), y[None]).backward()
        squares += tied.head.weight.grad.square() / 5
    head = next(node for node in traced.graph.nodes if "linear" in str(node.target) and node.args[1].target == "head.weight")
    assert torch.allclose(weigher(head, "head.weight").elements(4), squares, atol=1e-7)


# Hashing.


def test_buckets_and_signs_come_from_the_hash_of_the_position():
    from lilliput.core.xxhash import xxh32_numbers

    weight = weight_of(8, 16, start=1000)
    shared = Hashed(compression=4.0, seed=3)(weight)
    buckets, signs = xxh32_numbers(1000, 128, 3) % 32, xxh32_numbers(1000, 128, 4) % 2 * 2.0 - 1
    wanted = shared.stages[0].table.numpy()[buckets, 0] * signs.astype(np.float32)
    assert np.array_equal(shared.values().flatten().numpy(), wanted)


@pytest.mark.parametrize("codebooks", [Hashed(compression=6.0), Frequencies(compression=6.0)])
def test_buckets_start_at_least_squares(codebooks):
    """What the buckets leave is at right angles to everything that they can make."""
    weight = weight_of(8, 4, 3, 3)
    shared = codebooks(weight)
    rest = (weight.rows - shared.values().flatten(1)).double()
    table = shared.stages[0].table
    for b in range(0, len(table), 5):
        one = torch.zeros_like(table)
        one[b] = 1
        direction = replace(shared, stages=(Stage(table=one, codes=shared.stages[0].codes),))
        assert abs(float((rest * direction.values().flatten(1)).sum())) < 1e-4


def test_layers_have_hashes_of_their_own(tied):
    model = Share(method="m", codebooks=Hashed(compression=2.0))(tied, arrays(6)).model
    starts = [node.args[1] for node in model.graph.nodes if "hashed" in str(node.target)]
    assert starts == [0, 0, 36, 36]  # buckets and signs of each layer


def test_bands_count_up():
    order, sizes = bands((3, 3))
    assert sizes == [1, 2, 3, 2, 1]
    assert order.tolist() == [0, 1, 3, 2, 4, 6, 5, 7, 8]


@pytest.mark.parametrize("compression", [1.0, 2.0, 8.0, 64.0])
def test_low_frequencies_have_more_buckets_and_the_budget_holds(compression):
    counts = [4096, 8192, 12288, 8192, 4096]
    found = Frequencies(compression=compression).buckets(counts)
    rates = [n / count for n, count in zip(found, counts, strict=True)]
    assert rates == sorted(rates, reverse=True)
    assert max(rates) <= 1
    assert sum(found) == pytest.approx(sum(counts) / compression, abs=len(counts))
    if compression > 1:
        assert rates[0] > 2 * rates[-1]


def test_no_compression_keeps_the_kernel_where_there_is_no_collision():
    """With one coefficient to a band there is one bucket to each, and nothing is lost."""
    weight = weight_of(1, 1, 2)
    assert torch.allclose(Frequencies(compression=1.0)(weight).values(), weight.rows.reshape(1, 1, 2), atol=1e-6)


def test_hash_codes_are_checked():
    from lilliput.quantize.hash_op import HASHED

    with pytest.raises(PreconditionError, match="one bucket"):
        HASHED(torch.zeros(1), 0, [3], [0], 0)
    first = Hash(start=0, counts=(5,), buckets=(3,)).codes(torch.zeros(1))
    first += 100
    assert int(Hash(start=0, counts=(5,), buckets=(3,)).codes(torch.zeros(1)).max()) < 3


# Training.


def test_averaged_gradients_are_sums_over_members(tied):
    data = arrays(6)
    model = Share(method="m", codebooks=KMeans(entries=4))(tied, data).model
    counts = member_counts(model)
    codes = model.tensor("head.weight_codes").flatten().long()
    assert torch.equal(counts["head.weight_table"], torch.bincount(codes, minlength=4))
    steps = {}
    config = Fit(epochs=1, batch_size=48, optimizer=SGD(lr=0.1, momentum=0.0, weight_decay=0.0))
    for name, hooks in (("sum", ()), ("mean", (Averaged(),))):
        trained = fit(model, data, config, hooks=hooks, progress=False).model
        steps[name] = (trained.tensor("head.weight_table") - model.tensor("head.weight_table")).detach()[:, 0]
    assert torch.allclose(steps["sum"], steps["mean"] * counts["head.weight_table"], atol=1e-5)
    with pytest.raises(PreconditionError, match="traced"):
        fit(nn.Sequential(nn.Linear(6, 4)), data, config, hooks=(Averaged(),), progress=False)


def test_imitation_does_not_look_at_labels(tied):
    data = arrays(6)
    other = arrays(6)
    other.train.targets.copy_((other.train.targets + 1) % 4)
    config = Tune(fit=Fit(epochs=1, batch_size=16, optimizer=SGD(lr=0.1)), guide=Imitation())
    models = [Share(method="m", codebooks=KMeans(entries=4), tune=config)(tied, d).model for d in (data, other)]
    assert torch.equal(models[0].tensor("head.weight_table"), models[1].tensor("head.weight_table"))
    x = data.train.inputs

    def divergence(model):
        with torch.no_grad():
            ours, theirs = F.log_softmax(model.eval()(x), -1), F.log_softmax(tied(x), -1)
        return float(F.kl_div(ours, theirs, reduction="batchmean", log_target=True))

    assert divergence(models[0]) < divergence(Share(method="m", codebooks=KMeans(entries=4))(tied, data).model)


def test_half_precision_tables_stay_so_after_training(tied):
    tune = Tune(fit=Fit(epochs=1, batch_size=8, optimizer=SGD(lr=0.1)))
    model = Share(method="m", codebooks=KMeans(entries=4), tune=tune, stored=torch.float16)(tied, arrays(6)).model
    table = model.tensor("head.weight_table").detach()
    assert torch.equal(table, table.half().float())
    with pytest.raises(PreconditionError, match="float32"):
        rounded(torch.tensor([1e6]), torch.float16)


# The step.


def test_report_counts_bits_of_what_was_shared(tied):
    entry = Share(method="quantize.x", codebooks=KMeans(entries=4), exclude=("head",))(tied, arrays(6)).report.entries[0]
    assert entry.method == "quantize.x"
    assert entry.metrics == {"bits_per_weight": (36 * 2 + 4 * 32) / 36}
    assert [row["layer"] for row in entry.layers] == [SHARED]
    assert any("head left as it is: excluded" in note for note in entry.notes)
    assert "0x" not in entry.recipe


def test_layers_that_would_not_shrink_are_left_alone(tied):
    result = Share(method="m", codebooks=KMeans(entries=21, solver=Exact()))(tied, arrays(6))
    assert [row["layer"] for row in result.report.entries[0].layers] == [SHARED]
    assert any(note.startswith("head left as it is") for note in result.report.entries[0].notes)
    with pytest.raises(PreconditionError, match="fewer entries"):
        Share(method="m", codebooks=KMeans(entries=256, solver=Exact()))(tied, arrays(6))


def test_the_caller_keeps_its_model(tied):
    before = {name: tensor.clone() for name, tensor in tied.state_dict().items()}
    Share(method="m", codebooks=KMeans(entries=2), weighting=Fisher(), tune=Tune(fit=Fit(epochs=1)))(tied, arrays(6))
    assert all(torch.equal(before[name], tensor) for name, tensor in tied.state_dict().items())


@pytest.mark.parametrize("make", [
    lambda: KMeans(entries=1), lambda: Product(entries=2**17), lambda: Residual(stages=0), lambda: Subvectors(0), lambda: Blocks(spatial=0),
    lambda: Hashed(compression=0.5), lambda: Frequencies(compression=0.0), lambda: Frequencies(beta=0.0), lambda: Imitation(temperature=0.0),
])
def test_settings_are_checked(make):
    with pytest.raises(RecipeError):
        make()


def test_refusals(tied):
    data = arrays(6)
    with pytest.raises(UnknownNameError, match="hea"):
        Share(method="m", codebooks=KMeans(), exclude=("hea",))(tied, data)
    with pytest.raises(PreconditionError, match="then quantize"):
        Share(method="m", codebooks=KMeans())(minmax(samples=32)(tied, data).model, data)
    shared = Share(method="m", codebooks=KMeans(entries=4))(tied, data).model
    with pytest.raises(PreconditionError, match="nothing to share"):
        Share(method="m", codebooks=KMeans())(shared, data)


# Then quantized.


@pytest.mark.parametrize("net", ["residual", "sequence", "attention"])
def test_activations_are_quantized_and_weights_stay(net):
    make, shape = NETS[net]
    torch.manual_seed(0)
    data = arrays(*shape)
    result = chain(Share(method="m", codebooks=KMeans(entries=4)), minmax(samples=32))(make().eval(), data)
    assert is_quantized(result.model)
    layers = [row["layer"] for row in result.report.entries[0].layers]
    weights = [q.layer for q in result.model.modules() if isinstance(q, Quantizer) and q.weight]
    assert not set(weights) & set(layers)
    for name in layers:
        wanted = f"{name}: the table that the weight is looked up in stays"
        assert any(note.startswith(wanted) for note in result.report.entries[1].notes)
    with torch.no_grad():
        assert bool(torch.isfinite(result.model(data.example(4))).all())


def test_tables_can_have_a_grid_of_their_own():
    make, shape = NETS["residual"]
    torch.manual_seed(0)
    data = arrays(*shape)
    shared = Share(method="m", codebooks=Residual(entries=4), partition=Subvectors(3))(make().eval(), data).model
    model = Static(scheme=Scheme(tables=Integer(bits=4)), samples=32)(shared, data).model
    found = [q for q in model.modules() if isinstance(q, Quantizer) and q.weight]
    assert len(found) == 6  # two stages of three layers, and no signs
    assert all(q.grid == Integer(bits=4) and q.scale.shape == () for q in found)


def test_tables_train_with_quantized_activations():
    make, shape = NETS["residual"]
    torch.manual_seed(0)
    data = arrays(*shape)
    shared = Share(method="m", codebooks=KMeans(entries=4))(make().eval(), data).model
    result = qat(fit=Fit(epochs=1, batch_size=16, optimizer=SGD(lr=0.05)))(shared, data)
    assert not torch.equal(result.model.tensor("head.weight_table"), shared.tensor("head.weight_table"))
    assert torch.equal(result.model.tensor("head.weight_codes"), shared.tensor("head.weight_codes"))
    assert bool(torch.isfinite(result.model.eval()(data.example(2))).all())
