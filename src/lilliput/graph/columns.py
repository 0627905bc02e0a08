"""Columns of a weight changed one after the other, with those still to come making up for each one's error."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Change = Callable[[int, Tensor], Tensor]


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """`U`, upper triangular, with `U' U = (H + damping mean(diag(H)) I)^-1`, for `H` of shape `(groups, inputs, inputs)`.

    There is more damping where rounding errors still leave `H` singular.
    """
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    added = damping * diagonal.mean(1, keepdim=True)
    # Inputs that are always zero have nothing to make up for: any curvature of their own will do.
    added = torch.where(diagonal > 0, added, added.clamp(min=1e-30) / damping)
    while True:
        lower, failed = torch.linalg.cholesky_ex(hessian + torch.diag_embed(added))
        if not bool(failed.any()):
            inverse = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not bool(inverse.info.any()):
                factor: Tensor = inverse.L
                return factor
        added = added * 10


def in_columns(rows: Tensor, factor: Tensor, change: Change, block: int) -> Tensor:
    """The rows `(groups, outputs, inputs)` with every column changed, first to last.

    After column `i` went to `q`, `W[:, j] -= (W[:, i] - q) U[i, j] / U[i, i]` for `j > i`, with `U` of `inverse_factor`. `change`
    gives column `i`, `(groups, outputs)`, from `i` and the rows as they are then; in them columns further on than the end of the
    block of `i` are behind, since a block of columns is taken off the rest at once. (frantar2023gptq)
    """
    rows, out = rows.clone(), torch.empty_like(rows)
    for start in range(0, rows.shape[2], block):
        end = min(start + block, rows.shape[2])
        errors = torch.zeros_like(rows[:, :, start:end])
        for i in range(start, end):
            out[:, :, i] = change(i, rows)
            error = (rows[:, :, i] - out[:, :, i]) / factor[:, None, i, i]
            rows[:, :, i + 1: end] -= error[:, :, None] * factor[:, None, i, i + 1: end]
            errors[:, :, i - start] = error
        rows[:, :, end:] -= errors @ factor[:, start:end, end:]
    return out
