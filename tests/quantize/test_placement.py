import copy

import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn

from lilliput.core.errors import PreconditionError, RecipeError, UnknownNameError
from lilliput.graph.fold import fold_batchnorm_
from lilliput.graph.shapes import fake_values
from lilliput.graph.trace import trace
from lilliput.quantize import (
    BiasQuantizer,
    Quantizer,
    SameQuantizer,
    Scheme,
    Uniform,
    check_calibrated,
    is_quantized,
    minmax,
    prepare,
)
from lilliput.quantize.lower import lower_
from lilliput.quantize.operators import CLAMPS, LAYERS, is_norm, is_transparent, is_zero
from lilliput.quantize.place import place_
from lilliput.zoo import create

FAMILIES = {**NETS, **{name: (lambda name=name: create(name, num_classes=4, in_chans=2), (2, 32, 32))
                       for name in ("resnet8", "mobilenet_v2", "ds_cnn")}}


def _float_edges(quantized):
    """Edges that carry floating point from an operator (or input) to another and pass no quantizer."""
    values = fake_values(quantized, quantized.example)
    modules = dict(quantized.named_modules())
    edges = []
    for node in quantized.graph.nodes:
        if node.op not in ("call_function", "output"):
            continue
        for source in node.all_input_nodes:
            value = values.get(source)
            if source.op == "call_module":
                assert isinstance(modules[source.target], Quantizer | SameQuantizer | BiasQuantizer)
            elif not (isinstance(value, torch.Tensor) and value.is_floating_point()) or is_transparent(source) or is_zero(source) or (source.op == "get_attr" and is_norm(node)):
                continue
            elif not (node.target in CLAMPS and len(source.users) == 1):
                edges.append((source.name, node.name))
    return edges


