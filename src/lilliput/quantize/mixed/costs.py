"""What widths cost: bits, bytes as they are stored, and whatever a table or a function says (latency, energy)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lilliput.core.budget import Budget
from lilliput.core.errors import PreconditionError, UnknownNameError
from lilliput.quantize.bits import Bits
from lilliput.quantize.grids import Grid, Integer

Array = NDArray[np.float64]
# Seconds, joules or whatever is limited: by layer and width of its weights, or from a function of layer and bits.
Cost = Mapping[str, Mapping[int, float]] | Callable[[str, Bits], float]


def stored_bits(grid: Grid) -> int:
    """Bits that a code of the grid takes in the exported file: ONNX packs integers of 4 and 8 bits, tables of 1, 2, 4 and 8.

    (Integers of two bits are packed only in networks whose activations stay in floating point.)
    """
    widths = (4, 8, 16) if isinstance(grid, Integer) else (1, 2, 4, 8)
    return next(width for width in widths if grid.bits <= width)


def table(name: str, cost: Cost, layers: Sequence[str], options: Sequence[Bits]) -> Array:
    """A cost as `(layers, options)`; raises `UnknownNameError` and `PreconditionError` where a table has gaps."""
    if callable(cost):
        return np.array([[float(cost(layer, bits)) for bits in options] for layer in layers])
    for layer in layers:
        if layer not in cost:
            raise UnknownNameError(f"layer in the {name} table", layer, cost)
        missing = [bits.weights for bits in options if bits.weights not in cost[layer]]
        if missing:
            raise PreconditionError(f"the {name} table lacks {missing} bits for {layer}: add them, or leave those widths out")
    return np.array([[float(cost[layer][bits.weights]) for bits in options] for layer in layers])


def check(budget: Budget, costs: Mapping[str, Cost]) -> None:
    """Raise `PreconditionError` for a budget that widths cannot meet, or that nobody can count."""
    if not budget.costs():
        raise PreconditionError("the budget limits no cost: give one, such as Budget(bits=4.0)")
    for name in budget.costs():
        if name in ("macs", "params"):
            raise PreconditionError(f"bits do not change {name}: prune for that, and limit bits, size, latency or energy here")
        if name not in ("bits", "size", *costs):
            raise PreconditionError(f"a {name} budget needs a table: pass costs={{{name!r}: {{layer: {{bits: value}}}}}} "
                                    "or a function (layer, bits) -> value")
