"""Moments: second moments of what a layer's weights are multiplied with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx

from lilliput.graph.products import as_rows, patches

_ELEMENTS = 2**24  # of unfolded input at once


class Moments:
    """`H = (2 / positions) sum x x'` over what a layer's rows are multiplied with, `(groups, inputs, inputs)`, float64."""

    def __init__(self, layer: fx.Node, weight: Tensor) -> None:
        rows = as_rows(weight, layer)
        self.layer, self.kernel = layer, tuple(weight.shape[2:])
        self.sum = torch.zeros(rows.shape[0], rows.shape[2], rows.shape[2], dtype=torch.float64)
        self.count = 0

    def update(self, x: Tensor) -> None:
        """Take in a batch of inputs, a few samples at a time."""
        size = max(_ELEMENTS // max(x[:1].numel() * math.prod(self.kernel), 1), 1)
        for part in torch.split(x.detach(), size):
            found = patches(self.layer, part, self.kernel)
            self.sum += (found.transpose(1, 2) @ found).double().to(self.sum.device)
            self.count += found.shape[1]

    @property
    def hessian(self) -> Tensor:
        """Of half the squared error of the layer's results, per position."""
        return self.sum * (2 / max(self.count, 1))
