import copy

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from lilliput.core.errors import RecipeError
from lilliput.quantize import Integer, fake_quantize

grids = st.builds(Integer, bits=st.integers(2, 16), signed=st.booleans(), symmetric=st.booleans())
values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30)


def _apply(grid, x, scale, zero):
    return fake_quantize(x, scale, zero, grid.qmin, grid.qmax, -1 if grid.axis is None else grid.axis)


@settings(max_examples=150, deadline=None)
@given(grid=grids, numbers=values)
def test_values_lie_on_the_grid_and_quantizing_again_changes_nothing(grid, numbers):
    x = torch.tensor(numbers)
    scale, zero, dead = grid.parameters(x.min(), x.max())
    y = _apply(grid, x, scale, zero)
    codes = (y.double() / scale.double()).round() + zero
    assert codes.min() >= grid.qmin
    assert codes.max() <= grid.qmax
    assert torch.equal(((codes - zero).float() * scale), y)
    assert torch.equal(_apply(grid, y, scale, zero), y)
    assert _apply(grid, torch.zeros(1), scale, zero).item() == 0
    assert scale > 0
    if not dead and not (grid.symmetric and not grid.signed):
        # An affine grid loses up to half a step at either end to the rounding of its zero point.
        assert (y - x).abs().max() <= scale * 1.001


@settings(max_examples=50, deadline=None)
@given(numbers=values, zero=st.integers(0, 255), scale=st.floats(2**-10, 100, width=32))
def test_op_equals_the_integer_reference(numbers, zero, scale):
    x = np.array(numbers, dtype=np.float32)
    codes = np.clip(np.rint(x / np.float32(scale)) + zero, 0, 255).astype(np.int32)
    expected = (codes - zero).astype(np.float32) * np.float32(scale)
    got = fake_quantize(torch.from_numpy(x), torch.tensor(scale), torch.tensor(zero, dtype=torch.int32), 0, 255, -1)
    assert np.array_equal(got.numpy(), expected)


def test_op_is_the_one_of_onnx_runtime():
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind.FLOAT, [None])],
                              [helper.make_tensor_value_info("y", kind.FLOAT, [None])],
                              [helper.make_tensor("s", kind.FLOAT, [], [0.037]), helper.make_tensor("z", kind.UINT8, [], [101])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    x = torch.cat([torch.randn(5000) * 5, (torch.arange(-300, 300) + 0.5) * 0.037])
    expected = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})[0]
    got = fake_quantize(x, torch.tensor(0.037), torch.tensor(101, dtype=torch.int32), 0, 255, -1)
    assert np.array_equal(got.numpy(), expected)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_axis_quantizes_every_slice_alone(axis):
    x = torch.randn(3, 4, 5, 2)
    n = x.shape[axis]
    scale, zero = torch.rand(n) + 0.05, torch.randint(-3, 3, (n,), dtype=torch.int32)
    y = fake_quantize(x, scale, zero, -8, 7, axis)
    for i in range(n):
        assert torch.equal(y.select(axis, i), fake_quantize(x.select(axis, i), scale[i], zero[i], -8, 7, -1))


def test_gradients_worked_by_hand():
    # Esser 2020, equation 3, with s = 0.5 and codes -2 to 1: v = -3, -0.8, 0.4, 0.6, 2.4.
    x = torch.tensor([-1.5, -0.4, 0.2, 0.3, 1.2], requires_grad=True)
    s = torch.tensor(0.5, requires_grad=True)
    y = fake_quantize(x, s, torch.tensor(0, dtype=torch.int32), -2, 1, -1)
    assert y.tolist() == [-1.0, -0.5, 0.0, 0.5, 0.5]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    assert s.grad.item() == pytest.approx(-2 + (-1 + 0.8) + (0 - 0.4) + (1 - 0.6) + 1, abs=1e-5)


