"""Solvers: which weights of a layer go, and what the others become, given the second moments of the layer's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.graph.columns import in_columns, inverse_factor
from lilliput.prune.patterns import Pattern


class Solver(Protocol):
    """`(rows, hessian, pattern, drop) -> rows and what is kept of them`."""

    def __call__(self, rows: Tensor, hessian: Tensor, pattern: Pattern, drop: int, /) -> tuple[Tensor, Tensor]:
        """Prune `drop` of the weights in rows `(groups, outputs, inputs)`, with `H = c X X'` `(groups, inputs, inputs)`; float64.

        Returns rows that are zero where they are not kept, and what is kept, of that shape.
        """
        ...


def check_damping(damping: float) -> None:
    """Raise `RecipeError` unless it is positive."""
    if damping <= 0:
        raise RecipeError(f"the Hessian is damped by a positive share of its mean, not {damping}")


@dataclass(frozen=True, kw_only=True)
class Wanda:
    """`|w_ij| ||x_j||^power` says what stays, and nothing else changes; power 0 is magnitude. (sun2024wanda)"""

    power: float = 1.0

    def __call__(self, rows: Tensor, hessian: Tensor, pattern: Pattern, drop: int, /) -> tuple[Tensor, Tensor]:
        """Rows and what is kept."""
        norms = hessian.diagonal(dim1=1, dim2=2).sqrt()
        kept = pattern.keep(rows.abs() * norms[:, None].pow(self.power), drop)
        return rows * kept, kept


@dataclass(frozen=True, kw_only=True)
class LayerOBS:
    """Weights in the order of `w_q^2 / (2 [H^-1]_qq)`, each row made up for by `-w_q / [H^-1]_qq H^-1 e_q` as one goes.

    Order and inverse are those of the whole layer, once; `w_q` is what the weight has become by its turn. What later steps add
    to a weight that has gone is dropped in the end. `H` is damped by `damping` of its mean diagonal. (dong2017layerwise)
    """

    damping: float = 1e-4

    def __post_init__(self) -> None:
        check_damping(self.damping)

    def __call__(self, rows: Tensor, hessian: Tensor, pattern: Pattern, drop: int, /) -> tuple[Tensor, Tensor]:
        """Rows and what is kept."""
        factor = inverse_factor(hessian, self.damping)
        inverse = factor.transpose(1, 2) @ factor
        costs = rows.square() / (2 * inverse.diagonal(dim1=1, dim2=2)[:, None])
        kept = pattern.keep(costs, drop)
        counts = (~kept).sum(2, keepdim=True)
        order = costs.masked_fill(kept, torch.inf).argsort(dim=2, stable=True)
        rows = rows.clone()
        for step in range(int(counts.max())):
            place = order[:, :, step: step + 1]
            columns = inverse.gather(1, place.expand(-1, -1, rows.shape[2]))
            part = rows.gather(2, place) / columns.gather(2, place)
            rows -= torch.where(counts > step, part, 0.0) * columns
        return rows * kept, kept


@dataclass(frozen=True, kw_only=True)
class SparseGPT:
    """Columns first to last: of each block those with the least `w^2 / U[i, i]^2` go, and columns still to come make up for it.

    `U' U = (H + damping mean(diag(H)) I)^-1`, `U` upper triangular, so that `U[i, i]^2` is what the inverse of the Hessian of the
    columns from `i` on has on its diagonal. What goes is decided at the first column of every `block` (of every `m`, for
    n:m), with the weights as they are by then. `damping` and `block` are the paper's. (frantar2023sparsegpt)
    """

    damping: float = 0.01
    block: int = 128

    def __post_init__(self) -> None:
        check_damping(self.damping)
        if self.block < 1:
            raise RecipeError(f"a block has one column or more, not {self.block}")

    def __call__(self, rows: Tensor, hessian: Tensor, pattern: Pattern, drop: int, /) -> tuple[Tensor, Tensor]:
        """Rows and what is kept."""
        factor = inverse_factor(hessian, self.damping)
        diagonal = factor.diagonal(dim1=1, dim2=2)[:, None]
        inputs = rows.shape[2]
        span = pattern.span or self.block
        kept = torch.ones_like(rows, dtype=torch.bool)

        def change(i: int, changed: Tensor) -> Tensor:
            if i % span == 0:
                end = min(i + span, inputs)
                costs = (changed[:, :, i:end] / diagonal[:, :, i:end]).square()
                kept[:, :, i:end] = pattern.keep(costs, drop * end // inputs - drop * i // inputs)
            return changed[:, :, i] * kept[:, :, i]

        found = in_columns(rows, factor, change, max(self.block // span, 1) * span)
        return found * kept, kept
