"""Tucker-2: a convolution as a 1x1, a core with fewer inputs and outputs, and a 1x1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lilliput.factorize.factors import Factor
from lilliput.factorize.layers import Layer
from lilliput.factorize.lowrank import AcrossKernels, Array, Count, Decomposed, Ranks, Spectrum
from lilliput.factorize.pairs import Pair


@dataclass(frozen=True, kw_only=True)
class Tucker:
    """`W[o, i, k] = sum_pq A[o, p] C[p, q, k] B[i, q]` with `A` and `B` orthonormal.

    Truncated higher-order SVD, then `sweeps` of alternating least squares (higher-order orthogonal iteration), each of which
    can only lower the squared error of the weight. Layers with a kernel of one position have one rank and become two, as
    the paper does with fully connected ones. (kim2016tucker)
    """

    sweeps: int = 5
    sees: ClassVar[bool] = False

    def __call__(self, layer: Layer, tensors: tuple[Tensor, Tensor | None], covariance: Tensor | None) -> Decomposed | str:  # noqa: ARG002
        """Decompose one layer."""
        if layer.groups > 1:
            return "a grouped convolution"
        if math.prod(layer.kernel) == 1:
            return AcrossKernels(layer, *tensors)
        return TwoModes(layer, tensors, self.sweeps)


class TwoModes:
    """One convolution; its ranks are those of outputs and inputs."""

    def __init__(self, layer: Layer, tensors: tuple[Tensor, Tensor | None], sweeps: int) -> None:
        self.layer, self.bias, self.sweeps = layer, tensors[1], sweeps
        self._weight = tensors[0].detach().double().flatten(2)
        out, inside, places = self._weight.shape
        self.spectra: tuple[Spectrum, ...] = (
            Spectrum(values=_singular(self._weight.flatten(1)), rows=out, columns=inside * places),
            Spectrum(values=_singular(self._weight.transpose(0, 1).flatten(1)), rows=inside, columns=out * places),
        )

    def params(self, ranks: tuple[Count, ...]) -> Count:
        """`in q + q p kernel + p out`."""
        (p, q), (out, inside, places) = ranks, self._weight.shape
        return inside * q + q * p * places + p * out

    def macs(self, ranks: tuple[Count, ...]) -> Count:
        """The first 1x1 runs at the resolution of the input."""
        (p, q), (out, inside, places) = ranks, self._weight.shape
        return math.prod(self.layer.inputs) * inside * q + self.layer.positions * (q * p * places + p * out)

    def factors(self, ranks: Ranks, seen: Pair | None) -> tuple[Factor, ...]:  # noqa: ARG002
        """Inputs to `q`, the core with the layer's spatial settings, `p` to outputs."""
        layer, ones = self.layer, [1] * len(self.layer.kernel)
        left, core, right = self.cut(ranks)
        return (Factor(weight=right.T.reshape(*right.T.shape, *ones)),
                Factor(weight=core.reshape(*core.shape[:2], *layer.kernel), stride=layer.stride, padding=layer.padding,
                       dilation=layer.dilation),
                Factor(weight=left.reshape(*left.shape, *ones), bias=self.bias))

    def cut(self, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
        """`A` `(out, p)`, the core `(p, q, kernel)` and `B` `(in, q)`."""
        left, right = _leading(self._weight.flatten(1), ranks[0]), _leading(self._weight.transpose(0, 1).flatten(1), ranks[1])
        for _ in range(self.sweeps):
            left = _leading(torch.einsum("oik,iq->oqk", self._weight, right).flatten(1), ranks[0])
            right = _leading(torch.einsum("oik,op->ipk", self._weight, left).flatten(1), ranks[1])
        return left, torch.einsum("oik,op,iq->pqk", self._weight, left, right), right


def _leading(unfolded: Tensor, count: int) -> Tensor:
    """The first left singular vectors, from the smaller Gram matrix, which is many times as fast."""
    vectors: Tensor = torch.linalg.eigh(unfolded @ unfolded.T)[1]
    return vectors.flip(1)[:, :count]


def _singular(unfolded: Tensor) -> Array:
    """Singular values, descending, as exact as half the digits."""
    power = torch.linalg.eigvalsh(unfolded @ unfolded.T).flip(0)[: unfolded.shape[1]]
    out: Array = power.clamp(min=0).sqrt().numpy()
    return out
