import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import integrate, stats
from torch import nn

from lilliput.core import bits as packing
from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.data import load
from lilliput.quantize.low_precision import AdaptiveLevels, AdaptiveMultiplier, SendLevels, UniformLevels
from lilliput.quantize.low_precision.gradient_levels import best_between, descend, multiplier_slope
from lilliput.quantize.low_precision.gradient_model import Mixture
from lilliput.quantize.low_precision.wire import Codec, signed_levels
from lilliput.quantize.recipes.low_precision import alq_amq
from lilliput.train import SGD, Fit, evaluate, fit

MIXTURE = Mixture.of(np.array([[0.01, 0.02, 1.0], [-0.005, 0.1, 2.0], [0.0, 0.4, 0.5]]), by_norm=True)


def _density(r):
    """Of the signed coordinate, by scipy."""
    parts = zip(MIXTURE.means, MIXTURE.deviations, MIXTURE.weights, strict=True)
    return sum(w * stats.truncnorm.pdf(r, (-1 - m) / s, (1 - m) / s, loc=m, scale=s) for m, s, w in parts)


# The model and the levels.


def test_moments_are_the_integrals():
    assert [round(w, 6) for w in MIXTURE.weights] == [round(w / 5.25, 6) for w in (1, 4, 0.25)]
    for low, high in ((0.0, 0.05), (0.02, 0.3), (0.3, 1.0), (0.0, 1.0)):
        for k, got in enumerate(MIXTURE.moments(low, high)):
            wanted = integrate.quad(lambda r, k=k: r**k * (_density(r) + _density(-r)), low, high, points=[0.02, 0.05, 0.1], limit=200)[0]
            assert got == pytest.approx(wanted, rel=1e-6, abs=1e-10)
        assert MIXTURE.mass(low, high) == pytest.approx(MIXTURE.moments(low, high)[0])
    assert MIXTURE.mass(0.0, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize("levels", [np.array([0.0, 0.1, 0.4, 1.0]), np.array([0.1, 0.4, 1.0])])
def test_variance_is_that_of_rounding_at_random(levels):
    table = signed_levels(levels).double().numpy()

    def error(r):
        above = min(max(int(np.searchsorted(table, r)), 1), len(table) - 1)
        return (table[above] - r) * (r - table[above - 1])

    wanted = sum(integrate.quad(lambda r: error(r) * _density(r), a, b, limit=200)[0] for a, b in pairwise(table))
    assert MIXTURE.variance(levels) == pytest.approx(wanted, rel=1e-5)


def test_the_best_level_between_two_is_where_the_error_is_least():
    level = best_between(MIXTURE, 0.05, 0.6, 0.3)
    tried = np.linspace(0.06, 0.59, 400)
    errors = [MIXTURE.variance(np.array([0.0, 0.05, b, 0.6, 1.0])) for b in tried]
    assert level == pytest.approx(tried[int(np.argmin(errors))], abs=0.002)
    mass, first, _ = MIXTURE.moments(0.05, 0.6)
    assert MIXTURE.mass(level, 0.6) == pytest.approx((first - 0.05 * mass) / 0.55, rel=1e-5)
    # Nothing between the two: the level stays.
    narrow = Mixture.of(np.array([[0.0, 0.001, 1.0]]), by_norm=True)
    assert best_between(narrow, 0.5, 1.0, 0.7) == 0.7


def test_the_slope_of_the_multiplier_against_finite_differences():
    rule = AdaptiveMultiplier(bits=4)
    for p in (0.2, 0.5, 0.85):
        eps = 1e-5
        wanted = (MIXTURE.variance(rule.levels(p + eps)) - MIXTURE.variance(rule.levels(p - eps))) / (2 * eps)
        assert multiplier_slope(MIXTURE, p, 7) == pytest.approx(wanted, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("bits", [3, 4])
def test_levels_that_follow_err_less_than_even_ones(bits):
    even, alq, amq = UniformLevels(bits=bits), AdaptiveLevels(bits=bits), AdaptiveMultiplier(bits=bits)
    levels = alq.follow(MIXTURE, alq.start())
    assert levels[0] == 0
    assert levels[-1] == 1
    assert (np.diff(levels) > 0).all()
    assert len(signed_levels(levels)) == 2**bits - 1
    assert MIXTURE.variance(levels) < 0.5 * MIXTURE.variance(even.start())
    assert MIXTURE.variance(descend(MIXTURE, levels, 1)) <= MIXTURE.variance(levels) * (1 + 1e-9)
    powers = amq.follow(MIXTURE, amq.start())
    assert len(signed_levels(powers)) == 2**bits
    best = min(MIXTURE.variance(amq.levels(p)) for p in np.linspace(0.02, 0.98, 300))
    assert MIXTURE.variance(powers) <= best * 1.001
    assert np.array_equal(even.follow(MIXTURE, even.start()), even.start())


def test_what_levels_cannot_be():
    for build in (lambda: AdaptiveLevels(bits=2), lambda: AdaptiveMultiplier(bits=9), lambda: UniformLevels(bits=1), lambda: Codec(bucket=0)):
        with pytest.raises(RecipeError):
            build()
    with pytest.raises(PreconditionError, match="zero or not finite"):
        Mixture.of(np.array([[0.0, 0.0, 0.0], [0.1, 0.1, np.nan]]), by_norm=True)


# The wire.


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(2, 8), count=st.integers(1, 300), bucket=st.integers(1, 100), seed=st.integers(0, 5))
def test_what_is_decoded_is_a_neighbouring_level(bits, count, bucket, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator) * 10.0 ** torch.randint(-6, 6, (count,), generator=generator)
    codec, rule = Codec(bits=bits, bucket=bucket), (UniformLevels if bits < 3 or seed % 2 else AdaptiveMultiplier)(bits=bits)
    levels = signed_levels(rule.start())
    payload = codec.encode(x, levels)
    assert payload.dtype == torch.uint8
    assert len(payload) == codec.size(count) == math.ceil(bits * count / 8) + 4 * math.ceil(count / bucket)
    got = codec.decode(payload, count, levels)
    rows, norms = codec.buckets(x)
    r, scale = rows.flatten()[:count], norms.repeat_interleave(bucket)[:count]
    at = (got[:, None] == levels * scale[:, None]).int().argmax(1)
    assert torch.equal(levels[at] * scale, got)
    below, above = levels[(at - 1).clamp_min(0)], levels[(at + 1).clamp_max(len(levels) - 1)]
    assert bool(((r >= below - 1e-6) & (r <= above + 1e-6)).all())


def test_codes_have_the_layout_of_packed_weights(monkeypatch):
    x, levels = torch.randn(1000), signed_levels(UniformLevels(bits=4).start())
    codec = Codec(bits=4, bucket=100)
    payloads = []
    for widths in (packing.WIDTHS, ()):
        monkeypatch.setattr(packing, "WIDTHS", widths)
        torch.manual_seed(0)
        payloads.append(codec.encode(x, levels))
        assert torch.equal(codec.decode(payloads[0], 1000, levels), codec.decode(payloads[-1], 1000, levels))
    assert torch.equal(*payloads)


@pytest.mark.parametrize("rule", [UniformLevels(), AdaptiveLevels(), AdaptiveMultiplier()])
def test_what_arrives_is_right_on_average_and_errs_as_the_model_says(rule):
    torch.manual_seed(1)
    x = torch.cat([torch.randn(512), torch.randn(512) * 5, torch.zeros(512), torch.randn(100).abs()])
    codec = Codec(bits=rule.bits, bucket=512)
    mixture = Mixture.of(codec.statistics(x).double().numpy(), by_norm=True)
    magnitudes = rule.follow(mixture, rule.start())
    levels = signed_levels(magnitudes)
    draws, repeats = torch.zeros_like(x).double(), 400
    error = 0.0
    for _ in range(repeats):
        got = codec.decode(codec.encode(x, levels), len(x), levels).double()
        draws += got / repeats
        error += float((got - x).square().sum()) / repeats
    norms = codec.buckets(x)[1].repeat_interleave(512)[: len(x)]
    # The standard deviation of one coordinate is at most half of the widest gap.
    widest = float(levels.diff().max()) * norms / 2
    assert bool(((draws - x).abs() <= 6 * widest / math.sqrt(repeats) + 1e-6).all())
    assert torch.equal(draws[1024:1536], torch.zeros(512).double())
    predicted = mixture.variance(magnitudes) * 512 * float((codec.buckets(x)[1] ** 2).sum())
    assert error == pytest.approx(predicted, rel=0.25)


def test_on_a_networks_gradient_adapted_levels_err_less():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    data = load("digits")
    x, y = next(data.train.batches(64))
    nn.functional.cross_entropy(model(x), y).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    codec, errors = Codec(bits=3, bucket=8192), {}
    mixture = Mixture.of(codec.statistics(gradient).double().numpy(), by_norm=True)
    for rule in (UniformLevels(), AdaptiveLevels(), AdaptiveMultiplier()):
        levels = signed_levels(rule.follow(mixture, rule.start()))
        errors[type(rule)] = sum(float((codec.decode(codec.encode(gradient, levels), len(gradient), levels) - gradient).square().sum()) for _ in range(5))
    assert errors[AdaptiveLevels] < 0.2 * errors[UniformLevels]
    assert errors[AdaptiveMultiplier] < 0.2 * errors[UniformLevels]


# Real processes.


def _perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 150), nn.ReLU(), nn.Linear(150, 10))


