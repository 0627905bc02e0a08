"""ResNet-20 on Fashion-MNIST: prune to half the MACs, distil from the original, quantize to int8; three seeds.

    python -m benchmarks.fashion --json benchmarks/results/fashion.json

The last epoch is what counts. Widths were chosen by latency, epochs by the time they take, nothing by test accuracy; an
earlier version (odd widths) had been evaluated on the test split for two seeds before this one was written.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cache import cached
from benchmarks.results import main
from lilliput import data, distill, prune, quantize, zoo
from lilliput.core import Budget, chain, describe
from lilliput.deploy import onnx
from lilliput.deploy.runtime import Session
from lilliput.graph import Traced, latency, profile, trace
from lilliput.train import SGD, Cosine, Fit, fit

SEEDS = (0, 1, 2)
# Widths in sixteens first: the integer kernels take as long for 11 channels as for 16. Then what is still missing to
# half the MACs, from one block of the first stage alone, so that the other widths stay as they are.
STEPS = (
    prune.fpgm(Budget(macs=0.525), unit=prune.Channels(round_to=16)),
    prune.fpgm(Budget(macs=15.5e6), unit=prune.Channels(round_to=4, exclude=("conv1", "layer1.[01].conv1", "layer2*", "layer3*"))),
)


def baseline_fit(seed: int) -> Fit:
    """How the float original is trained."""
    return Fit(epochs=8, optimizer=SGD(lr=0.1), schedule=Cosine(warmup=0.05), precision="bf16-mixed", seed=seed, channels_last=True)


def distil_fit(seed: int) -> Fit:
    """How the pruned network is trained from its original."""
    return Fit(epochs=5, optimizer=SGD(lr=0.05), schedule=Cosine(warmup=0.05), precision="bf16-mixed", seed=seed, channels_last=True)


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
    pruning = chain(*STEPS)

    def make(checkpoint: Path) -> Traced:
        pruned = pruning(teacher, fashion).model
        out = distill.kd(teacher=teacher, fit=distil_fit(seed), checkpoint=checkpoint)(pruned, fashion).model
        assert isinstance(out, Traced)
        return out

    return cached(f"resnet20-fashion-small-{seed}", f"{describe(STEPS)} kd 4 0.9 {baseline_fit(seed)!r} {distil_fit(seed)!r}", make)


def row(case: str) -> dict[str, Any]:
    """Accuracy in ONNX Runtime, MACs and file size of every variant of one seed, and latency against the original."""
    seed, fashion = int(case.removeprefix("seed")), data.load("fashion_mnist")
    networks = {"original": original(seed), "small": small(seed)}
    networks["int8"] = quantize.minmax()(networks["small"], fashion).model.eval()
    out: dict[str, Any] = {"seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: onnx.export(net.eval(), Path(folder) / f"{name}.onnx", fashion.example(8)) for name, net in networks.items()}
        sessions = {name: Session(path, threads=1) for name, path in files.items()}
        for name, session in sessions.items():
            out[name] = {"val": session.evaluate(fashion.val), "test": session.evaluate(fashion.test), "bytes": session.size,
                         "macs": profile(networks[name]).macs, "params": profile(networks[name]).params}
        sample = np.ascontiguousarray(fashion.example(1).numpy()[:1])
        timed = latency.compare({name: lambda s=s: s(sample) for name, s in sessions.items()}, rounds=60)
    for name in networks:
        out[name]["latency_us"] = timed[name].median * 1e6
    ratio = timed.ratio("int8", "original")
    out |= {"drop": out["original"]["test"] - out["int8"]["test"], "size_ratio": out["int8"]["bytes"] / out["original"]["bytes"],
            "latency_ratio": ratio.median, "latency_ratio_low": ratio.low, "latency_ratio_high": ratio.high}
    return out


if __name__ == "__main__":
    main(row, [f"seed{seed}" for seed in SEEDS])
