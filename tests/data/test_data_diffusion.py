"""Diffusion: schedules by their formulas, noise of the right share, samplers against their closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lilliput import data as ld
from lilliput.core import DataError, PreconditionError
from lilliput.data import CosineNoise, Diffusion, LinearNoise, NormalTimes, Sampler, UniformTimes, noisy, trajectory

PROCESS = Diffusion(steps=20, features=4)


def times_of(inputs, steps=20):
    """The time steps, from the channel that has their cosine."""
    return (inputs[:, 1, 0, 0].double().acos() / math.pi * steps).round().long()


def images(count=40, size=4):
    x = np.random.default_rng(0).uniform(0, 4, (count, 1, size, size)).astype(np.float32)
    return ld.from_arrays("squares", x, np.arange(count) % 2)


def test_schedules_by_hand():
    # f(t) = cos^2(pi/2 (t/T + s) / (1 + s)) with s = 0: 1, 3/4, 1/4, 0; the last step may take 99.9% only.
    torch.testing.assert_close(CosineNoise(offset=0.0)(3), torch.tensor([3 / 4, 1 / 4, 1 / 4 * 0.001], dtype=torch.float64))
    paper = LinearNoise()(1000)
    assert paper[0] == pytest.approx(1 - 1e-4)
    assert paper[1] == pytest.approx((1 - 1e-4) * (1 - (1e-4 + (0.02 - 1e-4) / 999)))
    assert float(LinearNoise()(100)[-1]) == pytest.approx(float(paper[-1]), abs=5e-5)
    for schedule in (CosineNoise(), LinearNoise()):
        signal = Diffusion(steps=50, schedule=schedule).signal
        assert signal[0] == 1
        assert bool((signal.diff() < 0).all())
        assert 0 < signal[-1] < 0.01


def test_noised_images_keep_their_share_of_the_variance():
    image, noise, times = torch.ones(4000, 1, 1, 1), torch.randn(4000, 1, 1, 1), torch.full((4000,), 7)
    x, a = PROCESS.noised(image, times, noise), float(PROCESS.signal[7])
    assert float(x.mean()) == pytest.approx(math.sqrt(a), abs=0.05)
    assert float(x.var()) == pytest.approx(1 - a, abs=0.05)


def test_the_time_is_in_the_channels():
    x = torch.randn(2, 1, 3, 3)
    inputs = PROCESS.inputs(x, torch.tensor([5, 20]))
    assert inputs.shape == (2, 5, 3, 3)
    assert torch.equal(inputs[:, :1], x)
    half = math.sqrt(0.5)
    expected = torch.tensor([[half, 0, half, 1], [-1, 1, 0, 0]])
    torch.testing.assert_close(inputs[:, 1:, 1, 2], expected, atol=1e-6, rtol=0)


def test_inputs_hold_image_and_the_noise_that_is_the_target():
    data = noisy(images(), PROCESS, repeats=3)
    assert (data.input_shape, data.num_classes, len(data.train), len(data.val)) == ((5, 4, 4), 0, 96, 4)
    plain = next(images().train.batches(100))[0]
    scaled = 2 * (plain - plain.min()) / (plain.max() - plain.min()) - 1
    inputs, noise = next(data.train.batches(96))
    times = times_of(inputs)
    assert set(times.tolist()) <= set(range(1, 21))
    assert len(set(times.tolist())) > 15
    torch.testing.assert_close(inputs[:, :1], PROCESS.noised(scaled.repeat(3, 1, 1, 1), times, noise))


def test_draws_depend_on_seed_and_epoch_alone():
    split = noisy(images(), PROCESS, repeats=2).train

    def epoch(size, **order):
        return [torch.cat(parts) for parts in zip(*split.batches(size, **order), strict=True)]

    first = epoch(16, seed=1)
    for found, same in zip(first, epoch(5, seed=1), strict=True):
        assert torch.equal(found, same)
    assert not torch.equal(first[1], epoch(16, seed=1, epoch=1)[1])
    assert torch.equal(epoch(16)[0], epoch(16)[0])
    halves = [torch.cat([e for _, e in split.batches(8, seed=1, rank=rank, world=2)]) for rank in (0, 1)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), first[1])


def test_digest_and_head():
    data = noisy(images(), PROCESS, repeats=2)
    assert data.digest == noisy(images(), PROCESS, repeats=2).digest
    assert data.digest != noisy(images(), Diffusion(steps=21, features=4), repeats=2).digest
    assert len(data.train.head(5)) == 5


def perfect(mean, std, process=PROCESS):
    """The denoiser of normally distributed images, in closed form: E[e | x_t] = sqrt(1 - a) (x - sqrt(a) m) / (a s^2 + 1 - a)."""

    def network(inputs):
        a = process.signal[times_of(inputs, process.steps)].reshape(-1, 1, 1, 1)
        return ((1 - a).sqrt() * (inputs[:, :1] - a.sqrt() * mean) / (a * std**2 + 1 - a)).float()

    return network


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [50, 200])
def test_sampling_from_a_perfect_denoiser_gives_the_images_distribution(eta, steps):
    process = Diffusion(steps=200)
    found = Sampler(process=process, steps=steps, eta=eta)(perfect(0.2, 0.2, process), (500, 1, 3, 3), seed=1)
    assert float(found.mean()) == pytest.approx(0.2, abs=0.02)
    assert float(found.std()) == pytest.approx(0.2, abs=0.03)


def test_a_known_image_is_found_exactly():
    image = torch.linspace(-1, 1, 9).reshape(1, 1, 3, 3)

    def knows(inputs):
        a = PROCESS.signal[times_of(inputs)].reshape(-1, 1, 1, 1)
        return ((inputs[:, :1] - a.sqrt() * image) / (1 - a).sqrt()).float()

    found = Sampler(process=PROCESS, steps=10, eta=0.5)(knows, (4, 1, 3, 3))
    torch.testing.assert_close(found, image.expand(4, 1, 3, 3), atol=1e-3, rtol=0)


def test_with_eta_one_a_step_is_that_of_ddpm():
    a, b = (float(PROCESS.signal[t]) for t in (9, 8))
    moments = list(Sampler(process=PROCESS, steps=20, eta=1.0).walk(perfect(0.0, 0.1), (3000, 1, 2, 2)))
    x, found, after = next((m.inputs[:, :1], m.noise, m.after) for m in moments if m.time == 9)
    image = ((x - (1 - a) ** 0.5 * found) / a**0.5).clamp(-1, 1)
    # Ho 2020, equations 6 and 7, with alpha_t = a / b and beta_t = 1 - alpha_t.
    mean = b**0.5 * (1 - a / b) / (1 - a) * image + (a / b) ** 0.5 * (1 - b) / (1 - a) * x
    variance = (1 - b) / (1 - a) * (1 - a / b)
    noise = (after - mean) / variance**0.5
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)


def test_times_go_down_to_zero_and_cannot_repeat():
    assert Sampler(process=PROCESS, steps=4).times().tolist() == [20, 15, 10, 5, 0]
    assert Sampler(process=PROCESS, steps=20).times().tolist() == list(range(20, -1, -1))


def test_distributions_over_time():
    draws = np.random.default_rng(0)
    uniform = UniformTimes()(20000, 20, draws)
    assert np.bincount(uniform, minlength=21)[1:] == pytest.approx(1000, rel=0.15)
    normal = NormalTimes(mean=0.4, std=0.1)(20000, 100, draws)
    assert normal.mean() == pytest.approx(40.5, abs=0.5)
    assert normal.std() == pytest.approx(10, abs=0.5)
    wide = NormalTimes()(20000, 20, draws)
    assert (wide.min(), wide.max()) == (1, 20)
    assert wide.mean() < uniform.mean()
    assert set(NormalTimes(mean=1.0, std=0.0)(9, 20, draws).tolist()) == {20}


def test_a_trajectory_holds_what_the_network_sees_on_its_way():
    data, network = noisy(images(), PROCESS), perfect(0.2, 0.1)
    sampler = Sampler(process=PROCESS, steps=10)
    calibration = trajectory(network, data, sampler, times=NormalTimes(mean=0.3, std=0.3), samples=60, seed=2)
    assert calibration.val is data.val
    inputs, noise = next(calibration.train.batches(100))
    torch.testing.assert_close(network(inputs), noise)
    moments = {m.time: m for m in sampler.walk(network, (60, 1, 4, 4), seed=2)}
    times = times_of(inputs).tolist()
    assert set(times) <= set(moments)
    assert len(set(times)) > 5
    for i, t in enumerate(times):
        assert torch.equal(inputs[i], moments[t].inputs[i])


def test_what_cannot_be_is_refused():
    with pytest.raises(DataError, match="images"):
        noisy(ld.from_arrays("rows", np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2), PROCESS)
    with pytest.raises(DataError, match="constant"):
        noisy(ld.from_arrays("flat", np.zeros((40, 1, 2, 2)), np.arange(40) % 2), PROCESS)
    with pytest.raises(DataError, match="repeats"):
        noisy(images(), PROCESS, repeats=0)
    for wrong in ({"steps": 1}, {"features": 3}, {"features": 0}):
        with pytest.raises(DataError, match="even"):
            Diffusion(**wrong)
    for wrong in ({"steps": 0}, {"steps": 21}, {"eta": 2.0}):
        with pytest.raises(DataError, match="1 to 20 steps"):
            Sampler(**{"process": PROCESS, "steps": 10, **wrong})
    with pytest.raises(PreconditionError, match="eval"):
        Sampler(process=PROCESS, steps=2)(nn.Identity().train(), (1, 1, 2, 2))
    with pytest.raises(DataError, match="samples=0"):
        trajectory(perfect(0.0, 1.0), noisy(images(), PROCESS), Sampler(process=PROCESS, steps=2), samples=0)
