"""ACIQ and OCTAV: clips from formulas and Newton's iteration, bits to each channel, gradients that know magnitudes."""

import math

import pytest
import torch
from quantize_nets import NETS, arrays

from lilliput.core.errors import RecipeError
from lilliput.quantize import MSE, Integer, MinMax, PowerOfTwo, Quantizer, Scheme, Static, Uniform, aciq, octav, static
from lilliput.quantize.calibrate import constant_names
from lilliput.quantize.clipping import Analytic, NewtonClip, gauss_ratio, laplace_ratio
from lilliput.quantize.grids import Parameters
from lilliput.quantize.newton import NewtonClipped, NewtonRange
from lilliput.quantize.ranges import channel_bounds
from lilliput.quantize.rounding.channel_bits import ChannelBits, _spread, channel_bits
from lilliput.train import SGD, Fit


def test_ratios_are_those_of_the_paper():
    assert [laplace_ratio(b) for b in (2, 3, 4)] == pytest.approx([2.83, 3.89, 5.03], abs=0.01)
    assert [gauss_ratio(b) for b in (2, 3, 4)] == pytest.approx([1.71, 2.15, 2.55], abs=0.01)
    assert laplace_ratio(2, one_sided=True) == pytest.approx(laplace_ratio(3))
    assert gauss_ratio(3, one_sided=True) == pytest.approx(gauss_ratio(4))


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_ratios_minimise_the_expected_error(bits):
    x = torch.linspace(0, 40, 400001).double()
    for density, ratio in ((torch.exp(-x) / 2, laplace_ratio(bits)), (torch.exp(-x * x / 2) / math.sqrt(2 * math.pi), gauss_ratio(bits))):
        def error(a, density=density):
            return float(2 * torch.trapezoid((x - a).clamp(min=0).square() * density, x)) + a * a / (3 * 4**bits)

        assert error(ratio) <= min(error(ratio * 0.99), error(ratio * 1.01))


def _range(rule, x, grid):
    stream = rule.stream()
    for part in x.split(5000):
        stream.update(part)
    return rule(stream, grid)


def test_analytic_ranges_follow_the_likelier_distribution():
    torch.manual_seed(0)
    normal, laplace = torch.randn(200000), torch.distributions.Laplace(0.0, 1.0).sample((200000,))
    grid = Integer(bits=4, signed=False, symmetric=False)
    low, high = _range(Analytic(), normal * 3 + 1, grid)
    assert (low, high) == (pytest.approx(1 - 3 * gauss_ratio(4), abs=0.1), pytest.approx(1 + 3 * gauss_ratio(4), abs=0.1))
    low, high = _range(Analytic(), laplace * 2, Integer(bits=3))
    assert (-low, high) == (pytest.approx(2 * laplace_ratio(3), rel=0.02), pytest.approx(2 * laplace_ratio(3), rel=0.02))
    low, high = _range(Analytic(), laplace.relu(), grid)  # half of the values are zero
    assert low == 0
    assert high == pytest.approx(laplace_ratio(4, one_sided=True), rel=0.02)
    assert _range(Analytic(), torch.zeros(10), grid) == (0, 0)


@pytest.mark.parametrize("rule", [Analytic(), NewtonClip()])
def test_rows_have_the_ranges_of_histograms(rule):
    torch.manual_seed(0)
    x = torch.randn(6, 4000) * torch.logspace(-2, 2, 6)[:, None]
    x[3] = 0
    x[4] = x[4].sign() * x[4].abs() ** 1.7
    grid = Integer(bits=4, axis=0)
    low, high = channel_bounds(rule, x, grid)
    for i, row in enumerate(x):
        assert (float(low[i]), float(high[i])) == pytest.approx(_range(rule, row, grid), rel=0.01)
    table = PowerOfTwo(bits=4, axis=0)
    torch.testing.assert_close(channel_bounds(rule, x, table)[1].float(), high.float(), rtol=0.01, atol=1e-6)


