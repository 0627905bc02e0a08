"""ResNet-20 on Fashion-MNIST: prune to half the MACs, distil from the original, quantize to int8; three seeds.

    python -m benchmarks.fashion --json benchmarks/results/fashion.json

Settings were fixed on the validation split before the test split was looked at; the last epoch is what counts.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.cache import cached
from lilliput import data, distill, prune, zoo
from lilliput.core import Budget
from lilliput.graph import Traced, trace
from lilliput.train import SGD, Cosine, Fit, fit

SEEDS = (0, 1, 2)


def baseline_fit(seed: int) -> Fit:
    """How the float original is trained."""
    return Fit(epochs=8, optimizer=SGD(lr=0.1), schedule=Cosine(warmup=0.05), precision="bf16-mixed", seed=seed, channels_last=True)


def distil_fit(seed: int) -> Fit:
    """How the pruned network is trained from its original."""
    return Fit(epochs=6, optimizer=SGD(lr=0.05), schedule=Cosine(warmup=0.05), precision="bf16-mixed", seed=seed, channels_last=True)


def original(seed: int) -> Traced:
    """The trained float network."""
    fashion = data.load("fashion_mnist")

    def make(checkpoint: Path) -> Traced:
        model = trace(zoo.create("resnet20", num_classes=10, in_chans=1, seed=seed), fashion.example())
        trained = fit(model, fashion, baseline_fit(seed), checkpoint=checkpoint).model
        assert isinstance(trained, Traced)
        return trained

    return cached(f"resnet20-fashion-{seed}", f"resnet20 {baseline_fit(seed)!r}", make)


def small(seed: int) -> Traced:
    """The network at half the MACs, distilled from its original."""
    fashion = data.load("fashion_mnist")
    teacher = original(seed)
    step = prune.fpgm(Budget(macs=0.5))

    def make(checkpoint: Path) -> Traced:
        pruned = step(teacher, fashion).model
        distilled = distill.kd(teacher=teacher, fit=distil_fit(seed))
        import dataclasses

        if "checkpoint" in {f.name for f in dataclasses.fields(distilled)}:
            distilled = dataclasses.replace(distilled, checkpoint=checkpoint)
        out = distilled(pruned, fashion).model
        assert isinstance(out, Traced)
        return out

    return cached(f"resnet20-fashion-small-{seed}", f"resnet20 fpgm 0.5 kd 4 0.9 {baseline_fit(seed)!r} {distil_fit(seed)!r}", make)
