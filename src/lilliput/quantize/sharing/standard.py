"""Standard tables: levels that a density has by formula, the same for all layers, so that a weight stores codes and scales alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.codebook import Shared, Stage, rounded
from lilliput.quantize.density import Gaussian, Laplace, density_levels
from lilliput.quantize.sharing.fitting import Weight
from lilliput.quantize.sharing.weighting import Moment

# Scales that are tried, over a row's root mean square.
_SHARES = np.geomspace(0.3, 3.0, 41)


@dataclass(frozen=True, kw_only=True)
class Standard:
    """`w = s t[code]`: the table `t` of least error for a density of variance one, a scale `s` for each row. (max1960distortion)

    Scales and codes start at the least squared error `|w - s t[code]|^2`, by trial. Where the importance is that of outputs, coordinate
    descent goes on from there, `sweeps` times over all columns: with `e = w - s t[code]`, `H = E[x x']` and all other codes fixed, the value of least
    `e' H e` for weight `j` is `s t[code_j] + (H e)_j / H_jj`, and the nearest level is taken; then `s = <w, q>_H / <q, q>_H`. The error never rises.
    For single weights.
    """

    entries: int = 16
    density: Gaussian | Laplace = field(default_factory=Gaussian)
    sweeps: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.entries <= 256 or self.sweeps < 0:
            raise RecipeError(f"a standard table has 2 to 256 entries and its codes are swept 0 times or more, not {self.entries} and {self.sweeps}")

    def __call__(self, weight: Weight) -> Shared:
        """One stage whose table is not stored for this weight, and scales."""
        if weight.block != 1:
            raise RecipeError(f"a standard table is for single weights, not for blocks of {weight.block}: use Scalars()")
        table = torch.tensor(density_levels(self.density, self.entries), dtype=torch.float32).double()
        rows = weight.rows.detach().cpu().double()
        codes, scales = nearest(rows, table)
        if isinstance(weight.importance, Moment):
            codes, scales = descended(rows, table, (codes, scales), weight.importance.moment.cpu().double(), self.sweeps)
        stage = Stage(table=table[:, None].float(), codes=codes.to(torch.int32), standard=True)
        return Shared(shape=weight.shape, stages=(stage,), scales=rounded(scales.float(), weight.stored), stored=weight.stored)


def _codes(values: Tensor, table: Tensor) -> Tensor:
    return torch.searchsorted((table[1:] + table[:-1]) / 2, values.contiguous())


def nearest(rows: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Codes `(out, columns)` and scales `(out,)` of least squared error among those that are tried, each scale the best for its codes."""
    size = rows.square().mean(1).sqrt()
    size = torch.where(size > 0, size, 1.0)
    best = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    codes, scales = torch.zeros(rows.shape, dtype=torch.int64), size.clone()
    for share in _SHARES:
        tried = _codes(rows / (share * size)[:, None], table)
        values = table[tried]
        fitted = (rows * values).sum(1) / values.square().sum(1).clamp(min=1e-300)
        error = (rows - fitted[:, None] * values).square().sum(1)
        better = error < best
        best, scales = torch.where(better, error, best), torch.where(better, fitted, scales)
        codes = torch.where(better[:, None], tried, codes)
    return codes, scales


def descended(rows: Tensor, table: Tensor, start: tuple[Tensor, Tensor], moment: Tensor, sweeps: int) -> tuple[Tensor, Tensor]:
    """Codes and scales of no more output error, `moment` being `(groups, columns, columns)`."""
    codes, scales = start[0].clone(), start[1].clone()
    groups, columns = len(moment), rows.shape[1]
    # Directions without energy in the samples still count a little, or their codes would be left to chance.
    level = moment.diagonal(dim1=1, dim2=2).mean(1)
    moment = moment + torch.diag_embed((level * 1e-3).clamp(min=1e-12)[:, None].expand(groups, columns))
    per = len(rows) // groups
    for group in range(groups):
        part, metric = slice(group * per, (group + 1) * per), moment[group]
        w, q, s = rows[part], codes[part], scales[part]
        for _ in range(sweeps):
            error = w - s[:, None] * table[q]
            response = error @ metric
            for j in range(columns):
                old = s * table[q[:, j]]
                wanted = old + response[:, j] / metric[j, j]
                q[:, j] = _codes(wanted / s, table)
                response += (old - s * table[q[:, j]])[:, None] * metric[j]
            values = table[q]
            through = values @ metric
            fitted = (w * through).sum(1) / (values * through).sum(1).clamp(min=1e-300)
            s = torch.where(fitted != 0, fitted, s)
        codes[part], scales[part] = q, s
    return codes, scales
