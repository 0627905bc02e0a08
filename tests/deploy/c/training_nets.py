"""Networks of a chain of convolutions, as programs."""

import numpy as np
import torch
from torch import nn

from lilliput.deploy.c.operators import AveragePool, Buffer, Convolution, Window
from lilliput.deploy.c.program import Port, Program


def _buffer(name, shape, scale, zero):
    return Buffer(name=name, shape=shape, scale=scale, zero=zero)


def chain(seed=0, classes=5):
    """Pointwise, 3 x 3, depthwise of stride 2, pointwise with a ReLU, grouped 3 x 2 and dilated, mean, linear; weights drawn."""
    rng = np.random.default_rng(seed)
    at, steps = _buffer("x", (6, 6, 4), 0.05, 3), []

    def convolution(name, filters, window, groups, low=-128, zero=-5):
        nonlocal at
        height, width = window.size(*at.shape[:2])
        weights = rng.integers(-127, 128, (filters, *window.kernel, at.shape[2] // groups))
        scales = rng.uniform(0.002, 0.006, filters)
        out = _buffer(name, (height, width, filters), 0.06, zero)
        steps.append(Convolution(inputs=(at,), output=out, layer=name, weights=weights, bias=rng.integers(-2000, 2000, filters),
                                 factors=at.scale * scales / out.scale, image=at.shape, window=window, groups=groups, low=low))
        at = out

    convolution("first", 4, Window(), 1)
    convolution("plain", 4, Window(kernel=(3, 3), pads=(1, 0, 1, 2)), 1)
    convolution("depthwise", 4, Window(kernel=(3, 3), stride=(2, 2), pads=(1, 1, 0, 1)), 4)
    convolution("pointwise", 6, Window(), 1, low=-128, zero=-128)
    convolution("grouped", 8, Window(kernel=(3, 2), dilation=(1, 2), pads=(1, 1, 1, 1)), 2)
    mean = _buffer("mean", (1, 1, 8), 0.03, 7)
    steps.append(AveragePool(inputs=(at,), output=mean, layer="mean", image=at.shape, window=Window(kernel=at.shape[:2], stride=(1, 1))))
    at = mean
    convolution("classifier", classes, Window(), 1)

    def port(buffer):
        return Port(name=buffer.name, buffer=buffer, positions=np.arange(buffer.size).reshape(1, *buffer.shape))

    return Program(inputs=(port(steps[0].inputs[0]),), outputs=(port(at),), steps=tuple(steps))


class Small(nn.Module):
    """For the digits: three convolutions, mean, linear."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 32, 1)
        self.out = nn.Linear(32 * 4, 10)

    def forward(self, x):
        """`(N, 1, 8, 8) -> (N, 10)`."""
        x = torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x))))))
        return self.out(nn.functional.avg_pool2d(x, 2).flatten(1))
