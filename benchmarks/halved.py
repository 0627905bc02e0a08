"""ResNet-20, ResNet-56 and VGG-16 on Fashion-MNIST with 2.1 and 8 times fewer MACs: accuracy, beside torch-pruning's group norm.

    python -m benchmarks.halved --json benchmarks/results/halved.json [NETWORK:METHOD:SEED ...]

Every method starts from the same trained network, ends at the same MACs by this project's count, and is trained for the same
epochs at the same rate by the same loop; `distilled` learns from the network it was made of, in as many epochs. torch-pruning prunes
as its own benchmark does, in small steps over all layers at once until the MACs are reached, in a process of its own.
What is distilled, and the rate, were chosen on the validation split of seed 0; the last epoch is what counts.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks28 import NETWORKS, original
from benchmarks.peers import run
from benchmarks.results import main
from lilliput import data, distill, prune
from lilliput.core import Budget, seed_everything
from lilliput.graph import Traced, profile, trace
from lilliput.train import SGD, Cosine, Fit, evaluate, fit

SEEDS = (0, 1, 2)
LEFT = {"resnet20": 1 / 2.1, "resnet56": 1 / 2.1, "vgg16": 1 / 8}
METHODS = ("l1_norm", "fpgm", "distilled", "torch_pruning")


def fit_of(seed: int) -> Fit:
    """How every pruned network is trained."""
    return Fit(epochs=6, optimizer=SGD(lr=0.05), schedule=Cosine(warmup=0.05), precision="bf16-mixed", seed=seed, channels_last=True)


def pruned(network: str, method: str, seed: int) -> Traced:
    """The smaller network before it is trained."""
    whole, fashion, left = original(network, seed), data.load("fashion_mnist"), LEFT[network]
    if method == "torch_pruning":
        return _theirs(network, whole, left)
    step = {"l1_norm": prune.l1_norm, "fpgm": prune.fpgm, "distilled": prune.fpgm}[method](Budget(macs=left))
    small = step(whole, fashion).model
    assert isinstance(small, Traced)
    return small


def _theirs(network: str, whole: Traced, left: float) -> Traced:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.pt", Path(folder) / "after.pt2"
        torch.save({name: value.contiguous() for name, value in whole.state_dict().items()}, before)
        told = NETWORKS[network]
        run("peer_group_norm", told.architecture, str(told.options.get("width", 1.0)), str(left), str(before), str(after), peer=True, threads=1)
        return trace(torch.export.load(after).module(), data.load("fashion_mnist").example())


def row(case: str) -> dict[str, Any]:
    """Accuracy before and after training, and what is left."""
    network, method, number = case.split(":")
    seed, fashion = int(number), data.load("fashion_mnist")
    whole = original(network, seed)
    seed_everything(seed)
    start = pruned(network, method, seed)
    counts = profile(whole), profile(start)
    out: dict[str, Any] = {"network": network, "method": method, "seed": seed, "macs": counts[1].macs / counts[0].macs,
                           "params": counts[1].params / counts[0].params, "untrained": evaluate(start, fashion.val)}
    began = time.perf_counter()
    small = distill.kd(teacher=whole, fit=fit_of(seed))(start, fashion).model if method == "distilled" else fit(start, fashion, fit_of(seed)).model
    out |= {"seconds": round(time.perf_counter() - began), "val": evaluate(small, fashion.val)}
    out |= {"test": evaluate(small, fashion.test)}
    return out | {"float": evaluate(whole, fashion.test), "float_val": evaluate(whole, fashion.val)}


if __name__ == "__main__":
    main(row, [f"{network}:{method}:{seed}" for network in LEFT for seed in SEEDS for method in METHODS], threads=1)