def test_two_processes_converge_on_a_tenth_of_the_bytes():
    data, model, rule = load("digits"), _perceptron(), AdaptiveLevels()
    config = Fit(epochs=4, batch_size=64, optimizer=SGD(lr=0.1), devices=2)
    result = alq_amq(levels=rule, fit=config)(model, data)
    assert evaluate(result.model, data.test) > 90
    values = 64 * 150 + 150 + 150 * 10 + 10
    steps = 4 * math.ceil(len(data.train) / 64)
    moves = 1 + int(math.log2(steps))  # after steps 1, 2, 4, 8...
    # Codes and a norm for each of two buckets; where levels move, three numbers for each of two buckets.
    by_hand = steps * (math.ceil(rule.bits * values / 8) + 4 * 2) + moves * 3 * 4 * 2
    (entry,) = result.report.entries
    assert entry.metrics == {"bytes_sent": by_hand, "bytes_float32": steps * values * 4}
    assert by_hand < 0.1 * steps * values * 4
    assert not any(torch.equal(a, b) for a, b in zip(model.parameters(), result.model.parameters(), strict=True))


def test_the_wire_counts_in_the_history_and_alone_there_is_none():
    data, hook = load("digits").head(200), SendLevels(UniformLevels(bits=8), bucket=1000)
    trained = fit(_perceptron(), data, Fit(epochs=2, batch_size=100, optimizer=SGD(lr=0.05), devices=2), hooks=[hook], progress=False)
    # Two steps an epoch; levels move (even ones stay where they are) after steps 1, 2 and 4, on 12 buckets' statistics.
    step, move = 11260 + 4 * 12, 3 * 4 * 12
    assert [row["bytes_sent"] for row in trained.history] == [2 * step + 2 * move, 2 * step + move]
    assert hook.total_sent == 4 * step + 3 * move
    assert trained.history[0]["bytes_float32"] == 2 * 11260 * 4
    copy = SendLevels(UniformLevels(bits=8), bucket=1000)
    copy.load_state_dict(hook.state_dict())
    assert (copy.total_sent, copy.total_plain) == (hook.total_sent, hook.total_plain)
    assert np.array_equal(copy.magnitudes, hook.magnitudes)
    # Eight bits are fine enough to come near the run with float32 gradients, which one process does alike.
    plain = fit(_perceptron(), data, Fit(epochs=2, batch_size=100, optimizer=SGD(lr=0.05)), progress=False)
    assert trained.history[-1]["train_loss"] == pytest.approx(plain.history[-1]["train_loss"], rel=0.05)
    with pytest.raises(RecipeError, match="devices=2"):
        fit(_perceptron(), data, Fit(epochs=1), hooks=[SendLevels()], progress=False)
    with pytest.raises(RecipeError, match="devices=2"):
        alq_amq(fit=Fit(epochs=1))
    with pytest.raises(RecipeError, match="at least 1"):
        SendLevels(every=0)