@pytest.mark.parametrize("family", FAMILIES)
def test_every_edge_is_quantized(family):
    build, shape = FAMILIES[family]
    torch.manual_seed(0)
    data = arrays(*shape, samples=16)
    model = build().eval()
    before = copy.deepcopy(model.state_dict())
    quantized, _ = prepare(model, data, Scheme(), samples=16)
    assert _float_edges(quantized) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    x = data.example(8)
    with torch.no_grad():
        reference, result = model(x), quantized(x)
    assert (result - reference).square().mean() < 0.02 * reference.square().mean()
    exported = torch.export.export(quantized, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert torch.equal(exported.module()(x), result)
    assert not any(node.op == "call_module" for node in exported.graph.nodes)
    assert torch.equal(copy.deepcopy(quantized)(x), result)


def test_lowering_alone_changes_nothing():
    for build, shape in NETS.values():
        model, x = build().eval(), torch.randn(3, *shape)
        traced = copy.deepcopy(trace(model, x))
        fold_batchnorm_(traced)
        lower_(traced)
        torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_masked_attention_survives(causal):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            y = self.inner(x)[:, None]
            mask = None if causal else torch.ones(5, 5, dtype=torch.bool).tril()
            return nn.functional.scaled_dot_product_attention(y, y, y, attn_mask=mask, is_causal=causal)[:, 0]

    data = arrays(5, 4)
    model = Masked().eval()
    quantized, _ = prepare(model, data, Scheme())
    x = data.example(8)
    assert (quantized(x) - model(x)).abs().max() < 0.05 * model(x).abs().max()
    changed = x.clone()
    changed[:, -1] += 1
    assert torch.equal(quantized(changed)[:, :-1], quantized(x)[:, :-1])


def test_moved_values_keep_their_quantizer_and_clamps_come_first():
    quantized, _ = prepare(NETS["residual"][0]().eval(), arrays(2, 8, 8), Scheme())
    modules = dict(quantized.named_modules())
    for node in quantized.graph.nodes:
        name = str(node.target)
        if "max_pool2d" in name and node.op == "call_function":
            before, after = modules[node.args[0].target], modules[next(iter(node.users)).target]
            assert isinstance(after, SameQuantizer)
            assert after.source is before
        if node.target in LAYERS and len(node.users) == 1 and next(iter(node.users)).target in CLAMPS:
            (clamp,) = node.users
            quantizer = modules[next(iter(clamp.users)).target]
            assert quantizer.zero_point == 0  # so that the clamp is absorbed by saturation


def test_weight_axes_and_bias_scales():
    for name in ("sequence", "volume", "residual"):
        quantized, _ = prepare(NETS[name][0]().eval(), arrays(*NETS[name][1]), Scheme())
        modules = dict(quantized.named_modules())
        for node in quantized.graph.nodes:
            if node.target not in LAYERS:
                continue
            inputs, weight, bias = (modules[argument.target] for argument in node.args[:3])
            transposed = "transpose" in str(node.target)
            tensor = quantized.tensor(node.args[1].args[0].target)
            assert weight.grid.axis == (1 if transposed else 0)
            expected = tensor.transpose(0, 1).flatten(1).abs().amax(1) if transposed else tensor.flatten(1).abs().amax(1)
            torch.testing.assert_close(weight.scale * 127, expected)
            assert torch.equal(bias.scale, getattr(inputs, "source", inputs).scale * weight.scale)


def test_excluded_layers_stay_float_and_are_named():
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    quantized, notes = prepare(model, data, Scheme(exclude=("stem", "head*")))
    assert [note for note in notes if "excluded" in note] == ["stem stays in floating point: excluded", "head stays in floating point: excluded"]
    names = {module.layer for module in quantized.modules() if isinstance(module, Quantizer) and module.weight}
    assert names == {"depthwise"}
    assert {edge for edge in _float_edges(quantized) if "weight" not in edge[0] and "bias" not in edge[0]} == {
        ("x", "conv2d"), ("relu", "max_pool2d"), ("linear", "output")}
    with pytest.raises(UnknownNameError, match="depthwise"):
        prepare(model, data, Scheme(exclude=("deptwise",)))


def test_bits_go_where_the_allocation_says():
    scheme = Scheme(bits=Uniform(weights=3, activations=4, ends=8))
    quantized, _ = prepare(NETS["residual"][0]().eval(), arrays(2, 8, 8), scheme)
    weights = {module.layer: module.grid.bits for module in quantized.modules() if isinstance(module, Quantizer) and module.weight}
    assert weights == {"stem": 8, "depthwise": 3, "head": 8}
    results = {module.layer: module.grid.bits for module in quantized.modules() if isinstance(module, Quantizer) and not module.weight}
    assert results["x"] == 8
    assert results["stem"] == 8  # an addition and a concatenation read it too
    assert results["depthwise.input"] == 4
    assert results["depthwise"] == results["head"] == 8


def test_sums_have_the_bits_that_the_scheme_says():
    scheme = Scheme(bits=Uniform(weights=3, activations=4, ends=8), others=5)
    quantized, _ = prepare(NETS["residual"][0]().eval(), arrays(2, 8, 8), scheme)
    results = {module.layer: module.grid.bits for module in quantized.modules() if isinstance(module, Quantizer) and not module.weight}
    assert results["stem"] == results["depthwise"] == 5
    assert results["depthwise.input"] == 4
    assert results["x"] == results["head"] == 8  # the ends' inputs, and the output
    with pytest.raises(RecipeError, match="bits are a whole number"):
        Scheme(others=0)


def test_operators_that_write_in_place_are_left_alone():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = self.a(x)
            y[:, 0] += 1
            return self.b(y)

    data, model = arrays(2, 4, 4), Writes().eval()
    quantized, notes = prepare(model, data, Scheme())
    assert any("writes in place" in note for note in notes)
    x = data.example(8)
    assert (quantized(x) - model(x)).abs().max() < 0.1 * model(x).abs().max()


def test_refusals():
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    quantized = minmax()(model, data).model
    with pytest.raises(PreconditionError, match="quantized already"):
        minmax()(quantized, data)
    assert is_quantized(torch.export.export(quantized, (data.example(),)).module())
    assert not is_quantized(model)
    with pytest.raises(PreconditionError, match="nothing to quantize"):
        minmax()(nn.Sequential(nn.ReLU()), data)
    bare = copy.deepcopy(trace(model, data.example())).eval()
    fold_batchnorm_(bare)
    place_(bare, Scheme())
    for use in (lambda: bare(data.example()), lambda: check_calibrated(bare)):
        with pytest.raises(PreconditionError, match=r"never calibrated.*calibrate"):
            use()
