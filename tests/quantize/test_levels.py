"""Grids that are tables: their levels, the operator, its gradients, training on them and the exported model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.quantize.quantize_nets import NETS, arrays

from lilliput.core.errors import RecipeError
from lilliput.deploy.onnx import export, read
from lilliput.deploy.runtime import Session
from lilliput.quantize import (
    AdditivePowersOfTwo,
    Binary,
    Levels,
    Minifloat,
    PowerOfTwo,
    Scheme,
    Ternary,
    Uniform,
    equip,
    fake_levels,
    prepare,
    settle_,
)

TABLES = (Binary(), Ternary(), PowerOfTwo(bits=4), AdditivePowersOfTwo(bits=4), Minifloat(exponent=2, mantissa=1), Levels(values=(-1.0, -0.25, 0.5, 2.0)))


def test_levels_by_hand():
    assert Binary().levels == (-1.0, 1.0)
    assert Ternary().levels == (-1.0, 0.0, 1.0)
    assert PowerOfTwo(bits=3).levels == (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
    assert PowerOfTwo(bits=2, signed=False).levels == (0.0, 0.25, 0.5, 1.0)
    # Two exponent bits, one of mantissa: subnormals 0 and 0.5, then 1, 1.5, 2, 3, 4, 6.
    assert Minifloat(exponent=2, mantissa=1).levels[7:] == pytest.approx([0, 0.5 / 6, 1 / 6, 1.5 / 6, 2 / 6, 0.5, 4 / 6, 1])
    # Sums of one of {0, 1, 1/4, 1/16} and one of {0, 1/2, 1/8, 1/32}, over the largest, 3/2.
    sums = sorted({a + b for a in (0, 1, 1 / 4, 1 / 16) for b in (0, 1 / 2, 1 / 8, 1 / 32)})
    assert AdditivePowersOfTwo(bits=4, signed=False).levels == pytest.approx([v / 1.5 for v in sums])
    # The authors' three bits: {0, 1, 1/2, 1/8} and {0, 1/4}.
    sums = sorted({a + b for a in (0, 1, 1 / 2, 1 / 8) for b in (0, 1 / 4)})
    assert AdditivePowersOfTwo(bits=4).levels[7:] == pytest.approx([v / 1.25 for v in sums])


@pytest.mark.parametrize(("grid", "bits"), [(Binary, 2), (Ternary, 1), (PowerOfTwo, 7), (AdditivePowersOfTwo, 1)])
def test_widths_that_a_table_does_not_have_are_refused(grid, bits):
    with pytest.raises(RecipeError, match="bits"):
        grid(bits=bits)
    with pytest.raises(RecipeError, match="ascending"):
        Levels(values=(1.0, 0.0))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TABLES), st.floats(0.01, 10), st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=20))
def test_the_operator_picks_the_nearest_level(grid, scale, values):
    x = torch.tensor(values)
    y = fake_levels(x, torch.tensor(scale), grid.table, grid.thresholds, -1)
    levels = grid.table.double() * torch.tensor(scale).double()
    best = (x.double()[:, None] - levels).abs().amin(1)
    assert torch.allclose((y.double() - x).abs(), best, atol=1e-5)
    assert torch.equal(fake_levels(y, torch.tensor(scale), grid.table, grid.thresholds, -1), y)


def test_every_slice_has_its_own_scale_and_table():
    x = torch.randn(4, 3, 5)
    scale, table = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 0.5, 1.0], [-0.2, 0.0, 1.0]])
    thresholds = (table[:, 1:] + table[:, :-1]) / 2
    y = fake_levels(x, scale, table, thresholds, 1)
    for i in range(3):
        assert torch.equal(y[:, i], fake_levels(x[:, i], scale[i], table[i], thresholds[i], -1))


def test_gradients_are_those_of_the_chosen_level():
    x, scale = torch.tensor([-3.0, -0.6, 0.1, 0.9], requires_grad=True), torch.tensor(2.0, requires_grad=True)
    table = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    y = fake_levels(x, scale, table, torch.tensor([-0.5, 0.5]), -1)
    assert y.tolist() == [-2.0, 0.0, 0.0, 0.0]
    (y * torch.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert x.grad.tolist() == [0.0, 10.0, 100.0, 1000.0]
    assert scale.grad.item() == -1.0
    assert table.grad.tolist() == [2.0, 2220.0, 0.0]


def test_the_operator_is_well_registered():
    arguments = (torch.randn(3, 4, requires_grad=True), torch.rand(3) + 0.1, Ternary().table, Ternary().thresholds, 0)
    torch.library.opcheck(fake_levels, arguments, test_utils=("test_schema", "test_faketensor", "test_autograd_registration"))


@pytest.mark.parametrize("grid", TABLES, ids=lambda grid: type(grid).__name__)
@pytest.mark.parametrize("activations", [32, 8])
def test_weights_on_a_table_are_exported_packed_and_exact(grid, activations, tmp_path):
    data = arrays(2, 8, 8)
    scheme = Scheme(weights=grid.along(0), exclude=("head",) if activations == 8 else ())
    model, _ = prepare(NETS["residual"][0]().eval(), data, scheme, samples=16)
    if activations == 32:
        for module in list(model.modules()):
            if getattr(module, "weight", True) is False:
                module.forward = lambda x: x
    path = export(model, tmp_path / "model.onnx", data.example(4), check=activations == 8)
    with torch.no_grad():
        wanted = model(data.example(4)).numpy()
    got = Session(path)(data.example(4).numpy())
    assert np.abs(got - wanted).max() <= 0.02 * np.abs(wanted).max()
    stored = {i.name: i for i in read(path).graph.initializer if i.name.endswith("stem.weight.codes")}
    assert stored
    if isinstance(grid, Binary):
        assert len(next(iter(stored.values())).raw_data) == 8 * 2 * 9 // 8


def test_activations_on_a_table_are_exported_with_standard_operators(tmp_path):
    data = arrays(2, 8, 8)
    scheme = Scheme(activations=PowerOfTwo(bits=4, signed=True), bits=Uniform(weights=4, activations=4))
    model, _ = prepare(NETS["residual"][0]().eval(), data, scheme, samples=16)
    session = Session(export(model, tmp_path / "model.onnx", data.example(4)))
    with torch.no_grad():
        wanted = model(data.example(4)).numpy()
    assert np.abs(session(data.example(4).numpy()) - wanted).max() <= 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("grid", [None, Binary(axis=0), Levels(values=(-1.0, 0.0, 0.5), axis=0), Ternary()], ids=str)
def test_folding_after_training_keeps_the_codes(grid):
    """Batch norm behind quantized weights, folded: the same function, the weights on the scaled grid."""
    data = arrays(2, 8, 8)
    scheme = Scheme() if grid is None else Scheme(weights=grid)
    network = NETS["residual"][0]()
    with torch.no_grad():
        for norm in (network.norm, network.norm2):
            norm.weight.copy_(torch.linspace(-1.5, 1.5, 8))
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    model, _ = equip(network, data, scheme)
    assert any(node.target is torch.ops.aten.batch_norm.default for node in model.graph.nodes)
    with torch.no_grad():
        before = model.eval()(data.example(8))
        settle_(model)
        after = model(data.example(8))
    assert not any("batch_norm" in str(node.target) for node in model.graph.nodes if node.op == "call_function")
    step = (after.max() - after.min()) / 255
    assert (after - before).abs().max() <= 2 * step + 1e-5
    for node in model.graph.nodes:
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if getattr(module, "weight", False):
            tensor = model.tensor(str(node.args[0].target)).detach()
            if module.layer in ("stem", "depthwise"):
                assert torch.allclose(module(tensor), tensor, atol=1e-6, rtol=1e-5)
