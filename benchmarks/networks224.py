"""ResNet-18 and MobileNetV2 of torchvision at 224 x 224 with weights that mean something, made in a minute or two.

There is no place to download ImageNet weights from. So: trained for one short epoch on Fashion-MNIST enlarged to 64 x 64,
three equal channels; then, at 224 x 224, batch-norm statistics estimated anew and the last layer fitted (logistic
regression on its inputs). Every weight, statistic and logit comes from data, so agreement with fp32 means something.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import torchvision_models
from benchmarks.cache import cached
from lilliput import data
from lilliput.data import Data, Keep, Normalize, Transforms, from_splits
from lilliput.graph import Traced, trace
from lilliput.train import AdamW, Cosine, Fit, fit, recalibrate_batchnorm

NAMES = ("resnet18", "mobilenet_v2")
SIZE = 224
_FIT = Fit(epochs=1, batch_size=64, optimizer=AdamW(lr=2e-3), schedule=Cosine(warmup=0.1), seed=0, channels_last=True)
_SMALL, _TRAIN, _FITTED, _VAL, HELD_OUT = 64, 9600, 1024, 128, 1024


def _images(split: data.Split, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images as bytes `(count, 3, size, size)`, and their labels."""
    x, y = next(split.batches(count))
    grey = (x * 0.3530 + 0.2860).clamp(0, 1)
    large = F.interpolate(grey, size=(size, size), mode="bilinear", align_corners=False)
    return (large * 255).round().byte().expand(-1, 3, -1, -1).numpy(), y.numpy()


def enlarged(size: int, train: int) -> Data:
    """Fashion-MNIST at that size: `train` images to learn from, the first of validation and test."""
    fashion = data.load("fashion_mnist")
    splits = {"train": _images(fashion.train, train, size), "val": _images(fashion.val, _VAL, size),
              "test": _images(fashion.test, HELD_OUT, size)}
    transforms = Transforms(normalize=Normalize(mean=(0.2860,) * 3, std=(0.3530,) * 3), augment=Keep())
    return from_splits(f"fashion_mnist_{size}", splits, num_classes=10, transforms=transforms)


def network(name: str, full: Data) -> Traced:
    """The network, for inputs of 224 x 224."""

    def make(checkpoint: Path) -> Traced:
        torch.manual_seed(0)
        model = torchvision_models.models().get_model(name, weights=None, num_classes=10)
        trained = fit(model, enlarged(_SMALL, _TRAIN), _FIT, checkpoint=checkpoint).model
        trained = recalibrate_batchnorm(trained.eval(), full.train, batches=8, batch_size=32)
        _fit_head_(trained, full)
        return trace(trained.eval(), full.example())

    return cached(f"{name}-fashion-224", f"{name} {_FIT!r} {_SMALL} {_TRAIN} {_FITTED}", make)


def _fit_head_(model: nn.Module, full: Data) -> None:
    """Replace the last linear layer's weights by those of a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    targets = []
    with torch.no_grad():
        for inputs, labels in full.train.batches(32):
            model(inputs)
            targets.append(labels)
    handle.remove()
    features = torch.cat(seen).double()
    mean, std = features.mean(0), features.std(0).clamp_min(1e-3)
    found = LogisticRegression(C=0.01, max_iter=300).fit(((features - mean) / std).numpy(), torch.cat(targets).numpy())
    weight = torch.from_numpy(found.coef_) / std
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(torch.from_numpy(found.intercept_) - weight @ mean)


def full_data() -> Data:
    """The data at 224 x 224: what statistics, head and calibration see is `train`, what is judged by is `test`."""
    return enlarged(SIZE, _FITTED)
