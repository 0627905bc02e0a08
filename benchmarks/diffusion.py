"""A diffusion model of the handwritten digits: how far its images are from real ones before and after quantization.

    python -m benchmarks.diffusion --json benchmarks/results/diffusion.json [CASE ...]

The measure is the Fréchet distance (`lilliput.train.feature_distance`) between sampled digits and those that neither the denoiser
nor the classifier was trained on, in the 32 features before the classifier's last layer. `real` is the distance of the training
images from these: what a perfect model would reach. Samples differ by chance, so every case has five seeds.

A first run trains classifier and denoiser, some two minutes on one core, and keeps them in `.cache`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cache import cached
from benchmarks.results import main
from lilliput import data, quantize, zoo
from lilliput.core import Step, describe
from lilliput.data import Data, Diffusion, NormalTimes, Sampler, UniformTimes, noisy, trajectory
from lilliput.graph import Traced, trace
from lilliput.graph.features import penultimate
from lilliput.train import SGD, AdamW, Cosine, Fit, feature_distance, fit

PROCESS = Diffusion(steps=100)
SAMPLER = Sampler(process=PROCESS, steps=50)
REPEATS, IMAGES, SEEDS = 10, 1000, (0, 1, 2, 3, 4)
DENOISER = {"width": 1.0, "depth": 1}
DENOISER_FIT = Fit(epochs=30, batch_size=64, optimizer=AdamW(lr=2e-3), schedule=Cosine(warmup=0.05))
CLASSIFIER_FIT = Fit(epochs=15, batch_size=64, optimizer=SGD(lr=0.05), schedule=Cosine(warmup=0.1))


def digits() -> Data:
    """The digits with noise on them."""
    return noisy(data.load("digits"), PROCESS, repeats=REPEATS)


def denoiser(seed: int = 0) -> Traced:
    """The float network that finds the noise."""
    noised, config = digits(), replace(DENOISER_FIT, seed=seed)

    def make(checkpoint: Path) -> Traced:
        created = zoo.create("unet", num_classes=1, in_chans=noised.input_shape[0], seed=seed, options=DENOISER)
        out = fit(trace(created, noised.example()), noised, config, checkpoint=checkpoint).model
        assert isinstance(out, Traced)
        return out

    recipe = f"unet {DENOISER} {PROCESS!r} {REPEATS} {describe(config)}"
    return cached(f"unet-digits-{seed}", recipe, make).eval()


def classifier(seed: int = 0) -> Traced:
    """What gives the features."""
    plain, config = data.load("digits"), replace(CLASSIFIER_FIT, seed=seed)

    def make(checkpoint: Path) -> Traced:
        created = zoo.create("resnet8", num_classes=10, in_chans=1, seed=seed, options={"width": 0.5})
        out = fit(trace(created, plain.example()), plain, config, checkpoint=checkpoint).model
        assert isinstance(out, Traced)
        return out

    return cached(f"resnet8-digits-{seed}", f"resnet8 0.5 {describe(config)}", make).eval()


# A quantizer is a name, what makes its step, and the calibration data to run it on.
Calibration = Callable[[Traced, Data], Data]
CALIBRATIONS: dict[str, Calibration] = {
    "noised images": lambda _, noised: noised,
    "noise alone": lambda model, noised: trajectory(model, noised, SAMPLER, times=NormalTimes(mean=1.0, std=0.0)),
    "near images": lambda model, noised: trajectory(model, noised, SAMPLER, times=NormalTimes(mean=0.0, std=0.0)),
    "uniform": lambda model, noised: trajectory(model, noised, SAMPLER, times=UniformTimes()),
    "normal": lambda model, noised: trajectory(model, noised, SAMPLER, times=NormalTimes()),
}
QUANTIZERS: dict[str, Callable[[], Step]] = {
    "rtn 8/8": lambda: quantize.minmax(),
    "rtn 4/8": lambda: quantize.minmax(weights=4),
    "rtn 6/6": lambda: quantize.minmax(weights=6, activations=6),
}
CASES = ["real", "float", *(f"{quantizer}: {calibration}" for quantizer in QUANTIZERS for calibration in CALIBRATIONS)]


def row(case: str) -> dict[str, Any]:
    """Mean, deviation and values of the distance over the seeds, and the seconds that quantizing and calibrating took."""
    plain, began = data.load("digits"), time.perf_counter()
    features, held_out = penultimate(classifier()), torch.cat([_images(plain.val), _images(plain.test)])
    if case == "real":
        return {"case": case, "mean": feature_distance(features, _images(plain.train), held_out)}
    noised, model = digits(), denoiser()
    if case != "float":
        quantizer, _, calibration = case.partition(": ")
        model = QUANTIZERS[quantizer]()(model, CALIBRATIONS[calibration](model, noised)).model.eval()
    seconds = time.perf_counter() - began
    found = [feature_distance(features, sampled(model, seed), held_out) for seed in SEEDS]
    return {"case": case, "mean": mean(found), "deviation": stdev(found), "values": found, "seconds": round(seconds, 1)}


def sampled(model: nn.Module, seed: int) -> Tensor:
    """Digits as the classifier knows them, in 0 to 1."""
    return (SAMPLER(model, (IMAGES, 1, 8, 8), seed=seed) + 1) / 2


def _images(split: data.Split) -> Tensor:
    return next(split.batches(len(split)))[0]


if __name__ == "__main__":
    main(row, CASES, threads=1)
