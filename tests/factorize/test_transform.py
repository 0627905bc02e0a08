"""Transform coding: equal slopes, the gain that theory promises, exact round trips, sensitivities against the network itself."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from factorize_nets import Data, layers_of, plain
from torch.nn import functional as F

from lilliput import factorize
from lilliput.core import BudgetError, PreconditionError, RecipeError
from lilliput.factorize.bases import Cosine, Identity
from lilliput.factorize.coded import TransformCoded, total_bits
from lilliput.factorize.layers import find
from lilliput.factorize.observe import Moments
from lilliput.factorize.rate import entropy_bits
from lilliput.factorize.sensitivity import EndToEnd, Metric, OutputError, WeightError
from lilliput.factorize.shares import Average, Each
from lilliput.factorize.transform import Transform

SLOPE = math.log(2) / 6


def rng(seed=0):
    return np.random.default_rng(seed)


def white(outputs, size, groups=1):
    return Metric(moments=np.eye(size)[None].repeat(groups, 0), rows=np.ones(outputs))


def water_filling(variances, rate):
    """Reverse water-filling: the level `t` with `mean(max(0, log2(v / t) / 2)) = rate`, and the rates (Cover and Thomas)."""
    low, high = 0.0, variances.max()
    for _ in range(200):
        level = (low + high) / 2
        rates = 0.5 * np.log2(np.maximum(variances / level, 1))
        low, high = (level, high) if rates.mean() > rate else (low, level)
    return level, rates


def at_rate(weight, metric, bits, coder=None):
    coder = coder or Transform()
    return Average(bits=bits)({"w": coder(weight, metric)}, coder.slopes)["w"]


def snr(weight, coded):
    error = coded.decode().astype(np.float64) - weight
    return 10 * math.log10((weight**2).sum() / (error**2).sum())


def test_gaussians_of_known_eigenvalues_gain_what_theory_says():
    """First-order Markov rows, rho = 0.9, sixteen inputs: the KLT gains `-10 log10(1 - rho^2) 15 / 16 = 6.76` dB over none."""
    covariance = 0.9 ** np.abs(np.subtract.outer(np.arange(16), np.arange(16)))
    weight = rng().normal(size=(4096, 16)) @ np.linalg.cholesky(covariance).T
    coded = at_rate(weight, white(4096, 16), 4.0)
    rate = total_bits(coded) / weight.size
    level, _ = water_filling(np.linalg.eigvalsh(covariance), rate)
    # Entropy-coded scalar quantization is a quarter of a bit, 1.53 dB, from the bound; tables and basis cost the rest.
    gap = -10 * math.log10(level) - snr(weight, coded)
    assert 1.45 < gap < 2.1
    without = 20 * math.log10(2) * rate - 1.53
    assert snr(weight, coded) - without == pytest.approx(6.76, abs=0.55)
    # Rounding to as many levels, with the scale of least error for every row (free of charge), is far behind.
    assert snr(weight, coded) > snr_uniform(weight, 4) + 5


def snr_uniform(weight, bits):
    top = 2 ** (bits - 1) - 1
    scales = np.abs(weight).max(1, keepdims=True) / top * np.linspace(0.3, 1, 71)[:, None, None]
    rounded = np.rint(weight / scales).clip(-top, top) * scales
    errors = ((rounded - weight) ** 2).sum(2).min(0)
    return 10 * math.log10((weight**2).sum() / errors.sum())


def test_every_basis_vector_has_the_same_slope():
    """Bands of variance far above the level have its distortion, bands far below cost nothing, rates follow water-filling."""
    variances = 4.0 ** np.arange(4, -4, -1.0)
    weight = rng().normal(size=(8192, 8)) * np.sqrt(variances)
    metric = white(8192, 8)
    coder = Transform(vectors=())
    strength = math.log2(0.5)
    coded = coder(weight, metric).coded(strength)
    error = ((coded.codes.values() * coded.steps - weight) ** 2).mean(0)
    rates = np.array([entropy_bits(np.bincount(column - column.min())) / len(weight) for column in coded.codes.codes.T])
    # dD/dR = -2 ln 2 D at high rate: the slope 2^strength stands for this distortion of every band.
    level = 2.0**strength / (2 * math.log(2))
    active = variances > 20 * level
    np.testing.assert_allclose(error[active], level, rtol=0.1)
    np.testing.assert_allclose(rates[active], 0.5 * np.log2(variances[active] / level) + 0.25, atol=0.08)
    assert (rates[variances < level / 4] < 0.02).all()
    np.testing.assert_allclose(error[variances < level / 4], variances[variances < level / 4], rtol=0.05)


def test_slopes_of_bands_agree_by_finite_differences():
    weight = rng().normal(size=(8192, 4)) * np.array([1.0, 2.0, 4.0, 8.0])
    source = Transform(vectors=())(weight, white(8192, 4))
    points = []
    for strength in (-3.1, -2.9):
        coded = source.coded(strength)
        error = ((coded.codes.values() * coded.steps - weight) ** 2).sum(0)
        points.append((error, np.array([float(entropy_bits(np.bincount(c - c.min()))) for c in coded.codes.codes.T])))
    slopes = -(points[1][0] - points[0][0]) / (points[1][1] - points[0][1])
    np.testing.assert_allclose(slopes, 2.0**-3, rtol=0.15)


def test_important_inputs_get_smaller_steps():
    weight = rng().normal(size=(512, 6))
    importance = 4.0 ** np.array([3, 2, 1, 0, -1, -2])
    metric = Metric(moments=np.diag(importance)[None], rows=np.ones(512))
    coded = Transform(vectors=())(weight, metric).coded(-4.0)
    assert np.diff(coded.column_steps).tolist() == [2] * 5
    error = ((coded.decode() - weight) ** 2).mean(0)
    np.testing.assert_allclose((error * importance)[:4], (error * importance)[0], rtol=0.15)


def test_smooth_kernels_choose_a_basis_and_white_ones_none():
    smooth = rng().normal(size=(32, 16, 1, 1)) * np.outer([1, 2, 1], [1, 2, 1]) + 0.05 * rng(1).normal(size=(32, 16, 3, 3))
    coded = at_rate(smooth, white(32, 144), 2.0)
    assert type(coded.bases[2]) is not Identity
    noise = rng().normal(size=(32, 16, 3, 3))
    coded = at_rate(noise, white(32, 144), 2.0)
    assert type(coded.bases[0]) is type(coded.bases[1]) is Identity
    assert total_bits(coded) <= 2.0 * noise.size


@pytest.mark.parametrize("bits", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (24, 1, 3, 3), (10, 64), (32, 16, 1, 1), (12, 8, 5)])
def test_round_trips_are_exact_and_limits_hold(shape, bits):
    weight = rng().normal(size=shape)
    size = math.prod(shape[1:])
    groups = shape[0] if shape[1] == 1 else 1
    moment = np.cov(rng(1).normal(size=(size, 4 * size)) * np.linspace(1, 3, size)[:, None]) + 0.5
    metric = Metric(moments=np.tile(moment, (groups, 1, 1)), rows=rng(2).uniform(0.5, 2, shape[0]))
    coded = at_rate(weight, metric, bits)
    assert 0.8 * bits * weight.size < total_bits(coded) <= bits * weight.size
    # Another object from the same integers decodes to the same weight.
    again = dataclasses.replace(coded, codes=dataclasses.replace(coded.codes, codes=coded.codes.codes.copy()))
    assert coded.decode().dtype == np.float32
    assert coded.decode().shape == shape
    np.testing.assert_array_equal(again.decode(), coded.decode())
    # The coefficients are exactly on their grid.
    transformed_back = coded.codes.values() * coded.steps
    np.testing.assert_array_equal(np.rint(transformed_back / coded.steps + np.sign(coded.codes.codes) * coded.codes.shifts[coded.codes.classes] / 32),
                                  coded.codes.codes)


def test_weights_and_inputs_of_zeros_are_coded_as_zeros():
    weight = rng().normal(size=(8, 4, 3, 3))
    nothing = at_rate(np.zeros_like(weight), white(8, 36).scaled(1e300), 1.0)
    assert not nothing.decode().any()
    assert total_bits(nothing) < 80
    unseen = at_rate(weight, Metric(moments=np.zeros((1, 36, 36)), rows=np.ones(8)), 1.0)
    assert np.isfinite(unseen.decode()).all()
    half = np.diag(np.repeat([1.0, 0.0], 18))[None]
    coded = at_rate(weight, Metric(moments=half, rows=np.ones(8)), 2.0, Transform(vectors=()))
    assert np.abs(coded.decode() - weight)[:, :2].max() < 1
    assert not coded.decode()[:, 2:].any()


def test_decoding_by_hand():
    from lilliput.factorize.entropy import Codes

    codes = Codes(codes=np.array([[2, 0], [-1, 3]], np.int32), rows=np.zeros(2, np.int16), columns=np.zeros(2, np.int16),
                  tables=np.zeros(1, np.int16), shifts=np.array([8], np.int8))
    coded = TransformCoded(shape=(2, 1, 1, 2), bases=(Identity(2), Identity(1), Cosine((1, 2))), step=0.5, codes=codes,
                           row_steps=np.array([0, 2], np.int8), column_steps=np.array([0, -2], np.int8))
    # Coefficients: (2 - 1/4) / 2 = 0.875 and 0; -(1 - 1/4) = -0.75 and (3 - 1/4) / 2 = 1.375; then sums and differences.
    wanted = np.array([[0.875, 0.875], [-0.75 + 1.375, -0.75 - 1.375]]) / math.sqrt(2)
    np.testing.assert_allclose(coded.decode().reshape(2, 2), wanted, rtol=1e-6)
    bits = coded.bits
    assert bits["codes"] == 8  # four different symbols
    assert bits["bases"] == 8


@pytest.fixture(scope="module")
def network():
    return plain()


def test_moments_are_those_of_patches(network):
    layers, _ = find(network)
    found = Moments(network, layers, Data().train, 96)
    x = F.unfold(Data().train.inputs, 3, padding=1).movedim(1, -1).reshape(-1, 27).double()
    torch.testing.assert_close(found["a"][0], x.T @ x / len(x), atol=1e-5, rtol=1e-5)
    assert found["d"].shape == (16, 9, 9)


@pytest.mark.parametrize("name", ["a", "b", "c", "d", "fc", "out"])
def test_output_error_is_what_a_changed_weight_does_to_the_response(network, name):
    layers, _ = find(network)
    layer = layers_of(network)[name]
    metric = OutputError()(network, layers, Data().train, 96)[name]
    change = 0.1 * torch.randn(layer.shape, generator=torch.Generator().manual_seed(5))
    other = copy.deepcopy(network)
    other.set_tensor(layer.weight, network.tensor(layer.weight) + change)
    from lilliput.factorize.observe import inputs_and_outputs

    before, after = (inputs_and_outputs(n, (layer,), Data().train.inputs)[name][1].detach().double() for n in (network, other))
    bias = 0 if layer.bias is None else network.tensor(layer.bias).detach().double().reshape(-1, *[1] * len(layer.kernel))
    wanted = float((after - before).square().sum() / (before - bias).square().sum())
    assert metric(change.flatten(1).double().numpy()) == pytest.approx(wanted, rel=1e-4)


def test_weight_error_is_relative_and_needs_no_data(network):
    layers, _ = find(network)
    metric = WeightError()(network, layers, None, 0)
    for layer in layers:
        weight = network.tensor(layer.weight).detach().flatten(1).double().numpy()
        assert metric[layer.name](weight) == pytest.approx(1)
        assert metric[layer.name](0.1 * weight) == pytest.approx(0.01)
    assert factorize.transform_quantization(bits=3, distortion=WeightError())(network, None).report.entries[0].layers[0].get("output_error") is None


def test_end_to_end_ranks_layers_as_the_network_does(network):
    """A small error of every row at once, drawn anew many times: what it does to the outputs, per layer."""
    layers, _ = find(network)
    metrics = EndToEnd()(network, layers, Data().train, 96)
    generator = torch.Generator().manual_seed(3)
    ratios = []
    with torch.no_grad():
        before = network(Data().train.inputs)
        for layer in layers:
            told = seen = 0.0
            for _ in range(8):
                change = 1e-3 * torch.randn(layer.shape, generator=generator)
                other = copy.deepcopy(network)
                other.set_tensor(layer.weight, network.tensor(layer.weight) + change)
                seen += float((other(Data().train.inputs) - before).square().sum(1).mean())
                told += metrics[layer.name](change.flatten(1).double().numpy())
            ratios.append(told / seen)
    ratios = np.array(ratios) / np.median(ratios)
    assert ratios.min() > 0.5
    assert ratios.max() < 2


def test_the_step_codes_every_layer_within_its_bits(network):
    step = factorize.transform_quantization(bits=2.5)
    result = step(network, Data())
    entry = result.report.entries[0]
    assert [row["layer"] for row in entry.layers] == list(layers_of(network))
    assert entry.metrics["weight_bits"] <= 2.5
    coded = step.encode(network, Data())
    for name, layer in layers_of(network).items():
        np.testing.assert_array_equal(result.model.tensor(layer.weight).numpy(force=True), coded[name].decode())
    assert sum(total_bits(c) for c in coded.values()) == pytest.approx(entry.metrics["weight_bits"] * sum(la.params for la in layers_of(network).values()))
    assert "tables and side information included" in entry.notes[0]
    untouched = {n for n, _ in network.named_parameters()} - {la.weight for la in layers_of(network).values()}
    assert all(torch.equal(dict(result.model.named_parameters())[n], dict(network.named_parameters())[n]) for n in untouched)


def test_the_same_bits_for_each_layer(network):
    rows = factorize.transform_quantization(sharing=Each(bits=3, row_bits=16), exclude=("b", "c"))(network, Data()).report.entries[0].layers
    for row in rows:
        layer = layers_of(network)[row["layer"]]
        limit = 3 + 16 * layer.shape[0] / layer.params
        assert 0.8 * limit < row["weight_bits"] <= limit


def test_more_bits_leave_less_error(network):
    steps = [factorize.transform_quantization(sharing=Each(bits=bits), distortion=OutputError(), exclude=("b", "c", "fc")) for bits in (2, 4)]
    errors = [[row["output_error"] for row in step(network, Data()).report.entries[0].layers] for step in steps]
    assert np.all(np.diff(np.array(errors), axis=0) < 0)


def test_too_few_bits_and_wrong_settings_say_so(network):
    with pytest.raises(BudgetError, match="tables alone"):
        factorize.transform_quantization(sharing=Each(bits=0.02))(network, Data())
    with pytest.raises(RecipeError, match="bits for each weight"):
        Average(bits=0)
    with pytest.raises(PreconditionError, match="pass data="):
        factorize.transform_quantization()(network, None)


def test_steps_are_records_without_addresses():
    text = repr(factorize.transform_quantization(bits=2, exclude=("out",)))
    assert "Average(bits=2)" in text
    assert "0x" not in text
