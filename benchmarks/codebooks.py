"""The best codebook that a number of bits pays for, tables included: what `benchmarks.transforms` sets beside rounding and transforms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lilliput.quantize import Share
from lilliput.quantize.codebook import Shared
from lilliput.quantize.sharing import Codebooks, Exact, KMeans, Lloyd, Normalised, Outputs, Product, Residual, Weight

BLOCKS = (1, 2, 3, 4, 8, 9)
MOST_ENTRIES = 1024


@dataclass(frozen=True, kw_only=True)
class Affordable:
    """Of scalar, vector, product and residual codebooks, with a scale to each row or without, the one of least output error.

    All may take `bits` for each weight and `row_bits` for each row of the weight, everything stored included.
    """

    bits: float
    row_bits: int = 16

    def __call__(self, weight: Weight) -> Shared:
        """The best of those that fit."""
        budget = self.bits * weight.rows.numel() + self.row_bits * len(weight.rows)
        found = [shared for block in BLOCKS if weight.rows.shape[1] % block == 0
                 for shared in candidates(replace(weight, block=block), budget) if shared.bits <= budget]
        return min(found, key=lambda shared: output_error(weight, shared.values().flatten(1)))


def candidates(weight: Weight, budget: float) -> Iterator[Shared]:
    """One of each kind for this size of blocks, with as many entries as fit."""
    blocks = weight.blocks
    count, columns, side = blocks.shape[:2].numel(), blocks.shape[1], 16 * len(weight.rows)
    solver = Exact() if weight.block == 1 else Lloyd(iterations=15)
    entry = 16 * weight.block
    for scaled in (False, True):
        left = budget - side * scaled
        for tables, make in ((1, KMeans), (columns, Product), (2, Residual)):
            entries = most(left, count * (2 if make is Residual else 1), entry * tables)
            if entries >= 2 and (make is KMeans or weight.block > 1):
                codebooks: Codebooks = make(entries=entries, solver=solver)
                yield (Normalised(codebooks=codebooks) if scaled else codebooks)(weight)


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


def codebooks(bits: float, row_bits: int = 16) -> Share:
    """`Affordable` as a step."""
    return Share(method="codebooks", codebooks=Affordable(bits=bits, row_bits=row_bits), weighting=Outputs(), stored=torch.float16, samples=128)
