from dataclasses import dataclass, field
from fractions import Fraction

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph.trace import trace
from lilliput.quantize.low_precision import FP8, FP16, Arithmetic, Chunked, Ends, FixedPoint, Operands, Rounded, Stochastic, Wide
from lilliput.quantize.low_precision.layers import Layer
from lilliput.quantize.low_precision.place import emulated, original_
from lilliput.quantize.low_precision.windows import Dense, Window
from lilliput.quantize.recipes.low_precision import fp8_training, int8_training

EXACT = Arithmetic(forward=Wide(dtype=torch.float64), backward=Wide(dtype=torch.float64), gradient=Wide(dtype=torch.float64))


def test_a_long_sum_swamps_and_chunks_do_not():
    # From 1024 on the spacing of 1-6-9 is 2, so that adding 1 goes back to the even 1024: the sum stops there. (Wang 2018, figure 3)
    ones = torch.ones(1, 4096)
    assert Chunked(chunk=4096, every_addition=True)(ones, ones.t()).item() == 1024
    assert Chunked(chunk=64, every_addition=True)(ones, ones.t()).item() == 4096
    assert Chunked(chunk=64)(ones, ones.t()).item() == 4096
    # With chance instead of nearest the long sum goes on, on average.
    chance = Chunked(number=Rounded(format=FP16, rounding=Stochastic()), chunk=4096, every_addition=True)
    assert 3000 < torch.stack([chance(ones, ones.t()) for _ in range(10)]).mean() < 5200


def _nearest(x: Fraction, mantissa: int) -> Fraction:
    if x == 0:
        return x
    exponent = 0
    while abs(x) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while abs(x) < Fraction(2) ** exponent:
        exponent -= 1
    step = Fraction(2) ** (exponent - mantissa)
    return round(x / step) * step  # Python rounds ties to even


@pytest.mark.parametrize(("chunk", "every"), [(4, True), (4, False), (64, True), (1, True)])
def test_sums_against_exact_fractions(chunk, every):
    a, b = FP8.round(torch.randn(3, 11)), FP8.round(torch.randn(11, 2) * 30)
    got = Chunked(chunk=chunk, every_addition=every)(a, b)
    for i in range(3):
        for j in range(2):
            total = None
            for start in range(0, 11, chunk):
                part = Fraction(0)
                for k in range(start, min(start + chunk, 11)):
                    part += Fraction(a[i, k].item()) * Fraction(b[k, j].item())
                    part = _nearest(part, 9) if every else part
                part = _nearest(part, 9)
                total = part if total is None else _nearest(total + part, 9)
            assert got[i, j].item() == float(total)


def test_chunks_err_less_than_one_long_sum():
    a, b = FP8.round(torch.rand(20, 2048)), FP8.round(torch.rand(2048, 20))
    true = a.double() @ b.double()
    errors = [float(((Chunked(chunk=chunk, every_addition=True)(a, b) - true) / true).abs().mean()) for chunk in (2048, 64)]
    assert errors[1] < 0.1 * errors[0]
    # What the default leaves out is small beside what it keeps.
    default = float(((Chunked()(a, b) - true) / true).abs().mean())
    assert default < 2 * errors[1]


def test_a_wide_sum_rounds_once():
    grid = FixedPoint(integer=3, fraction=2)
    add = Wide(result=Rounded(format=grid))
    product = add(torch.tensor([[0.1, 0.1]]), torch.tensor([[1.0], [1.0]]))
    assert product.item() == pytest.approx(0.2)
    assert add.finish(product).item() == 0.25
    assert Wide(result=Rounded(format=grid, rounding=Stochastic())).nearest() == Wide(result=Rounded(format=grid))


