"""Coupled channels: the small network equals the large one with the same channels silenced, whatever the wiring."""

import numpy as np
import pytest
import torch
from benchmarks.masked import half, masked_output, randomise_constants_
from networks import NETWORKS, build
from torch import nn

from lilliput import zoo
from lilliput.core import BudgetError
from lilliput.graph import Coupling, profile, shrink, trace
from lilliput.graph.cost import Cost


def prune_half(model, example, seed=0):
    randomise_constants_(model)
    traced = trace(model, example)
    coupling = Coupling(traced)
    keep = half(coupling, seed)
    return traced, coupling, keep, shrink(coupling, keep)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_small_equals_masked_large(name, seed):
    model, example = build(name)
    traced, coupling, keep, small = prune_half(model, example, seed)
    assert not coupling.excluded
    expected, actual = masked_output(coupling, keep, example), small(example)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert (expected - traced(example)).abs().max() > 1e-3, "pruning changed nothing, so equality says nothing"
    small.train()(example).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_cost_in_closed_form_equals_profile(name):
    model, example = build(name)
    traced, coupling, keep, small = prune_half(model, example)
    cost = Cost(coupling)
    for mask, network in ((coupling.keep_all(), traced), (keep, small)):
        counted = profile(network)
        assert cost(mask) == pytest.approx({"macs": counted.macs, "params": counted.params})


@pytest.mark.parametrize("name", NETWORKS)
def test_smaller_network_shrinks_again_and_takes_any_batch(name):
    model, example = build(name)
    *_, small = prune_half(model, example)
    coupling = Coupling(small)
    keep = half(coupling, seed=3)
    smaller = shrink(coupling, keep)
    torch.testing.assert_close(smaller(example), masked_output(coupling, keep, example), atol=1e-5, rtol=1e-5)
    assert smaller(torch.cat([example] * 3)).shape[0] == 6
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in small.parameters())


def test_residual_ties_the_stream_and_leaves_the_inside_free():
    coupling = Coupling(trace(*build("residual")))
    assert {g.layers: g.units for g in coupling.groups} == {("stem", "b"): 8, ("a",): 12}


def test_heads_are_units_and_the_feed_forward_is_free():
    coupling = Coupling(trace(*build("attention")))
    assert sorted(g.units for g in coupling.groups) == [4, 24, 40]
    qkv = next(g for g in coupling.groups if "qkv" in g.layers)
    slot = next(s for s in qkv.slots if s.tensor == "qkv.weight" and s.role == "out")
    assert [int((slot.unit == u).sum()) for u in range(4)] == [18] * 4
    grouped = Coupling(trace(*build("grouped_query")))
    assert next(g for g in grouped.groups if "qkv" in g.layers).units == 2


def test_many_narrow_groups_go_whole_and_few_wide_ones_lose_positions():
    coupling = Coupling(trace(*build("grouped")))
    units = {g.layers: g.units for g in coupling.groups}
    keep = half(coupling)
    small = shrink(coupling, keep)
    convolutions = [n for n in small.graph.nodes if "conv2d" in str(n.target)]
    assert convolutions[2].args[6] == 2
    assert small.tensor("many.weight").shape[1] == 2
    assert len(units) == 2


def test_unknown_operators_are_excluded_and_named():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.b(self.a(x).sort(-1).values)

    coupling = Coupling(trace(Sorted(), torch.randn(2, 4)))
    assert coupling.groups == ()
    assert any("sort" in reason for reason in coupling.excluded.values())


def test_losing_the_last_channel_is_refused():
    coupling = Coupling(trace(*build("residual")))
    keep = coupling.keep_all()
    keep[coupling.groups[0].components] = False
    with pytest.raises(BudgetError, match="last channel"):
        shrink(coupling, keep)


def test_shrinking_leaves_the_original_alone():
    model, example = build("residual")
    traced = trace(model, example)
    before = traced(example)
    coupling = Coupling(traced)
    shrink(coupling, half(coupling))
    assert torch.equal(traced(example), before)


def test_zeroed_weights_alone_give_the_same_output():
    """Independent of the masking interpreter: silence channels by zeroing filters and norms of the eager network."""
    model, example = build("residual")
    _, coupling, keep, small = prune_half(model, example)
    with torch.no_grad():
        for tensor, dims in coupling.dims.items():
            value = model.get_parameter(tensor) if tensor in dict(model.named_parameters()) else None
            if value is not None and 0 in dims and not tensor.startswith("fc"):
                value[~torch.from_numpy(keep[dims[0]])] = 0
    torch.testing.assert_close(small(example), model(example), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in zoo.names() if n not in ("resnet18", "resnet50", "resnet56", "resnet20")])
def test_zoo(name):
    model = zoo.create(name, seed=0).eval()
    shape = zoo.input_shape(name)
    example = torch.randn(2, *shape) if zoo.input_dtype(name).is_floating_point else torch.randint(0, 32, (2, *shape))
    traced, coupling, keep, small = prune_half(model, example)
    assert coupling.groups
    assert not coupling.excluded
    torch.testing.assert_close(small(example), masked_output(coupling, keep, example), atol=1e-4, rtol=1e-4)
    assert profile(small).macs < 0.6 * profile(traced).macs


def test_labels_follow_a_reshape():
    from lilliput.graph.labels import compress, reshape

    vector = np.arange(1, 7).reshape(1, 6)
    heads = reshape(vector, (2, 6), (2, 3, 2))
    assert heads.shape == (1, 3, 2)
    flat = reshape(np.arange(1, 4).reshape(1, 3, 1), (2, 3, 4), (2, 12))
    assert flat.ravel().tolist() == [1] * 4 + [2] * 4 + [3] * 4
    merged = compress(reshape(np.arange(1, 4).reshape(1, 3), (2, 3), (6,)))
    assert merged is not None
    assert merged.tolist() == [1, 2, 3, 1, 2, 3]