def _clipped_error(magnitude, clip, bits, one_sided):
    """Equation of the paper: what rounding costs inside, and clipping outside."""
    share = 4.0**-bits / (12 if one_sided else 3)
    inside = (magnitude > 0) & (magnitude <= clip)
    return share * clip**2 * float(inside.double().mean()) + float((magnitude - clip).clamp(min=0).square().mean())


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("one_sided", [False, True])
def test_newton_finds_what_brute_force_finds(bits, one_sided):
    torch.manual_seed(bits)
    x = torch.distributions.Laplace(0.0, 1.0).sample((20000,)).double()
    x = x.relu() if one_sided else x
    found = float(NewtonClip().iterate(x.abs()[None], bits, one_sided=one_sided))
    tried = torch.linspace(0.01, float(x.abs().max()) * 1.1, 4000).tolist()
    best = min(_clipped_error(x.abs(), clip, bits, one_sided) for clip in tried)
    assert _clipped_error(x.abs(), found, bits, one_sided) <= best * 1.001
    again = float(NewtonClip().iterate(x.abs()[None], bits, one_sided=one_sided, start=torch.tensor([1e3]).double()))
    assert again == pytest.approx(found, rel=1e-3)
    low, high = _range(NewtonClip(), x.float(), Integer(bits=bits, signed=False, symmetric=False))
    assert high == pytest.approx(min(found, float(x.max())), rel=0.01)
    assert low == (0 if one_sided else pytest.approx(max(-found, float(x.min())), rel=0.01))


def test_degenerate_rows():
    assert NewtonClip().iterate(torch.zeros(2, 5), 4).tolist() == [0, 0]
    assert float(NewtonClip().iterate(torch.full((1, 5), 2.0), 4)) == pytest.approx(2.0, rel=0.01)
    assert _range(NewtonClip(), torch.zeros(5), Integer(bits=4)) == (0, 0)
    with pytest.raises(RecipeError, match="step"):
        NewtonClip(iterations=0)


def test_bits_of_channels_by_hand():
    # Shares of a^(2/3) are 4 : 1 : 1 : 1 + 1 of 8, of 4 * 16 levels: 32, 8, 8 and 16.
    assert channel_bits(torch.tensor([8.0, 1.0, 1.0, 2**1.5]), 4).tolist() == [5, 3, 3, 4]
    assert channel_bits(torch.ones(3), 5).tolist() == [5, 5, 5]
    assert channel_bits(torch.tensor([1e9, 1e-9]), 4).tolist() == [4, 2]  # 2^5 levels in all, and two bits at least
    torch.manual_seed(0)
    for bits in (3, 4, 6):
        found = channel_bits(torch.rand(50) * 10, bits)
        assert int((2**found).sum()) <= 50 * 2**bits
        assert int((2**found).sum()) > 0.9 * 50 * 2**bits


def test_channels_use_the_codes_that_their_bits_allow():
    torch.manual_seed(0)
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    model.stem.weight.data[0] *= 30
    step = Static(scheme=Scheme(weight_ranges=Analytic(), bits=Uniform(weights=4)), roundings=(ChannelBits(),), samples=48)
    result = step(model, data)
    for quantizer, name in constant_names(result.model):
        values = result.model.tensor(name)
        if "weight" not in name:
            continue
        assert torch.equal(quantizer(values), values)
        codes = (values / quantizer.scale.reshape(-1, *[1] * (values.ndim - 1))).round().flatten(1).abs().amax(1)
        limits = channel_bounds(Analytic(), result.model.tensor(name), quantizer.grid)[1]
        assert limits.shape == codes.shape
        assert quantizer.grid.bits == int(torch.ceil(torch.log2(codes.max() + 1))) + 1
        assert int((2 ** (torch.ceil(torch.log2(codes + 1)) + 1)).sum()) <= len(codes) * 16
    note = result.report.entries[0].notes[0]
    assert 3 < float(note.split()[2]) <= 4


