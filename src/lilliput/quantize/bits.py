"""Bit allocation: how many bits each layer gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lilliput.core.errors import RecipeError, UnknownNameError


class Bits(NamedTuple):
    """Bits of a layer's weight and of its input."""

    weights: int
    activations: int


_EIGHT = Bits(8, 8)


def check_bits(bits: object, most: int = 16) -> None:
    """Raise `RecipeError` for what is no whole number of bits from 1 to `most`."""
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= most:
        raise RecipeError(f"bits are a whole number from 1 to {most}, not {bits!r}")


class Allocation(Protocol):
    """`layers` (names, in the order in which they run) to bits for each."""

    def __call__(self, layers: Sequence[str]) -> dict[str, Bits]:
        """Bits by layer name."""


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """The same bits for every layer; `ends`, where set, for the first and the last.

    >>> Uniform(weights=4, activations=4, ends=8)(["stem", "body", "head"])["body"]
    Bits(weights=4, activations=4)
    """

    weights: int = 8
    activations: int = 8
    ends: int | None = None

    def __post_init__(self) -> None:
        for bits in (self.weights, self.activations, *(() if self.ends is None else (self.ends,))):
            check_bits(bits)

    def __call__(self, layers: Sequence[str]) -> dict[str, Bits]:
        """Bits by layer name."""
        inner = Bits(self.weights, self.activations)
        outer = inner if self.ends is None else Bits(max(self.ends, self.weights), max(self.ends, self.activations))
        return {layer: outer if layer in (layers[0], layers[-1]) else inner for layer in layers}


@dataclass(frozen=True)
class Fixed:
    """Bits written down layer by layer, as a search found them; layers that are not named get `otherwise`.

    >>> Fixed({"stem": Bits(6, 8)})(["stem", "head"])["stem"]
    Bits(weights=6, activations=8)

    Raises `UnknownNameError` for a name that no layer has.
    """

    bits: Mapping[str, Bits]
    otherwise: Bits = _EIGHT

    def __call__(self, layers: Sequence[str]) -> dict[str, Bits]:
        """Bits by layer name."""
        for name in self.bits:
            if name not in layers:
                raise UnknownNameError("layer", name, layers)
        return {layer: self.bits.get(layer, self.otherwise) for layer in layers}
