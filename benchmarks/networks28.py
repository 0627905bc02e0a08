"""The float networks that the tables on Fashion-MNIST start from, trained here and kept in `.cache`.

    python -m benchmarks.networks28 NAME:SEED [NAME:SEED ...]

Settings were chosen by the time they take and on the validation split; the test split is only ever read by the tables.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cache import cached
from lilliput import data, zoo
from lilliput.core import describe
from lilliput.graph import Traced, trace
from lilliput.train import SGD, AdamW, Cosine, Fit, evaluate, fit


@dataclass(frozen=True, kw_only=True)
class Network:
    """How one network is made and trained."""

    architecture: str
    fit: Fit
    options: dict[str, Any] = field(default_factory=dict)


def _convolutional(epochs: int, lr: float = 0.1) -> Fit:
    return Fit(epochs=epochs, optimizer=SGD(lr=lr), schedule=Cosine(warmup=0.05), precision="bf16-mixed", channels_last=True)


NETWORKS = {
    "resnet8": Network(architecture="resnet8", fit=_convolutional(8)),
    "resnet20": Network(architecture="resnet20", fit=_convolutional(8)),
    "resnet56": Network(architecture="resnet56", fit=_convolutional(8)),
    "vgg16": Network(architecture="vgg16", fit=_convolutional(8, lr=0.05), options={"width": 0.5}),
    # Depthwise convolutions train faster in float32 here.
    "mobilenet_v2": Network(architecture="mobilenet_v2", fit=replace(_convolutional(8, lr=0.05), precision="32-true"), options={"width": 0.5}),
    "vit": Network(architecture="vit_tiny", options={"image_size": 28, "dim": 64},
                   fit=Fit(epochs=10, optimizer=AdamW(lr=1e-3), schedule=Cosine(warmup=0.1))),
}


def created(name: str, seed: int) -> Traced:
    """The network as it was before training."""
    network = NETWORKS[name]
    model = zoo.create(network.architecture, num_classes=10, in_chans=1, seed=seed, options=network.options)
    return trace(model, data.load("fashion_mnist").example())


def original(name: str, seed: int) -> Traced:
    """The trained float network."""
    network, fashion = NETWORKS[name], data.load("fashion_mnist")
    config = replace(network.fit, seed=seed)

    def make(checkpoint: Path) -> Traced:
        trained = fit(created(name, seed), fashion, config, checkpoint=checkpoint).model
        assert isinstance(trained, Traced)
        return trained

    options = f" {network.options}" if network.options else ""
    return cached(f"{name}-fashion-{seed}", f"{network.architecture}{options} {describe(config)}", make)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sys.argv[1:]:
        name, _, seed = case.partition(":")
        print(case, evaluate(original(name, int(seed)), data.load("fashion_mnist").val), flush=True)
