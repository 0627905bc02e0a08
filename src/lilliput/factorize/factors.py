"""Factors: a chain of smaller layers that takes the place of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from lilliput.factorize.layers import Layer, node_of
from lilliput.graph.fold import drop_unused_tensors_, set_parameter_
from lilliput.graph.shapes import forget_shapes, shapes
from lilliput.graph.trace import Traced

aten = torch.ops.aten
_CONVOLUTION = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
_FUNCTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One layer of a chain: its weight, `(out, in)` or `(out, in, *kernel)`, and its spatial settings, 1, 0 and 1 by default.

    With `repeats` above one the channels are cut into as many equal groups, and each goes through this one weight: the
    result has `repeats * out` channels.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    repeats: int = 1
    dims: int = field(init=False)

    def __post_init__(self) -> None:
        dims = self.weight.ndim - 2
        object.__setattr__(self, "dims", dims)
        for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1)):
            object.__setattr__(self, name, getattr(self, name) or (usual,) * dims)

    def __call__(self, x: Tensor) -> Tensor:
        """The factor's result on `(N, channels, *)`, or on `(..., channels)` for a linear one."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if not self.dims:
            return F.linear(x, self.weight.to(x.dtype), bias)
        split = x.reshape(-1, x.shape[1] // self.repeats, *x.shape[2:])
        out: Tensor = _FUNCTION[self.dims](split, self.weight.to(x.dtype), bias, self.stride, self.padding, self.dilation)
        return out.reshape(len(x), -1, *out.shape[2:])


def run(factors: Sequence[Factor], x: Tensor) -> Tensor:
    """What a chain makes of an input."""
    for factor in factors:
        x = factor(x)
    return x


def params(factors: Sequence[Factor]) -> int:
    """Weights of a chain, biases aside."""
    return sum(f.weight.numel() for f in factors)


def composed(factors: Sequence[Factor], layer: Layer) -> Tensor:
    """The one weight that a chain amounts to, `(out, in, *kernel)` in double precision: its responses to single ones."""
    if not layer.kernel:
        return run([replace(f, weight=f.weight.double(), bias=None) for f in factors], torch.eye(layer.shape[1], dtype=torch.float64)).T
    sides = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel, strict=True)]
    places = [torch.arange(k) * d for d, k in zip(layer.dilation, layer.kernel, strict=True)]
    grid = torch.cartesian_prod(torch.arange(layer.shape[1]), *places).reshape(-1, 1 + len(sides))
    impulses = torch.zeros(len(grid), layer.shape[1], *sides, dtype=torch.float64)
    impulses[(torch.arange(len(grid)), *grid.T)] = 1
    # One position of the output, whatever stride and padding are.
    bare = [replace(f, weight=f.weight.double(), bias=None, padding=(0,) * f.dims, stride=(1,) * f.dims) for f in factors]
    return run(bare, impulses).flatten(1).T.reshape(layer.shape)


def replace_(traced: Traced, layer: Layer, factors: Sequence[Factor]) -> None:
    """Put a chain in the layer's place; its tensors are named `LAYER.factorI.weight`, and `.bias` where there is one."""
    node = node_of(traced, layer)
    value = node.args[0]
    assert isinstance(value, fx.Node)
    stem = layer.weight.rpartition(".")[0]
    site = _Site(traced, traced.tensor(layer.weight), tuple(shapes(traced)[value][2:]) if any(f.repeats > 1 for f in factors) else ())
    with traced.graph.inserting_before(node):
        for index, factor in enumerate(factors):
            value = site.call(value, factor, f"{stem}.factor{index}" if stem else f"factor{index}")
    node.replace_all_uses_with(value)
    traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    drop_unused_tensors_(traced)
    forget_shapes(traced)
    traced.recompile()


@dataclass
class _Site:
    """Where a chain is being built; `sides` of its input's images are tracked only where something is reshaped."""

    traced: Traced
    like: Tensor
    sides: tuple[int, ...]

    def call(self, value: fx.Node, factor: Factor, home: str) -> fx.Node:
        """Add the nodes of one factor."""
        graph = self.traced.graph
        arguments: list[Any] = [self._stored(f"{home}.weight", factor.weight),
                                None if factor.bias is None else self._stored(f"{home}.bias", factor.bias)]
        if not factor.dims:
            return graph.call_function(aten.linear.default, (value, *arguments))
        arguments += [list(factor.stride), list(factor.padding), list(factor.dilation)]
        if factor.repeats == 1:
            return graph.call_function(_CONVOLUTION[factor.dims], (value, *arguments))
        split = graph.call_function(aten.reshape.default, (value, [-1, factor.weight.shape[1], *self.sides]))
        made = graph.call_function(_CONVOLUTION[factor.dims], (split, *arguments))
        settings = zip(self.sides, factor.weight.shape[2:], factor.stride, factor.padding, factor.dilation, strict=True)
        self.sides = tuple((side + 2 * pad - gap * (k - 1) - 1) // step + 1 for side, k, step, pad, gap in settings)
        return graph.call_function(aten.reshape.default, (made, [-1, factor.repeats * factor.weight.shape[0], *self.sides]))

    def _stored(self, name: str, value: Tensor) -> fx.Node:
        set_parameter_(self.traced, name, value.detach().to(self.like.dtype), requires_grad=self.like.requires_grad)
        return self.traced.graph.get_attr(name)
