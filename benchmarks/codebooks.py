"""Codebooks that `benchmarks.transforms` sets beside rounding and transforms.

`codebooks` has the table of a normal density, which is the same everywhere and is stored nowhere, with a scale to each row: the bits of rounding
exactly; codes are chosen by what they do to the layer's outputs (`codebooks, nearest`: by the weights alone). `own tables` is the best of
tables for each layer that the same bits pay for, with fewer entries on small layers, which a table costs much. `kmeans` always has `2^bits` entries and scales to each row, and takes a little more than rounding; its rows say how much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lilliput.core import PreconditionError
from lilliput.quantize import Share
from lilliput.quantize.codebook import Shared
from lilliput.quantize.sharing import (
    Codebooks,
    Even,
    Exact,
    KMeans,
    Lloyd,
    Normalised,
    Outputs,
    Product,
    Residual,
    Standard,
    Weight,
)

BLOCKS = (1, 2, 3, 4, 8, 9)
MOST_ENTRIES = 1024


@dataclass(frozen=True, kw_only=True)
class Affordable:
    """Of scalar, vector, product and residual codebooks the one of least output error, with a scale to each row where that fits.

    All may take `bits` for each weight and `row_bits` for each row of the weight, everything stored included. Without scales
    small rows are lost, which the error of a layer hardly shows; so they come first.
    """

    bits: float
    row_bits: int = 16

    def __call__(self, weight: Weight) -> Shared:
        """The best of those that fit."""
        budget = self.bits * weight.rows.numel() + self.row_bits * len(weight.rows)
        for scaled in (True, False):
            found = [shared for block in BLOCKS if weight.rows.shape[1] % block == 0 for importance in (weight.importance, None)
                     for shared in candidates(replace(weight, block=block, importance=importance), budget, scaled)]
            if found:
                return min(found, key=lambda shared: output_error(weight, shared.values().flatten(1)))
        raise PreconditionError(f"no codebook fits {self.bits} bits: allow more")


def candidates(weight: Weight, budget: float, scaled: bool) -> Iterator[Shared]:
    """One of each kind for this size of blocks, with as many entries as fit."""
    count, columns = weight.blocks.shape[:2].numel(), weight.blocks.shape[1]
    solver = Exact() if weight.block == 1 else Lloyd(iterations=15)
    left = budget - 16 * len(weight.rows) * scaled
    for tables, make in ((1, KMeans), (columns, Product), (2, Residual)):
        entries = most(left, count * (2 if make is Residual else 1), 16 * weight.block * tables)
        if entries >= 2 and (make is KMeans or weight.block > 1):
            codebooks: Codebooks = make(entries=entries, solver=solver)
            shared = (Normalised(codebooks=codebooks) if scaled else codebooks)(weight)
            if shared.bits <= budget:
                yield shared


def most(budget: float, codes: int, entry: int) -> int:
    """The most entries whose codes and table fit: `codes ceil(log2 K) + K entry <= budget`; 0 where not even two do."""
    for width in range(MOST_ENTRIES.bit_length() - 1, 0, -1):
        entries = min(int((budget - codes * width) // entry), 1 << width)
        if entries > 1 << (width - 1):
            return entries
    return 0


def output_error(weight: Weight, values: Tensor) -> float:
    """`E|x'(w - w')|^2` summed over rows, for the inputs that the importance holds."""
    error = (weight.rows - values).double()
    moment = weight.importance.moment  # type: ignore[union-attr]
    grouped = error.reshape(len(moment), -1, error.shape[1])
    return float(torch.einsum("gri,gij,grj->", grouped, moment, grouped))


def kmeans(bits: int) -> Share:
    """The best `2^bits` values for a layer's weights over the scales of their rows."""
    return Share(method="kmeans", codebooks=Normalised(codebooks=KMeans(entries=2**bits, solver=Exact())), stored=torch.float16)


def codebooks(bits: int, sweeps: int = 4) -> Share:
    """The levels of a normal density and scales to rows; with no `sweeps`, those nearest the weights."""
    return Share(method="codebooks", codebooks=Standard(entries=2**bits, sweeps=sweeps), weighting=Outputs() if sweeps else Even(), stored=torch.float16,
                 samples=512)


def own_tables(bits: float, row_bits: int = 16) -> Share:
    """`Affordable` as a step."""
    rule = Affordable(bits=bits, row_bits=row_bits)
    return Share(method="own_tables", codebooks=rule, weighting=Outputs(), stored=torch.float16, samples=128)
