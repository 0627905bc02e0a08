"""The arithmetic of a layer in training: what its three products multiply, and how they add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from lilliput.quantize.low_precision.casts import Cast, Unchanged
from lilliput.quantize.low_precision.sums import Sum, Wide


@dataclass(frozen=True, kw_only=True)
class Operands:
    """Casts of weight, activation and error (the loss's gradient by the layer's result) before they are multiplied.

    `error_for_weight` is that of the copy from which the weight's gradient comes; None for one copy that serves both.
    """

    weight: Cast = field(default_factory=Unchanged)
    activation: Cast = field(default_factory=Unchanged)
    error: Cast = field(default_factory=Unchanged)
    error_for_weight: Cast | None = None

    def nearest(self) -> Operands:
        """The same without chance."""
        copy = None if self.error_for_weight is None else self.error_for_weight.nearest()
        return Operands(weight=self.weight.nearest(), activation=self.activation.nearest(), error=self.error.nearest(),
                        error_for_weight=copy)


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """One layer: `forward` sums the result, `backward` the error of its input, `gradient` that of weight and bias."""

    operands: Operands = field(default_factory=Operands)
    forward: Sum = field(default_factory=Wide)
    backward: Sum = field(default_factory=Wide)
    gradient: Sum = field(default_factory=Wide)

    def nearest(self) -> Arithmetic:
        """The same without chance, for evaluation."""
        return replace(self, operands=self.operands.nearest(), forward=self.forward.nearest())


class Plan(Protocol):
    """`layers` (names, in the order in which they run) to the arithmetic of each."""

    def __call__(self, layers: Sequence[str]) -> dict[str, Arithmetic]:
        """Arithmetic by layer name."""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The same arithmetic for every layer, but another one for the first and the last where that is set."""

    inner: Arithmetic
    first: Arithmetic | None = None
    last: Arithmetic | None = None

    def __call__(self, layers: Sequence[str]) -> dict[str, Arithmetic]:
        """Arithmetic by layer name; in a network of one layer that is the last."""
        out = dict.fromkeys(layers, self.inner)
        if layers and self.first is not None:
            out[layers[0]] = self.first
        if layers and self.last is not None:
            out[layers[-1]] = self.last
        return out
