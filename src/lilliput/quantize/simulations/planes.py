"""Levels that are sums of bits, each bit with a weight of its own: a basis, learned by least squares."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from lilliput.quantize.simulations.base import positive


def encodings(bits: int, *, signed: bool, device: torch.device | None = None) -> Tensor:
    """All codes, `(2^bits, bits)`: -1 and 1, or 0 and 1."""
    rows = list(itertools.product((-1.0, 1.0) if signed else (0.0, 1.0), repeat=bits))
    return torch.tensor(rows, device=device)


def sorted_levels(basis: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a basis `(..., bits)`: scale `(...)`, levels relative to it `(..., K)` ascending, thresholds `(..., K - 1)`, and each
    level's code.

    The scale is the largest magnitude; codes have shape `(..., K, bits)`.
    """
    levels, order = (basis @ codes.T).sort(-1)
    scale = positive(levels.abs().amax(-1))
    levels = levels / scale[..., None]
    return scale, levels, (levels[..., 1:] + levels[..., :-1]) / 2, codes[order]


def fitted(rows: Tensor, bits: Tensor, basis: Tensor, *, ridge: float = 1e-4) -> Tensor:
    """The basis of least squared error for rows of values and their bits: `(B'B + e I)^-1 (B'x + e v)`, `v` the basis so far.

    `rows` is `(..., N)`, `bits` `(..., N, bits)`, `basis` `(..., bits)`; the small ridge `e` is the authors', for rows that do
    not use all bits. (zhang2018lqnets)
    """
    gram = bits.mT @ bits + ridge * torch.eye(bits.shape[-1], device=bits.device)
    right = bits.mT @ rows[..., None] + ridge * basis[..., None]
    result: Tensor = torch.linalg.solve(gram, right)[..., 0]
    return result
