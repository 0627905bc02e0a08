"""Recovery: what mends a factorized network; a refit of each layer's last factor, or training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lilliput.factorize.factors import Factor, run
from lilliput.factorize.layers import Layer
from lilliput.factorize.observe import responses, unfolded
from lilliput.factorize.pairs import Pair
from lilliput.factorize.responses import Regression
from lilliput.train import Fit, Hook


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Training after factorization, with further hooks such as distillation."""

    fit: Fit = field(default_factory=Fit)
    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True)
class Refit:
    """The last factor of every layer anew, in the order in which layers run: `min |y - P h - b|^2`, by least squares.

    `h` is what the other factors make of the layer's input in the network as far as it is factorized, `y` the
    original's response; `b` only where the layer has a bias.
    """

    def __call__(self, layer: Layer, factors: Sequence[Factor], seen: Pair) -> tuple[Factor, ...]:
        """The chain with another last factor."""
        *first, last = factors
        hidden = run(first, seen.inputs)
        if last.dims:
            hidden = unfolded(hidden, tuple(last.weight.shape[2:]), last.stride, last.padding, last.dilation)[0]
        else:
            hidden = responses(hidden, layer)
        left, right, shift = Regression(hidden[seen.rows].double(), intercept=last.bias is not None)(seen.wanted.double(), len(last.weight))
        weight = (left @ right).reshape(last.weight.shape)
        return (*first, replace(last, weight=weight, bias=None if last.bias is None else shift))
