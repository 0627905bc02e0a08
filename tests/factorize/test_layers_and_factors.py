"""Layers are found with their settings or named with the reason; chains equal the one layer that they make up."""

import copy
import math

import numpy as np
import pytest
import torch
from factorize_nets import Data, layers_of, plain, tensors_of
from torch import nn
from torch.nn import functional as F

from lilliput.core import UnknownNameError
from lilliput.factorize.factors import Factor, composed, params, replace_, run
from lilliput.factorize.filterbasis import FilterBasis
from lilliput.factorize.layers import find, node_of
from lilliput.factorize.lowrank import Kernels, Separable
from lilliput.factorize.observe import inputs_and_outputs, patches, responses, unfolded
from lilliput.factorize.responses import Responses
from lilliput.factorize.tucker import Tucker
from lilliput.graph import profile, trace

SETTINGS = [((3, 3), (1, 1), (1, 1), (1, 1)), ((3, 3), (2, 1), (0, 2), (1, 1)), ((5, 3), (1, 2), (2, 1), (2, 1)), ((2, 4), (3, 2), (1, 0), (1, 2))]


def convolution(kernel, stride, padding, dilation, bias=True, groups=1, outputs=8):
    torch.manual_seed(3)
    conv = nn.Conv2d(6, outputs, kernel, stride, padding, dilation, groups, bias)
    return trace(nn.Sequential(conv).double().eval(), torch.randn(2, 6, 11, 12, dtype=torch.float64))


def test_layers_have_the_settings_of_their_operators():
    found = layers_of(plain())
    assert list(found) == ["a", "b", "c", "d", "fc", "out"]
    assert found["b"].stride == (2, 2)
    assert found["b"].bias is None
    assert (found["b"].inputs, found["b"].outputs, found["b"].positions) == ((8, 8), (4, 4), 16)
    assert (found["c"].dilation, found["c"].padding, found["d"].groups) == ((2, 2), (2, 2), 16)
    counted = {row.layer: row.macs for row in profile(plain()).layers if row.macs}
    assert {name: layer.macs for name, layer in found.items()} == counted


def test_what_cannot_be_rewritten_is_named_with_its_reason():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.even = nn.Conv2d(3, 4, 2, padding="same")
            self.same = nn.Conv2d(4, 4, 3, padding="same", dilation=2)
            self.up, self.twice, self.last = nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

        def forward(self, x):
            x = self.twice(F.relu(self.twice(self.up(self.same(self.even(x))))))
            return F.linear(x.mean((2, 3)), self.last.weight * 2, self.last.bias)

    layers, notes = find(trace(Odd().eval(), torch.zeros(2, 3, 8, 8)))
    assert [(layer.name, layer.padding) for layer in layers] == [("same", (2, 2))]
    text = "\n".join(notes)
    for reason in ("even left as it is: it pads one side", "up left as it is: a transposed", "twice left as it is: its weight is used more",
                   "its weight is computed in the graph"):
        assert reason in text


def test_excluded_layers_are_named_and_unknown_patterns_refused():
    layers, notes = find(plain(), ("a", "f*"))
    assert [layer.name for layer in layers] == ["b", "c", "d", "out"]
    assert notes == ("a left as it is: excluded", "fc left as it is: excluded")
    with pytest.raises(UnknownNameError, match="did you mean out"):
        find(plain(), ("outt",))


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), SETTINGS)
@pytest.mark.parametrize("groups", [1, 2])
def test_patches_times_weight_is_the_convolution(kernel, stride, padding, dilation, groups):
    traced = convolution(kernel, stride, padding, dilation, groups=groups)
    layer = layers_of(traced)["0"]
    x, y = inputs_and_outputs(traced, (layer,), torch.randn(3, 6, 11, 12, dtype=torch.float64))["0"]
    weight, bias = tensors_of(traced, layer)
    seen = patches(layer, x) @ weight.reshape(groups, -1, math.prod(layer.shape[1:])).mT
    torch.testing.assert_close(seen.movedim(0, 1).flatten(1) + bias, responses(y, layer))


