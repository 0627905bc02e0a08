"""A filter basis: parts of all kernels as combinations of a few kernels that every group of inputs shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lilliput.factorize.factors import Factor
from lilliput.factorize.layers import Layer
from lilliput.factorize.lowrank import Count, Decomposed, Ranks, Spectrum
from lilliput.factorize.pairs import Pair


@dataclass(frozen=True, kw_only=True)
class FilterBasis:
    """`W[o, g] = sum_r C[o, g, r] B[r]` for each group `g` of `channels` inputs, `B` `(r, channels, *kernel)` shared by all.

    Every filter is cut along its inputs into parts of `channels` each (the nearest divisor of its inputs from below); the
    best basis of all parts is their truncated SVD, where the paper starts its training from chance or from the network's
    own filters. The convolution becomes one with `r` kernels that runs over every group in turn, and a 1x1 that
    combines `r` maps of each group. (li2019basis)
    """

    channels: int = 16
    sees: ClassVar[bool] = False

    def __call__(self, layer: Layer, tensors: tuple[Tensor, Tensor | None], covariance: Tensor | None) -> Decomposed | str:  # noqa: ARG002
        """Decompose one layer."""
        if layer.groups > 1:
            return "a grouped convolution"
        if not layer.kernel:
            return "a linear layer has no kernels"
        width = next(c for c in range(min(self.channels, layer.shape[1]), 0, -1) if layer.shape[1] % c == 0)
        return Shared(layer, tensors, width)


class Shared:
    """One convolution over groups of `width` inputs."""

    def __init__(self, layer: Layer, tensors: tuple[Tensor, Tensor | None], width: int) -> None:
        self.layer, self.bias, self.width, self.groups = layer, tensors[1], width, layer.shape[1] // width
        parts = tensors[0].detach().double().reshape(layer.shape[0] * self.groups, -1)
        self._left, self._singular, self._right = torch.linalg.svd(parts, full_matrices=False)
        self.spectra: tuple[Spectrum, ...] = (Spectrum(values=self._singular.numpy(), rows=parts.shape[0], columns=parts.shape[1]),)

    def params(self, ranks: tuple[Count, ...]) -> Count:
        """`r channels kernel + out groups r`."""
        return ranks[0] * (self._right.shape[1] + self._left.shape[0])

    def macs(self, ranks: tuple[Count, ...]) -> Count:
        """The basis runs once for each group."""
        return self.layer.positions * ranks[0] * (self.groups * self._right.shape[1] + self._left.shape[0])

    def factors(self, ranks: Ranks, seen: Pair | None) -> tuple[Factor, ...]:  # noqa: ARG002
        """The basis, orthogonal and of the parts' scale, then the combinations."""
        layer, r = self.layer, ranks[0]
        scale = self._singular[:r] / math.sqrt(len(self._left))
        basis = (scale[:, None] * self._right[:r]).reshape(r, self.width, *layer.kernel)
        mixing = (self._left[:, :r] * math.sqrt(len(self._left))).reshape(layer.shape[0], self.groups * r, *[1] * len(layer.kernel))
        return (Factor(weight=basis, stride=layer.stride, padding=layer.padding, dilation=layer.dilation, repeats=self.groups),
                Factor(weight=mixing, bias=self.bias))
