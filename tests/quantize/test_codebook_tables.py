"""Fitted tables: textbook levels of densities, levels of the weights themselves, and powers of two."""

import numpy as np
import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import Integer, Levels, PowerOfTwo, Scheme, Static, Uniform, lloyd_max, log_quant
from lilliput.quantize.calibrate import constants
from lilliput.quantize.density import Gaussian, Laplace, density_levels
from lilliput.quantize.rounding.tables import LloydMax, NearestExponent


@pytest.mark.parametrize(("density", "count", "wanted"), [
    (Gaussian(), 2, [0.7979]), (Gaussian(), 4, [0.4528, 1.5104]), (Gaussian(), 8, [0.2451, 0.7560, 1.3439, 2.1520]),
    (Gaussian(), 3, [0.0, 1.2240]), (Laplace(), 2, [0.7071]), (Laplace(), 4, [0.4198, 1.8340]),
])
def test_levels_are_those_of_the_textbooks(density, count, wanted):
    """Max 1960, table 1, for the normal density; Adams and Giesler 1978 for the Laplacian."""
    levels = np.array(density_levels(density, count))
    assert np.allclose(levels, -levels[::-1], atol=1e-9)
    assert np.round(levels[count // 2:], 4) == pytest.approx(wanted, abs=1.01e-4)


@pytest.mark.parametrize("density", [Gaussian(), Laplace()])
def test_integrals_of_the_densities(density):
    x = np.linspace(-40, 40, 400_001)
    p = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) if density == Gaussian() else np.exp(-np.abs(x) * 2**0.5) / 2**0.5
    step = x[1] - x[0]
    assert (p * x**2).sum() * step == pytest.approx(1, rel=1e-4)
    for at in (50_000, 190_000, 200_000, 215_000, 399_999):
        assert density.mass(x[at: at + 1])[0] == pytest.approx(p[:at].sum() * step, abs=1e-4)
        assert density.moment(x[at: at + 1])[0] == pytest.approx((p * x)[:at].sum() * step, abs=1e-4)


class One(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.layer.weight = nn.Parameter(weight)

    def forward(self, x):
        return self.layer(x)


def only_quantizer(weight, step):
    model = step(One(weight), arrays(weight.shape[1], samples=32)).model
    [(quantizer, tensor)] = [(q, t) for q, t in constants(model) if q.weight]
    with torch.no_grad():
        return quantizer, quantizer(tensor)


def spread(rows=4, columns=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.tensor([0.1, 1.0, 3.0, 10.0])[:rows, None]


def test_gaussian_weights_get_gaussian_levels():
    weight = spread(columns=4000)
    quantizer, values = only_quantizer(weight, lloyd_max(weights=2, density=Gaussian()))
    for row, levels in zip(weight, values, strict=True):
        size = float(row.square().mean().sqrt())
        assert np.round(np.unique(levels.numpy()) / size, 3) == pytest.approx([-1.510, -0.453, 0.453, 1.510], abs=2e-3)
    assert quantizer.scale.shape == (4,)


def test_levels_of_the_weights_themselves_are_better_than_even_ones():
    weight = spread().sign() * spread().square()
    errors = {}
    for name, step in {"fitted": lloyd_max(weights=3), "laplace": lloyd_max(weights=3, density=Laplace()),
                       "gaussian": lloyd_max(weights=3, density=Gaussian())}.items():
        errors[name] = float((only_quantizer(weight, step)[1] - weight).square().sum())
    even = Static(scheme=Scheme(weights=Levels(values=tuple(range(-7, 8, 2)), axis=0), bits=Uniform(weights=3, activations=8)))
    errors["even"] = float((only_quantizer(weight, even)[1] - weight).square().sum())
    assert errors["fitted"] < errors["laplace"] < errors["gaussian"] < errors["even"]


def test_fitted_levels_satisfy_both_conditions():
    """Nearest level, and each level the mean of what it stands for, each channel weighed by its own scale."""
    weight = spread(1)
    quantizer, values = only_quantizer(weight, lloyd_max(weights=3))
    levels = quantizer.levels * quantizer.scale
    assert torch.allclose((weight[..., None] - levels).abs().amin(-1), (weight - values).abs(), atol=1e-6)
    for level in levels:
        assert float(weight[values == level].mean()) == pytest.approx(float(level), abs=1e-5)


def test_zeros_stay_zero_and_few_values_are_exact():
    weight = torch.tensor([[0.0, 0.0, 0.3, -0.4, 1.0, 0.31]])
    values = only_quantizer(weight, lloyd_max(weights=2))[1]
    assert values[0, :2].tolist() == [0.0, 0.0]
    few = torch.tensor([[0.5, -0.25, 0.5, 1.0]])
    assert torch.allclose(only_quantizer(few, lloyd_max(weights=4))[1], few)
    assert only_quantizer(torch.cat([few, torch.zeros(1, 4)]), lloyd_max(weights=2))[0].dead == 1


def test_logarithms_are_rounded_and_not_values():
    # The threshold between 1/2 and 1 is sqrt(1/2), not 3/4; below 2^-2.5 comes zero with three magnitudes.
    weight = torch.tensor([[1.0, 0.72, 0.70, -0.36, 0.35, -0.18, 0.17, 0.0]])
    _, values = only_quantizer(weight, log_quant(weights=3))
    assert values.tolist() == [[1.0, 1.0, 0.5, -0.5, 0.25, -0.25, 0.0, 0.0]]


@pytest.mark.parametrize("largest", [0.7, 0.72, 1.0, 1.4, 1.42, 5.0])
def test_scales_are_powers_of_two(largest):
    quantizer, values = only_quantizer(torch.tensor([[largest, 0.1, -0.02]]), log_quant())
    exponents = values[values != 0].abs().log2()
    assert torch.equal(exponents, exponents.round())
    assert float(quantizer.scale) == 2.0 ** round(float(np.log2(largest)))


@pytest.mark.parametrize("step", [lloyd_max(weights=4), lloyd_max(weights=3, density=Laplace()), log_quant()])
def test_whole_networks(step):
    make, shape = NETS["residual"]
    torch.manual_seed(0)
    data = arrays(*shape)
    result = step(make().eval(), data)
    with torch.no_grad():
        result.model(data.example(4))
    rows = result.report.entries[0].layers
    assert {row["weight_bits"] for row in rows if "weight_bits" in row} == {3} if step.scheme.weights.bits == 3 else {4}


def test_per_tensor_grids_have_one_scale():
    step = Static(scheme=Scheme(weights=Levels(values=(-1.0, 0.0, 1.0, 2.0)), bits=Uniform(weights=2, activations=8)),
                  roundings=(LloydMax(density=Gaussian()),))
    quantizer, values = only_quantizer(spread(), step)
    assert quantizer.scale.shape == ()
    assert len(values.unique()) == 4


def test_wrong_grids_are_refused():
    with pytest.raises(PreconditionError, match="table"):
        only_quantizer(spread(), Static(roundings=(LloydMax(),)))
    scheme = Scheme(weights=Levels(values=(-1.0, 0.0, 0.3), axis=0), bits=Uniform(weights=2, activations=8))
    with pytest.raises(PreconditionError, match="PowerOfTwo"):
        only_quantizer(spread(), Static(scheme=scheme, roundings=(NearestExponent(),)))
    with pytest.raises(RecipeError, match="from 1 to 8"):
        lloyd_max(weights=9)
    assert isinstance(PowerOfTwo().at(8), Integer)
