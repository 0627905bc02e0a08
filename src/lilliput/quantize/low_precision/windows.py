"""The three products of a linear layer and of a convolution, as products of matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from lilliput.quantize.low_precision.sums import Sum

Pair = tuple[int, int]


class Geometry(Protocol):
    """Turns a layer's tensors into matrices of `G` groups: weight `(G, O, K)`, input `(G, K, P)`, result and error `(G, O, P)`.

    `P` runs over samples and positions, `K` over what one result is summed from.
    """

    def columns(self, x: Tensor, weight: Tensor) -> Tensor:
        """The input `(G, K, P)`."""

    def rows(self, weight: Tensor) -> Tensor:
        """The weight `(G, O, K)`."""

    def image(self, product: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """A product `(G, O, P)` in the layout of the layer's result."""

    def errors(self, error: Tensor) -> Tensor:
        """The error `(G, O, P)`, from the layout of the layer's result."""

    def input_gradient(self, add: Sum, error: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """The error of the input, shaped like `x`, summed by `add`."""


@dataclass(frozen=True)
class Dense:
    """A linear layer on `(..., K)`."""

    def columns(self, x: Tensor, weight: Tensor) -> Tensor:
        """The input `(1, K, P)`."""
        return x.reshape(-1, weight.shape[1]).t()[None]

    def rows(self, weight: Tensor) -> Tensor:
        """The weight `(1, O, K)`."""
        return weight[None]

    def image(self, product: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """`(..., O)`."""
        return product[0].t().reshape(*x.shape[:-1], weight.shape[0])

    def errors(self, error: Tensor) -> Tensor:
        """The error `(1, O, P)`."""
        return error.reshape(-1, error.shape[-1]).t()[None]

    def input_gradient(self, add: Sum, error: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """`e W`, summed over the outputs."""
        return add(error.reshape(-1, weight.shape[0]), weight).reshape(x.shape)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A convolution over one or two dimensions; those over one are given a first dimension of size one.

    `padding` is `(top, bottom, left, right)`. A result is summed over channels, then rows, then columns of its window.
    """

    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def columns(self, x: Tensor, weight: Tensor) -> Tensor:
        """The input `(G, K, P)`."""
        x, weight = _flat(x), _flat(weight)
        top, bottom, left, right = self.padding
        return _columns(F.pad(x, (left, right, top, bottom)), _pair(weight), self.stride, self.dilation, self.groups)

    def rows(self, weight: Tensor) -> Tensor:
        """The weight `(G, O, K)`."""
        return weight.reshape(self.groups, -1, weight[0].numel())

    def image(self, product: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """`(N, C, H, W)`, or `(N, C, W)` where the input is."""
        n, height, width = len(x), *self._extent(_flat(x), _flat(weight))
        out = product.reshape(self.groups, -1, n, height, width).permute(2, 0, 1, 3, 4).reshape(n, -1, height, width)
        return out if x.ndim == 4 else out[:, :, 0]

    def errors(self, error: Tensor) -> Tensor:
        """The error `(G, O, P)`."""
        error = _flat(error)
        grouped = error.reshape(len(error), self.groups, -1, error.shape[2] * error.shape[3]).permute(1, 2, 0, 3)
        return grouped.reshape(self.groups, grouped.shape[1], -1)

    def input_gradient(self, add: Sum, error: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """The error with `stride - 1` zeros in between, correlated with the turned weight: summed over outputs and window."""
        kernel, spread, size = _flat(weight), _flat(error), self._padded(_flat(x))
        top, bottom, left, right = self.padding
        reach = [d * (k - 1) for d, k in zip(self.dilation, _pair(kernel), strict=True)]
        canvas = spread.new_zeros(*spread.shape[:2], size[0] + reach[0], size[1] + reach[1])
        rows = slice(reach[0], reach[0] + self.stride[0] * spread.shape[2], self.stride[0])
        columns = slice(reach[1], reach[1] + self.stride[1] * spread.shape[3], self.stride[1])
        canvas[:, :, rows, columns] = spread
        turned = kernel.reshape(self.groups, -1, *kernel.shape[1:]).flip(3, 4).transpose(1, 2)
        windows = _columns(canvas, _pair(kernel), (1, 1), self.dilation, self.groups)
        product = add(turned.reshape(self.groups, kernel.shape[1], -1), windows)
        whole = product.reshape(self.groups, -1, len(x), *size).permute(2, 0, 1, 3, 4).reshape(len(x), -1, *size)
        return whole[:, :, top : size[0] - bottom, left : size[1] - right].reshape(x.shape)

    def _padded(self, x: Tensor) -> Pair:
        top, bottom, left, right = self.padding
        return x.shape[2] + top + bottom, x.shape[3] + left + right

    def _extent(self, x: Tensor, weight: Tensor) -> Pair:
        """Height and width of the result."""
        sizes = zip(self._padded(x), self.dilation, _pair(weight), self.stride, strict=True)
        height, width = ((n - d * (k - 1) - 1) // s + 1 for n, d, k, s in sizes)
        return height, width


def _flat(tensor: Tensor) -> Tensor:
    """Four dimensions."""
    return tensor if tensor.ndim == 4 else tensor.unsqueeze(2)


def _pair(weight: Tensor) -> Pair:
    return weight.shape[2], weight.shape[3]


def _columns(x: Tensor, kernel: Pair, stride: Pair, dilation: Pair, groups: int) -> Tensor:
    """Windows of a padded image as `(G, channels of a group * window, samples * positions)`."""
    if kernel == (1, 1):
        windows = x[:, :, :: stride[0], :: stride[1]].reshape(len(x), x.shape[1], -1)
    else:
        windows = F.unfold(x, kernel, dilation=dilation, stride=stride)
    n, _, positions = windows.shape
    grouped = windows.reshape(n, groups, -1, positions)
    return grouped.permute(1, 2, 0, 3).reshape(groups, -1, n * positions)


def pair(values: object) -> Pair:
    """Two numbers from a list of two, or of one for a convolution over one dimension, which runs along the second."""
    assert isinstance(values, list | tuple)
    return (1, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


def same_padding(kernel: Pair, dilation: Pair) -> tuple[int, int, int, int]:
    """What `padding="same"` pads: `d (k - 1)` in all, the odd one behind."""
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2