def test_the_spread_of_a_channel_is_kept():
    torch.manual_seed(0)
    rows = torch.randn(3, 50)
    rounded = rows.sign() * 0.7
    scaled = rounded * _spread(rows, rounded)[:, None]
    torch.testing.assert_close(scaled.std(1), rows.std(1))
    assert _spread(rows, torch.ones(3, 50)).tolist() == [1, 1, 1]


def test_clipped_ranges_serve_few_bits_better_than_extremes():
    torch.manual_seed(0)
    data, model = arrays(2, 8, 8), NETS["residual"][0]().eval()
    x = data.train.inputs
    errors = [float((static(ranges=r, weights=8, activations=3, samples=48)(model, data).model(x) - model(x)).detach().square().mean())
              for r in (MinMax(), Analytic(), NewtonClip(), MSE())]
    assert max(errors[1:]) < 0.9 * errors[0]
    result = aciq(samples=48, weights=4)(model, data)
    assert result.report.entries[0].method == "quantize.aciq"
    assert len(result.report.entries[0].notes) == 2
    assert static(ranges=NewtonClip()).method == "quantize.newtonclip"


def _equipped(weight, axis=None, bits=3):
    grid = Integer(bits=bits, axis=axis) if weight else Integer(bits=bits, signed=False, symmetric=False)
    quantizer = Quantizer(grid, layer="x", weight=weight, channels=4 if axis is not None else None)
    shape = (4,) if axis is not None else ()
    quantizer.set(Parameters(torch.ones(shape), torch.zeros(shape, dtype=torch.int32), torch.zeros(shape, dtype=torch.bool)))
    NewtonClipped(momentum=0.25).equip_(quantizer, None)
    assert isinstance(quantizer.simulation, NewtonRange)
    return quantizer.train()


def test_gradients_beyond_the_clip_shrink_with_the_magnitude():
    torch.manual_seed(0)
    x = torch.randn(4, 500, requires_grad=True)
    quantizer = _equipped(weight=True, axis=0)
    y = quantizer(x)
    y.sum().backward()
    clip = NewtonClip().iterate(x.detach().abs(), 3)
    torch.testing.assert_close(quantizer.scale * 3, clip)
    torch.testing.assert_close(x.grad, (clip[:, None] / x.detach().abs()).clamp(max=1))
    codes = y / quantizer.scale[:, None]
    assert (codes - codes.round()).abs().max() < 1e-5
    assert quantizer.settle(x) is None
    assert torch.equal(quantizer.eval()(x), y)


def test_ranges_of_activations_are_moving_averages():
    torch.manual_seed(0)
    quantizer, a, b = _equipped(weight=False), torch.randn(2000).relu(), 3 * torch.randn(2000).relu()
    clips = [float(NewtonClip().iterate(x.abs()[None], 3, one_sided=True)) for x in (a, b)]
    quantizer(a)
    assert float(quantizer.simulation.limit) == pytest.approx(clips[0], rel=1e-4)
    assert (float(quantizer.scale * 7), int(quantizer.zero_point)) == (pytest.approx(clips[0], rel=1e-4), 0)
    quantizer(b)
    assert float(quantizer.simulation.limit) == pytest.approx(clips[0] + 0.25 * (clips[1] - clips[0]), rel=0.06)
    before = quantizer.scale.clone()
    quantizer.eval()(100 * b)
    assert torch.equal(quantizer.scale, before)
    with pytest.raises(RecipeError, match="momentum"):
        NewtonClipped(momentum=0)


def test_the_recipe_trains():
    torch.manual_seed(0)
    data, model = arrays(2, 8, 8), NETS["residual"][0]()
    result = octav(weights=3, fit=Fit(epochs=2, batch_size=16, optimizer=SGD(lr=0.05)))(model, data)
    assert result.report.entries[0].method == "quantize.octav"
    for quantizer, _ in constant_names(result.model):
        assert quantizer.simulation is None
    rows = {row["layer"]: row for row in result.report.entries[0].layers}
    assert rows["depthwise"]["weight_bits"] == 3
    assert rows["stem"]["weight_bits"] == rows["head"]["weight_bits"] == 8
    assert torch.isfinite(result.model(data.example(4))).all()