def test_patches_in_one_and_three_dimensions():
    x = torch.randn(2, 4, 5, 6, 7, dtype=torch.float64)
    weight = torch.randn(3, 4, 2, 3, 1, dtype=torch.float64)
    seen = unfolded(x, (2, 3, 1), (1, 2, 3), (1, 1, 0), (2, 1, 1))[0] @ weight.flatten(1).T
    wanted = F.conv3d(x, weight, None, (1, 2, 3), (1, 1, 0), (2, 1, 1))
    torch.testing.assert_close(seen, wanted.movedim(1, -1).reshape(-1, 3))
    line = unfolded(x[:, :, 0, 0], (3,), (2,), (1,), (1,))[0] @ weight[..., 0, :, 0].flatten(1)[:, :12].T
    assert line.shape == (2 * 4, 3)


DECOMPOSITIONS = [Kernels(), Separable(), Tucker(), FilterBasis(channels=3), FilterBasis(channels=6)]


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS, ids=repr)
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), SETTINGS)
def test_full_rank_chains_are_the_convolution_itself(decomposition, kernel, stride, padding, dilation):
    traced = convolution(kernel, stride, padding, dilation)
    layer = layers_of(traced)["0"]
    ready = decomposition(layer, tensors_of(traced, layer), None)
    full = tuple(len(s.values) for s in ready.spectra)
    x = torch.randn(2, 6, 11, 12, dtype=torch.float64)
    torch.testing.assert_close(run(ready.factors(full, None), x), traced(x), atol=1e-9, rtol=0)


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS, ids=repr)
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), SETTINGS)
def test_a_chain_in_the_graph_equals_its_one_weight_and_costs_what_was_said(decomposition, kernel, stride, padding, dilation):
    traced = convolution(kernel, stride, padding, dilation)
    layer = layers_of(traced)["0"]
    ready = decomposition(layer, tensors_of(traced, layer), None)
    ranks = tuple(max(1, len(s.values) // 3) for s in ready.spectra)
    factors = ready.factors(ranks, None)
    small = copy.deepcopy(traced)
    replace_(small, layer, factors)
    x = torch.randn(3, 6, 11, 12, dtype=torch.float64)
    weight, bias = composed(factors, layer), tensors_of(traced, layer)[1]
    torch.testing.assert_close(small(x), F.conv2d(x, weight, bias, stride, padding, dilation), atol=1e-9, rtol=0)
    torch.testing.assert_close(run(factors, x), small(x), atol=1e-9, rtol=0)
    assert profile(small).macs == ready.macs(ranks)
    assert profile(small).params - len(bias) == ready.params(ranks) == params(factors)
    assert layer.weight not in dict(small.named_parameters())
    assert layer.weight in dict(traced.named_parameters())


@pytest.mark.parametrize("decomposition", [*DECOMPOSITIONS, Responses()], ids=repr)
def test_grouped_convolutions_are_left_and_named(decomposition):
    traced = convolution((3, 3), (1, 1), (1, 1), (1, 1), groups=2)
    layer = layers_of(traced)["0"]
    assert decomposition(layer, tensors_of(traced, layer), None) == "a grouped convolution"


def test_linear_layers_on_tokens():
    torch.manual_seed(0)
    traced = trace(nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 4)).eval(), torch.randn(2, 7, 12))
    layer = layers_of(traced)["0"]
    assert layer.outputs == (7,)
    ready = Kernels()(layer, tensors_of(traced, layer), None)
    factors = ready.factors((12,), None)
    x = torch.randn(3, 7, 12)
    torch.testing.assert_close(run(factors, x), F.linear(x, *tensors_of(traced, layer)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(composed(factors, layer), traced.tensor("0.weight").double(), atol=1e-6, rtol=0)
    before = traced(x)
    replace_(traced, layer, factors)
    torch.testing.assert_close(traced(x), before, atol=1e-5, rtol=1e-5)
    assert profile(traced).macs == 7 * (12 * 12 + 12 * 20 + 20 * 4)


def test_factors_keep_whether_a_weight_trains_and_a_root_weight_has_a_name():
    traced = trace(nn.Linear(6, 4).eval(), torch.zeros(2, 6))
    traced.weight.requires_grad_(False)
    layer = next(iter(find(traced)[0]))
    replace_(traced, layer, Kernels()(layer, tensors_of(traced, layer), None).factors((1,), None))
    assert {n: p.requires_grad for n, p in traced.named_parameters()} == {
        "factor0.weight": False, "factor1.weight": False, "factor1.bias": False}


@pytest.mark.parametrize(("kind", "kernel", "sides"), [(nn.Conv1d, (3,), (9,)), (nn.Conv3d, (2, 3, 1), (5, 6, 4)), (nn.Conv2d, (1, 1), (6, 5))])
@pytest.mark.parametrize("decomposition", [Kernels(), Tucker(), FilterBasis(channels=2), FilterBasis(channels=4)], ids=repr)
def test_chains_in_any_number_of_dimensions(decomposition, kind, kernel, sides):
    torch.manual_seed(1)
    traced = trace(nn.Sequential(kind(4, 6, kernel, stride=2, padding=1)).double().eval(), torch.zeros(2, 4, *sides, dtype=torch.float64))
    layer = layers_of(traced)["0"]
    ready = decomposition(layer, tensors_of(traced, layer), None)
    x = torch.randn(3, 4, *sides, dtype=torch.float64)
    full = ready.factors(tuple(len(s.values) for s in ready.spectra), None)
    torch.testing.assert_close(run(full, x), traced(x), atol=1e-9, rtol=0)
    ranks = tuple(max(1, len(s.values) // 2) for s in ready.spectra)
    factors, small = ready.factors(ranks, None), copy.deepcopy(traced)
    replace_(small, layer, factors)
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(kernel)]
    torch.testing.assert_close(small(x), function(x, composed(factors, layer), tensors_of(traced, layer)[1], 2, 1), atol=1e-9, rtol=0)
    assert profile(small).macs == ready.macs(ranks)
    assert profile(small).params - 6 == ready.params(ranks)


def test_what_has_no_rows_and_columns_or_kernels_says_so():
    for module, shape in ((nn.Conv1d(4, 6, 3), (4, 9)), (nn.Conv3d(4, 6, 3), (4, 5, 5, 5)), (nn.Conv2d(4, 6, 1), (4, 5, 5)), (nn.Linear(4, 6), (4,))):
        traced = trace(nn.Sequential(module).eval(), torch.zeros(2, *shape))
        layer = layers_of(traced)["0"]
        assert Separable()(layer, tensors_of(traced, layer), None) == "its kernel has no rows and columns to separate"
    assert FilterBasis()(layer, tensors_of(traced, layer), None) == "a linear layer has no kernels"


def test_recurrent_layers_are_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(5, 6, batch_first=True), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    layers, notes = find(trace(Net().eval(), torch.zeros(2, 3, 5)))
    assert [layer.name for layer in layers] == ["head"]
    assert notes == ("gru left as it is: a recurrent layer",)


def test_three_factors_in_one_dimension():
    traced = trace(nn.Sequential(nn.Conv1d(4, 6, 3, stride=2, padding=1)).double().eval(), torch.zeros(2, 4, 9, dtype=torch.float64))
    layer = layers_of(traced)["0"]
    assert node_of(traced, layer).name == layer.node
    factors = Tucker()(layer, tensors_of(traced, layer), None).factors((3, 2), None)
    assert [tuple(f.weight.shape) for f in factors] == [(2, 4, 1), (3, 2, 3), (6, 3, 1)]
    replace_(traced, layer, factors)
    x = torch.randn(2, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(traced(x), run(factors, x))


def test_repeats_share_one_weight_among_groups():
    weight = torch.randn(2, 3, 3, 3)
    x = torch.randn(2, 6, 5, 5)
    wanted = torch.cat([F.conv2d(x[:, :3], weight), F.conv2d(x[:, 3:], weight)], 1)
    torch.testing.assert_close(Factor(weight=weight, repeats=2)(x), wanted)


def test_smooth_data_is_correlated():
    x = Data().train.inputs
    assert np.corrcoef(x[..., :-1].flatten().numpy(), x[..., 1:].flatten().numpy())[0, 1] > 0.4
