"""Tiny networks and data for the factorization tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.data.order import spread
from lilliput.factorize.layers import find
from lilliput.graph import trace


@dataclass
class Samples:
    """A split of fixed samples."""

    inputs: Tensor
    targets: Tensor

    def __len__(self):
        return len(self.inputs)

    def batches(self, size, *, seed=None, epoch=0, rank=0, world=1):
        yield from zip(self.inputs.split(size), self.targets.split(size), strict=True)

    def head(self, count):
        part = torch.from_numpy(spread(len(self), count))
        return Samples(self.inputs[part], self.targets[part])


class Data:
    """Smooth random images, so that neighbouring pixels are correlated, or random tokens."""

    name, num_classes, digest = "smooth", 5, "0" * 64

    def __init__(self, shape=(3, 8, 8), count=96):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(count, *shape, generator=generator)
        if len(shape) == 3:
            x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) + 0.3
        self.train = self.val = Samples(x, torch.arange(count) % 5)

    def example(self, count=2):
        return self.train.inputs[:count]


class Plain(nn.Module):
    """Convolution with and without bias, stride, padding, dilation and groups, batch norm, ReLU, linear."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.b, self.norm = nn.Conv2d(12, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.c = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.d = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.fc = nn.Linear(16, 20)
        self.out = nn.Linear(20, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.b(F.relu(self.a(x)))))
        return self.out(F.relu(self.fc(self.d(F.relu(self.c(x))).mean((2, 3)))))


def plain():
    """A network in evaluation whose batch norm has the statistics of the data, and whose outputs vary."""
    torch.manual_seed(0)
    model = Plain()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight *= 2
        model.norm.weight.uniform_(0.5, 1.5)
        model.norm.momentum = 1.0
        model(Data().train.inputs)
    return trace(model.eval(), torch.zeros(2, 3, 8, 8))


def layers_of(traced):
    """Layers by name."""
    return {layer.name: layer for layer in find(traced)[0]}


def tensors_of(traced, layer):
    """Weight and bias of a layer."""
    return traced.tensor(layer.weight), None if layer.bias is None else traced.tensor(layer.bias)
