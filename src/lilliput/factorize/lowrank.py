"""Low rank by singular values: a layer as two, across its kernels, or across rows and columns of every kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.factorize.factors import Factor
from lilliput.factorize.layers import Layer, matrix
from lilliput.factorize.pairs import Pair

Array = NDArray[np.float64]
Ranks = tuple[int, ...]
# A whole number, or an array of them for many choices at once.
Count = Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """Singular values of one unfolding of a weight, descending, and the sides of the unfolded matrix."""

    values: Array
    rows: int
    columns: int

    @property
    def kept(self) -> Array:
        """Share of the squared values in the first `r`, for `r` from 0 to all."""
        power = np.concatenate([[0.0], np.cumsum(self.values**2)])
        return power / power[-1] if power[-1] > 0 else np.ones_like(power)


class Decomposed(Protocol):
    """One layer, ready to be cut at any ranks; one spectrum for each rank to be chosen."""

    layer: Layer
    spectra: tuple[Spectrum, ...]

    def params(self, ranks: tuple[Count, ...]) -> Count:
        """Weights of the factors."""
        ...

    def macs(self, ranks: tuple[Count, ...]) -> Count:
        """Multiply-accumulates of the factors, for one sample."""
        ...

    def factors(self, ranks: Ranks, seen: Pair | None) -> tuple[Factor, ...]:
        """The chain; `seen` is there where the decomposition asks for it."""
        ...


class Decomposition(Protocol):
    """`(layer, weight, bias) -> Decomposed`, or the reason why not.

    The covariance of the layer's responses, `(out, out)`, and `Pair` are there where `sees` is set, and batch norms are then
    folded first, so that a response is what the next operator reads.
    """

    sees: ClassVar[bool]

    def __call__(self, layer: Layer, tensors: tuple[Tensor, Tensor | None], covariance: Tensor | None) -> Decomposed | str:
        """Decompose one layer."""
        ...


@dataclass(frozen=True)
class Kernels:
    """Rank `r` across kernels: `W = U V` with `U` `(out, r)` and `V` `(r, in * kernel)`, by truncated SVD.

    A convolution becomes one with `r` of its kernels and a 1x1, a linear layer two. Least squared error of the weight
    among all such pairs. Denton clusters input and output channels first and approximates every block; here the unfolded
    tensor is one block. (denton2014linear)
    """

    sees: ClassVar[bool] = False

    def __call__(self, layer: Layer, tensors: tuple[Tensor, Tensor | None], covariance: Tensor | None) -> Decomposed | str:  # noqa: ARG002
        """Decompose one layer."""
        return "a grouped convolution" if layer.groups > 1 else AcrossKernels(layer, *tensors)


class AcrossKernels:
    """One layer as `r` kernels and their combinations."""

    def __init__(self, layer: Layer, weight: Tensor, bias: Tensor | None) -> None:
        self.layer, self.bias = layer, bias
        self._left, singular, self._right = torch.linalg.svd(matrix(weight), full_matrices=False)
        self._singular = singular
        self.spectra: tuple[Spectrum, ...] = (Spectrum(values=singular.numpy(), rows=layer.shape[0], columns=self._right.shape[1]),)

    def params(self, ranks: tuple[Count, ...]) -> Count:
        """`r (in * kernel + out)`."""
        return ranks[0] * (self._right.shape[1] + self.layer.shape[0])

    def macs(self, ranks: tuple[Count, ...]) -> Count:
        """As many for each position."""
        return self.layer.positions * self.params(ranks)

    def factors(self, ranks: Ranks, seen: Pair | None) -> tuple[Factor, ...]:  # noqa: ARG002
        """`r` kernels, then combinations; both carry the square root of the singular values."""
        root = self._singular[: ranks[0]].sqrt()
        return two(self.layer, self._left[:, : ranks[0]] * root, root[:, None] * self._right[: ranks[0]], self.bias)


def two(layer: Layer, left: Tensor, right: Tensor, bias: Tensor | None) -> tuple[Factor, ...]:
    """A layer with the weight `left right` as a chain: `right` `(r, in * kernel)` where the layer was, then `left` `(out, r)`."""
    first = right.reshape(-1, *layer.shape[1:])
    last = left.reshape(*left.shape, *[1] * len(layer.kernel))
    return (Factor(weight=first, stride=layer.stride, padding=layer.padding, dilation=layer.dilation), Factor(weight=last, bias=bias))


@dataclass(frozen=True)
class Separable:
    """Rank `r` across rows and columns: `W[o, i, y, x] = sum_r H[o, r, x] V[r, i, y]`, by truncated SVD.

    A convolution becomes one with `r` columns `(k, 1)` over all inputs and one with rows `(1, k)`: the second scheme of
    Jaderberg, with channels and filters separated at once (jaderberg2014speeding). Convolutions in two dimensions with
    kernels of at least two by two. (denton2014linear)
    """

    sees: ClassVar[bool] = False

    def __call__(self, layer: Layer, tensors: tuple[Tensor, Tensor | None], covariance: Tensor | None) -> Decomposed | str:  # noqa: ARG002
        """Decompose one layer."""
        if layer.groups > 1:
            return "a grouped convolution"
        if len(layer.kernel) != 2 or min(layer.kernel) < 2:
            return "its kernel has no rows and columns to separate"
        return RowsAndColumns(layer, *tensors)


class RowsAndColumns:
    """One convolution as columns, then rows."""

    def __init__(self, layer: Layer, weight: Tensor, bias: Tensor | None) -> None:
        self.layer, self.bias = layer, bias
        out, inside, high, wide = layer.shape
        unfolded = weight.detach().double().permute(1, 2, 0, 3).reshape(inside * high, out * wide)
        self._columns, self._singular, self._rows = torch.linalg.svd(unfolded, full_matrices=False)
        self.spectra: tuple[Spectrum, ...] = (Spectrum(values=self._singular.numpy(), rows=inside * high, columns=out * wide),)

    def params(self, ranks: tuple[Count, ...]) -> Count:
        """`r (in * k + out * k)`."""
        return ranks[0] * (self._columns.shape[0] + self._rows.shape[1])

    def macs(self, ranks: tuple[Count, ...]) -> Count:
        """The columns run at the height of the output and the width of the input."""
        layer = self.layer
        return ranks[0] * (layer.outputs[0] * layer.inputs[1] * self._columns.shape[0] + layer.positions * self._rows.shape[1])

    def factors(self, ranks: Ranks, seen: Pair | None) -> tuple[Factor, ...]:  # noqa: ARG002
        """Columns, then rows; both carry the square root of the singular values."""
        layer, r = self.layer, ranks[0]
        out, inside, high, wide = layer.shape
        root = self._singular[:r].sqrt()
        columns = (self._columns[:, :r] * root).T.reshape(r, inside, high, 1)
        rows = (root[:, None] * self._rows[:r]).reshape(r, out, 1, wide).transpose(0, 1)
        (sy, sx), (py, px), (dy, dx) = layer.stride, layer.padding, layer.dilation
        return (Factor(weight=columns, stride=(sy, 1), padding=(py, 0), dilation=(dy, 1)),
                Factor(weight=rows, bias=self.bias, stride=(1, sx), padding=(0, px), dilation=(1, dx)))