def test_scale_gradient_is_the_slope_at_fixed_codes():
    # With the rounding residual r held fixed, q(x; s) = (x / s + r) s in range, so the derivative is finite differences of that.
    torch.manual_seed(0)
    x, s, eps = torch.randn(4, 50).double(), torch.rand(4) * 0.1 + 0.1, 1e-4
    scale = s.clone().requires_grad_()
    weights = torch.randn(4, 50)
    (fake_quantize(x.float(), scale, torch.zeros(4, dtype=torch.int32), -7, 7, 0) * weights).sum().backward()

    def surrogate(step):
        v0 = x / s.double()[:, None]
        inside = (v0 > -7) & (v0 < 7)
        return torch.where(inside, (v0.round() - v0) * step[:, None], v0.sign() * 7 * step[:, None])

    up, down = surrogate(s.double() + eps), surrogate(s.double() - eps)
    expected = ((up - down) / (2 * eps) * weights).sum(1)
    torch.testing.assert_close(scale.grad.double(), expected, rtol=1e-3, atol=1e-3)


def test_op_passes_torchs_own_checks():
    x = torch.randn(3, 4, requires_grad=True)
    arguments = (x, torch.rand(3) + 0.1, torch.zeros(3, dtype=torch.int32), -127, 127, 0)
    torch.library.opcheck(fake_quantize, arguments, test_utils=("test_schema", "test_faketensor", "test_autograd_registration"))


def test_dead_channels_take_a_live_scale_and_stay_zero():
    grid = Integer(axis=0)
    scale, zero, dead = grid.parameters(torch.tensor([-1.0, 0.0, -4.0]), torch.tensor([2.0, 0.0, 1.0]))
    assert dead.tolist() == [False, True, False]
    assert scale[1] == scale[2] == torch.tensor(4.0) / 127
    assert zero.tolist() == [0, 0, 0]


def test_a_range_that_a_clamp_ends_is_not_exceeded():
    grid = Integer(signed=False, symmetric=False)
    for high in torch.linspace(0.1, 9, 500):
        scale, zero, _ = grid.parameters(torch.tensor(0.0), high)
        assert zero == 0
        assert scale.double() * 255 <= high.double()


@pytest.mark.parametrize("bits", [0, 1, 17, 8.0])
def test_widths_that_no_integer_grid_has(bits):
    with pytest.raises(RecipeError, match="bits"):
        Integer(bits=bits)


def test_half_precision_rounds_in_single():
    x = torch.linspace(-2, 2, 500).bfloat16()
    s, z = torch.tensor(0.0173), torch.tensor(3, dtype=torch.int32)
    assert torch.equal(fake_quantize(x, s, z, 0, 255, -1), fake_quantize(x.float(), s, z, 0, 255, -1).bfloat16())
    assert copy.copy(x).dtype == torch.bfloat16


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([torch.float32, torch.bfloat16]), st.floats(1e-3, 50), st.integers(-130, 130), st.integers(0, 2**31),
       st.sampled_from(["plain", "channels last", "slices"]))
def test_the_kernel_does_what_torch_does(dtype, scale, zero, seed, layout):
    """One pass in C against the same operator with a scale to each of the channels, which torch computes."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(3, 4, 5, 7, generator=generator) * 20).to(dtype)
    x.view(-1)[:6] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, 1e30, -scale / 2])
    x = {"plain": x, "channels last": x.contiguous(memory_format=torch.channels_last), "slices": x[..., ::2]}[layout]
    weights = torch.randn(x.shape, generator=generator).to(dtype)
    results = []
    for channels in (False, True):
        own = x.clone().requires_grad_()
        s = torch.full((4,) if channels else (), scale, requires_grad=True)
        z = torch.full(s.shape, zero, dtype=torch.int32)
        y = fake_quantize(own, s, z, -128, 127, 1 if channels else -1)
        finite = torch.where(torch.isfinite(x), weights, torch.zeros_like(weights))
        (torch.nan_to_num(y) * finite).sum().backward()
        results.append((y.detach(), own.grad, s.grad.sum()))
    (y, grad, slope), (y_torch, grad_torch, slope_torch) = results
    assert torch.equal(torch.nan_to_num(y), torch.nan_to_num(y_torch))
    assert torch.equal(torch.isnan(y), torch.isnan(y_torch))
    assert torch.equal(grad[torch.isfinite(x)], grad_torch[torch.isfinite(x)])
    if torch.isfinite(slope_torch):
        assert abs(float(slope - slope_torch)) <= 2e-3 * max(1.0, float(slope_torch.abs()), 127 * float(weights.abs().sum().float()) * 0.02)
