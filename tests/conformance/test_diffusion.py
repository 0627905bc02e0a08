"""Quantization of a denoiser: on the grid, as deployed, and no worse on its way than calibrated on noised images."""

import numpy as np
import pytest
import torch

from lilliput import zoo
from lilliput.core import chain
from lilliput.data import Diffusion, NormalTimes, Sampler, noisy, trajectory
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph import trace
from lilliput.quantize import Quantizer, minmax, ptq4dm
from lilliput.train import AdamW, Fit, evaluating, fit, mean_squared_error

PROCESS = Diffusion(steps=50)
SAMPLER = Sampler(process=PROCESS, steps=10)


@pytest.fixture(scope="module")
def noised(digits):
    return noisy(digits, PROCESS)


@pytest.fixture(scope="module")
def denoiser(noised):
    model = trace(zoo.create("unet", num_classes=1, in_chans=noised.input_shape[0], seed=0, options={"width": 0.5, "depth": 1}), noised.example())
    return fit(model, noised, Fit(epochs=3, batch_size=64, optimizer=AdamW(lr=2e-3)), progress=False).model.eval()


@pytest.fixture(scope="module")
def quantized(denoiser, noised):
    return ptq4dm(sampler=SAMPLER, weights=6, activations=6, samples=128)(denoiser, noised)


def test_values_lie_on_the_grid(quantized, noised):
    found = []

    def record(module, inputs, output):
        if module.grid.axis is None:
            codes = output.double() / module.scale.double() + module.zero_point
            found.append(float((codes - codes.round()).abs().max()))
            assert module.grid.qmin <= codes.round().min()
            assert codes.round().max() <= module.grid.qmax

    handles = [module.register_forward_hook(record) for module in quantized.model.modules() if isinstance(module, Quantizer)]
    with evaluating(quantized.model):
        quantized.model(noised.example(8))
    for handle in handles:
        handle.remove()
    assert len(found) > 10
    assert max(found) < 1e-2


def test_deployed_integers_are_the_simulated_ones(quantized, noised, tmp_path):
    session = Session(export(quantized.model, tmp_path / "model.onnx", noised.example(8)))
    inputs = noised.example(64)
    with evaluating(quantized.model):
        simulated = quantized.model(inputs).numpy()
    step = np.diff(np.unique(simulated.round(6))).min()
    difference = np.abs(session(inputs.numpy()) - simulated)
    assert difference.max() <= 1.05 * step
    assert (difference > 0.5 * step).mean() < 0.01


def test_on_its_way_it_is_not_below_calibration_on_noised_images(quantized, denoiser, noised):
    walked = trajectory(denoiser, noised, SAMPLER, times=NormalTimes(), samples=256, seed=1)
    plain = minmax(weights=6, activations=6, samples=128)(denoiser, noised).model
    error = mean_squared_error(quantized.model, walked.train)
    assert error <= 1.05 * mean_squared_error(plain, walked.train)
    assert quantized.report.entries[0].method == "quantize.ptq4dm"
    assert "NormalTimes" in quantized.report.entries[0].recipe


def test_it_composes_as_a_step(denoiser, noised):
    model = chain(ptq4dm(sampler=SAMPLER, samples=32))(denoiser, noised).model
    images = SAMPLER(model, (4, 1, 8, 8))
    assert torch.isfinite(images).all()
