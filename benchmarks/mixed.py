"""Mixed precision at 4.0 average weight bits beside uniform 4-bit weights, activations at 8 bits, and how well predictions rank widths.

    python -m benchmarks.mixed --json benchmarks/results/mixed.json [METHOD:SEED ...]

ResNet-8 on Fashion-MNIST (`benchmarks.networks28`), where 4 bits everywhere lose two points, three seeds. Methods that only choose widths are followed by rounding to nearest,
as `uniform` is; those that train use the same training as `uniform_trained` (2 epochs, straight-through). `rank:SENSITIVITY:SEED` draws 60
allocations at random and gives Spearman's correlation of their predicted with their true rise of the validation loss. Bits are
counted over all weights of the network; accuracy is that of the simulation, on validation and test split.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from typing import Any

from benchmarks.networks28 import original
from benchmarks.results import main
from lilliput import data, quantize
from lilliput.core import Budget, Step
from lilliput.quantize.mixed.agreement import agreement
from lilliput.quantize.mixed.hessian import HessianEigenvalue, HessianTrace
from lilliput.quantize.mixed.sensitivity import Fisher, LossRise, OutputNoise, Sensitivity, WeightNoise
from lilliput.quantize.mixed.task import Task, Widths
from lilliput.train import SGD, Fit, evaluate

BITS, SEEDS = 4.0, (0, 1, 2)
STATIC = quantize.Static(samples=512)
FIT = Fit(epochs=2, optimizer=SGD(lr=0.01), channels_last=True)
SENSITIVITIES: dict[str, Sensitivity] = {
    "trace": HessianTrace(), "eigenvalue": HessianEigenvalue(), "fisher": Fisher(), "loss_rise": LossRise(), "output_noise": OutputNoise(),
    "weight_noise": WeightNoise(),
}
METHODS = ("uniform", "uniform_trained", *(f"mixed_{name}" for name in SENSITIVITIES), "haq", "releq", "autoq", "aq", "fracbits", "dq",
           "dnas_bits", "dmbq", "alq_bits")


@cache
def _uniform(trained: bool, seed: int) -> Step:
    if trained:
        return quantize.qat(weights=int(BITS), fit=replace(FIT, seed=seed))
    return quantize.minmax(weights=int(BITS), samples=STATIC.samples)


def _step(method: str, seed: int) -> Step:
    budget, train = Budget(bits=BITS), quantize.Train(fit=replace(FIT, seed=seed))
    if method.startswith("uniform"):
        return _uniform(method.endswith("trained"), seed)
    if method.startswith("mixed_"):
        return quantize.mixed(budget, sensitivity=SENSITIVITIES[method.removeprefix("mixed_")], inner=STATIC)
    if method in ("haq", "releq", "autoq", "aq"):
        return {"haq": quantize.haq, "releq": quantize.releq, "autoq": quantize.autoq, "aq": quantize.aq}[method](budget, inner=STATIC)
    learned = {"fracbits": quantize.fracbits, "dq": quantize.dq, "dnas_bits": quantize.dnas_bits, "dmbq": quantize.dmbq,
               "alq_bits": quantize.alq_bits}
    return learned[method](budget, train=train)


def _rank(sensitivity: str, seed: int) -> dict[str, Any]:
    fashion = data.load("fashion_mnist")
    task = Task.of(original("resnet8", seed).eval(), fashion, STATIC, budget=Budget(bits=BITS), widths=Widths(), costs={})
    found = agreement(task, SENSITIVITIES[sensitivity], allocations=60, seed=seed)
    return {"sensitivity": sensitivity, "seed": seed, "rank": found.rank, "predicted": found.predicted, "true": found.true}


def row(case: str) -> dict[str, Any]:
    """One method on one seed's network, or one sensitivity's rank correlation."""
    *method, seed = case.split(":")
    if method[0] == "rank":
        return _rank(method[1], int(seed))
    fashion, network = data.load("fashion_mnist"), original("resnet8", int(seed)).eval()
    began = time.perf_counter()
    result = _step(method[0], int(seed))(network, fashion)
    entry = result.report.entries[0]
    widths = {r["layer"]: r.get("channel_bits", r["weight_bits"]) for r in entry.layers if "weight_bits" in r}
    return {"method": method[0], "seed": int(seed), "seconds": time.perf_counter() - began, "bits": entry.metrics.get("bits", BITS),
            "widths": widths, "metrics": entry.metrics, "float": evaluate(network, fashion.test), "float_val": evaluate(network, fashion.val),
            "accuracy": evaluate(result.model, fashion.test), "val": evaluate(result.model, fashion.val)}


if __name__ == "__main__":
    main(row, [f"{m}:{s}" for s in SEEDS for m in METHODS] + [f"rank:{name}:{s}" for s in SEEDS for name in SENSITIVITIES], threads=1)