sizes = st.integers(1, 3)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kernel=st.tuples(sizes, sizes), stride=st.tuples(sizes, sizes), dilation=st.tuples(sizes, sizes), groups=st.integers(1, 3))
def test_three_products_of_a_convolution_are_torchs(data, kernel, stride, dilation, groups):
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    height, width = (data.draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 9)) for d, k, p in zip(dilation, kernel, padding, strict=True))
    torch.manual_seed(0)
    x = torch.randn(2, 2 * groups, height, width, requires_grad=True)
    weight = torch.randn(3 * groups, 2, *kernel, requires_grad=True)
    bias = torch.randn(3 * groups, requires_grad=True)
    layer = Layer("layer", EXACT, Window(stride=stride, padding=(padding[0],) * 2 + (padding[1],) * 2, dilation=dilation, groups=groups))
    _same(layer(x, weight, bias), F.conv2d(x, weight, bias, stride, padding, dilation, groups), (x, weight, bias))


def _same(mine, theirs, tensors):
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    error = torch.randn_like(theirs)
    for a, b in zip(torch.autograd.grad(mine, tensors, error), torch.autograd.grad(theirs, tensors, error), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_linear_layers_and_convolutions_over_one_dimension():
    x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((3, 5, 7), (4, 7), (4,)))
    _same(Layer("dense", EXACT, Dense())(x, weight, bias), F.linear(x, weight, bias), (x, weight, bias))
    kernel = torch.randn(6, 5, 3, requires_grad=True)
    layer = Layer("conv", EXACT, Window(stride=(1, 2), padding=(0, 0, 1, 1)))
    _same(layer(x, kernel), F.conv1d(x, kernel, None, 2, 1), (x, kernel))


class Mixed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.same = torch.nn.Conv2d(2, 4, (2, 3), padding="same", dilation=2)
        self.deep = torch.nn.Conv2d(4, 4, 3, groups=4, bias=False)
        self.up = torch.nn.ConvTranspose2d(4, 3, 2)
        self.line = torch.nn.Conv1d(3, 5, 3, stride=2)
        self.head = torch.nn.Linear(5, 4)

    def forward(self, x):
        x = self.up(F.relu(self.deep(self.same(x)))).flatten(2)
        return self.head(self.line(x).mean(2))


