"""Gradients of a few bits, as a piece for any traced network."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lilliput.core.errors import RecipeError
from lilliput.graph.trace import Traced
from lilliput.quantize.low_precision.casts import Cast, Scaled, Unchanged, cast_both_ways
from lilliput.quantize.operators import LAYERS

_HOME = "gradient_casts"


@dataclass(frozen=True, kw_only=True)
class NoisyUniform:
    """`2 m (q(g / 2m + 1/2 + u / (2^k - 1)) - 1/2)`, `m` the largest magnitude of each sample and `u` uniform in [-1/2, 1/2).

    `q` rounds to the nearest of the `2^k` levels in [0, 1]; the noise `u` makes the result unbiased. Equation 12 of the
    paper. (zhou2016dorefa)

    Raises `RecipeError` for widths outside 1 to 16 bits.
    """

    bits: int = 6
    noise: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise RecipeError(f"gradients have 1 to 16 bits, not {self.bits!r}")

    def __call__(self, x: Tensor) -> Scaled:
        """The scaled values, with a scale for each sample of the first dimension."""
        steps = 2**self.bits - 1
        width = 2 * x.abs().amax(tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else 2 * x.abs()
        level = (x / width.clamp_min(torch.finfo(x.dtype).tiny) + 0.5) * steps
        if self.noise:
            level += torch.rand_like(x) - 0.5
        return Scaled(level.round_().clamp_(0, steps) / steps - 0.5, width)

    def nearest(self) -> NoisyUniform:
        """Without the noise."""
        return replace(self, noise=False)


class GradientCast(nn.Module):
    """Passes values as they are, and their gradient through a cast: `NoisyUniform`, or any other."""

    def __init__(self, cast: Cast) -> None:
        super().__init__()
        self.cast = cast

    def forward(self, x: Tensor) -> Tensor:
        """The tensor."""
        return cast_both_ways(x, Unchanged(), self.cast)

    def extra_repr(self) -> str:
        """The cast."""
        return repr(self.cast)


def cast_gradients(traced: Traced, cast: Cast) -> Traced:
    """A copy in which the gradient passes the cast before it enters each convolution and linear layer from behind.

    Both of a layer's gradients, by its input and by its weight, come from the cast one. `without_casts` takes them out again.
    """
    traced = copy.deepcopy(traced)
    for node in list(traced.graph.nodes):
        if node.target in LAYERS:
            target = f"{_HOME}.{node.name}"
            traced.add_submodule(target, GradientCast(cast))
            with traced.graph.inserting_after(node):
                new = traced.graph.call_module(target, (node,))
            node.replace_all_uses_with(new, delete_user_cb=lambda user, new=new: user is not new)
    traced.graph.lint()
    traced.recompile()
    return traced


def without_casts(traced: Traced) -> Traced:
    """A copy without the casts of gradients, which do nothing outside training."""
    traced = copy.deepcopy(traced)
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), GradientCast):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