def test_a_rewritten_network_is_the_same_function_and_comes_back():
    x = torch.randn(3, 2, 6, 6)
    network = trace(Mixed(), x)
    rewritten, notes = emulated(network, Ends(inner=EXACT))
    assert notes == ["up stays in float32: aten.conv_transpose2d.input is not emulated"]
    assert sum(isinstance(module, Layer) for module in rewritten.modules()) == 4
    torch.testing.assert_close(rewritten.train()(x), network.train()(x), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        rewritten.tensor("head.bias").add_(1)
    back = original_(network, rewritten)
    torch.testing.assert_close(back(x), rewritten(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, Layer) for module in back.modules())
    with pytest.raises(PreconditionError, match="nothing to emulate"):
        emulated(trace(torch.nn.ReLU(), x), Ends(inner=EXACT))


@dataclass(frozen=True)
class Spy:
    """A sum that remembers its operands."""

    inner: object
    seen: list = field(default_factory=list)

    def __call__(self, a, b):
        self.seen.append((a, b))
        return self.inner(a, b)

    def finish(self, x):
        return self.inner.finish(x)

    def nearest(self):
        return self


def _spied(arithmetic):
    spies = [Spy(add) for add in (arithmetic.forward, arithmetic.backward, arithmetic.gradient)]
    return Arithmetic(operands=arithmetic.operands, forward=spies[0], backward=spies[1], gradient=spies[2]), [spy.seen for spy in spies]


def test_int8_multiplies_whole_numbers_and_the_gradient_comes_from_the_finer_copy():
    arithmetic, (forward, backward, gradient) = _spied(int8_training().plan(["layer"])["layer"])
    layer = Layer("layer", arithmetic, Window(padding=(1, 1, 1, 1)))
    x, weight = torch.randn(4, 3, 5, 5, requires_grad=True), torch.randn(2, 3, 3, 3, requires_grad=True)
    layer(x, weight).backward(torch.randn(4, 2, 5, 5))
    for pairs in (forward, backward, gradient):
        for tensor in pairs[0]:
            assert torch.equal(tensor, tensor.round())
    spans = [int(tensor.max() - tensor.min()) for pairs in (forward, backward, gradient) for tensor in pairs[0]]
    weights, activations, turned, errors, copies, columns = spans
    assert weights <= 255 >= activations
    assert turned == weights
    assert columns == activations
    assert errors <= 255 < 10000 < copies <= 65535


def test_int8_gradients_approach_those_of_floats():
    errors = torch.randn(64, 10)
    x, weight = torch.randn(64, 30, requires_grad=True), torch.randn(10, 30, requires_grad=True)
    Layer("layer", int8_training().plan(["layer"])["layer"], Dense())(x, weight).backward(errors)
    for got, true in ((x.grad, errors @ weight.detach()), (weight.grad, errors.t() @ x.detach())):
        assert float((got - true).norm() / true.norm()) < 0.02


def test_int8_sums_are_exact_beyond_what_float32_holds():
    # 3000 products of 255 * 255 pass 2^24, where float32 skips odd numbers.
    x, weight = torch.full((1, 3000), 1.0), torch.ones(1, 3000)
    x[0, 0], weight[0, 0] = 1 / 255, 1 / 255
    arithmetic, (forward, _, _) = _spied(int8_training().plan(["layer"])["layer"])
    result = Layer("layer", arithmetic, Dense())(x, weight)
    (a, b), = forward
    true = int((a.long() * b.transpose(1, 2).long()).sum())
    assert true == 2999 * 255 * 255 + 1
    assert result.item() == pytest.approx(true / 255**2, rel=1e-7)


def test_fp8_operands_and_results_lie_on_their_grids():
    plan = fp8_training().plan(["first", "body", "last"])
    for name, (w_grid, x_grid, e_grid) in {"first": (FP8, FP16, FP8), "body": (FP8, FP8, FP8), "last": (FP16, FP16, FP16)}.items():
        arithmetic, (forward, backward, _) = _spied(plan[name])
        layer = Layer(name, arithmetic, Window(stride=(2, 2), padding=(1, 1, 1, 1)))
        x, weight, bias = torch.randn(2, 30, 7, 7, requires_grad=True), torch.randn(4, 30, 3, 3, requires_grad=True), torch.randn(4, requires_grad=True)
        out = layer(x, weight, bias)
        error = torch.randn_like(out)
        out.backward(error)
        for tensor, grid in zip((*forward[0], backward[0][1]), (w_grid, x_grid, e_grid), strict=True):
            assert torch.equal(grid.round(tensor), tensor)
        for tensor in (out, x.grad, weight.grad, bias.grad):
            assert torch.equal(FP16.round(tensor), tensor)
        true = F.conv2d(x, weight, bias, 2, 1)
        for got, wanted in zip((out, x.grad, weight.grad, bias.grad), (true, *torch.autograd.grad(true, (x, weight, bias), error)), strict=True):
            assert float((got - wanted).norm() / wanted.norm()) < (0.005 if name == "last" else 0.15)


def test_evaluation_rounds_without_chance():
    number = Rounded(format=FixedPoint(integer=3, fraction=2), rounding=Stochastic())
    arithmetic = Arithmetic(operands=Operands(weight=number, activation=number), forward=Wide(result=number))
    layer, x, weight = Layer("layer", arithmetic, Dense()), torch.rand(20, 8), torch.rand(5, 8)
    assert not torch.equal(layer(x, weight), layer(x, weight))
    layer.eval()
    assert torch.equal(layer(x, weight), layer(x, weight))


def test_one_layer_is_the_last():
    inner, first, last = (Arithmetic(forward=Wide(dtype=kind)) for kind in (torch.float32, torch.float64, torch.float16))
    assert Ends(inner=inner, first=first, last=last)(["only"]) == {"only": last}
    assert Ends(inner=inner, first=first, last=last)(["a", "b", "c"]) == {"a": first, "b": inner, "c": last}
    with pytest.raises(RecipeError, match="chunk"):
        Chunked(chunk=0)
