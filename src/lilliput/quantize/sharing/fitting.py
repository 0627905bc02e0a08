"""Fitting: the codebooks of one weight."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.codebook import Shared, Stage, rounded
from lilliput.quantize.sharing.kmeans import Lloyd, Solver
from lilliput.quantize.sharing.weighting import Importance


@dataclass(frozen=True, kw_only=True, eq=False)
class Weight:
    """One weight to be shared: `rows` `(out, columns)` of a tensor of `shape`, in blocks of `block` columns, which divides them.

    `importance` says how much errors matter, and `costs`, `(out,)`, how much more those of each row; `start` counts the weights
    of the layers before. Tables are kept as `stored`.
    """

    shape: tuple[int, ...]
    rows: Tensor
    block: int = 1
    importance: Importance | None = None
    costs: Tensor | None = None
    start: int = 0
    stored: torch.dtype = torch.float32

    @property
    def blocks(self) -> Tensor:
        """`(out, columns / block, block)`."""
        return self.rows.reshape(len(self.rows), -1, self.block)


class Partition(Protocol):
    """How many weights next to each other in a row make a block: one for scalars."""

    def __call__(self, shape: tuple[int, ...]) -> int:
        """A divisor of the row's length, for a weight of this shape, `(out, in, *kernel)`."""


class Codebooks(Protocol):
    """Finds codes and tables for a weight."""

    def __call__(self, weight: Weight) -> Shared:
        """The weight as it will be stored."""


@dataclass(frozen=True)
class Scalars:
    """Every weight on its own."""

    def __call__(self, shape: tuple[int, ...]) -> int:  # noqa: ARG002
        """One."""
        return 1


@dataclass(frozen=True)
class Blocks:
    """`pointwise` inputs of a linear layer or a 1 x 1 convolution, all positions of the kernel for `spatial` inputs of any other.

    Where that does not divide the inputs, the next smaller number that does. (stock2020bit)
    """

    spatial: int = 1
    pointwise: int = 4

    def __post_init__(self) -> None:
        if self.spatial < 1 or self.pointwise < 1:
            raise RecipeError(f"blocks hold one input at least, not {self.spatial} and {self.pointwise}")

    def __call__(self, shape: tuple[int, ...]) -> int:
        """Inputs times kernel positions."""
        kernel = torch.Size(shape[2:]).numel()
        most = self.pointwise if kernel == 1 else self.spatial
        return kernel * next(n for n in range(min(most, shape[1]), 0, -1) if shape[1] % n == 0)


@dataclass(frozen=True)
class Subvectors:
    """`size` weights next to each other in a row, or the next smaller number that divides it."""

    size: int = 4

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RecipeError(f"subvectors hold one weight at least, not {self.size}")

    def __call__(self, shape: tuple[int, ...]) -> int:
        """The divisor."""
        columns = torch.Size(shape[1:]).numel()
        return next(n for n in range(min(self.size, columns), 0, -1) if columns % n == 0)


def _check_entries(entries: int) -> None:
    if not isinstance(entries, int) or not 2 <= entries <= 2**16:
        raise RecipeError(f"a codebook has 2 to 65536 entries, not {entries!r}")


@dataclass(frozen=True, kw_only=True)
class KMeans:
    """One codebook for all blocks of a weight: `min sum |v - table[code]|^2`, errors weighed by the importance.

    Blocks that are zero altogether, as pruning leaves them, have an entry of their own that stays zero in training. (han2016deep)
    """

    entries: int = 16
    solver: Solver = field(default_factory=Lloyd)

    def __post_init__(self) -> None:
        _check_entries(self.entries)

    def __call__(self, weight: Weight) -> Shared:
        """One stage."""
        blocks = weight.blocks.flatten(0, 1)
        zero = (blocks == 0).all(1)
        held = int(zero.any())
        table = torch.zeros(held, weight.block, dtype=torch.float64)
        codes = torch.zeros(len(blocks), dtype=torch.int64)
        if not bool(zero.all()):
            found, codes[~zero] = _fit(self.solver, blocks, self.entries - held, weight, ~zero)
            table = torch.cat([table, found])
            codes[~zero] += held
        stage = _stage(table, codes.reshape(weight.blocks.shape[:2]), weight, fixed=0 if held else None)
        return Shared(shape=weight.shape, stages=(stage,), stored=weight.stored)


@dataclass(frozen=True, kw_only=True)
class Product:
    """A codebook for every column of blocks: the Cartesian product of as many codebooks as a row has blocks. (gong2014pq)"""

    entries: int = 16
    solver: Solver = field(default_factory=Lloyd)

    def __post_init__(self) -> None:
        _check_entries(self.entries)

    def __call__(self, weight: Weight) -> Shared:
        """One stage with as many books as a row has blocks."""
        blocks = weight.blocks
        tables, codes = [], torch.empty(blocks.shape[:2], dtype=torch.int64)
        entries = min(self.entries, len(blocks))
        for b in range(blocks.shape[1]):
            column = torch.zeros(blocks.shape[:2], dtype=torch.bool)
            column[:, b] = True
            table, codes[:, b] = _fit(self.solver, blocks.flatten(0, 1), entries, weight, column.flatten())
            # Columns with fewer different blocks fill their book up, so that all books have one size.
            tables.append(torch.cat([table, table[-1:].expand(entries - len(table), -1)]))
            codes[:, b] += b * entries
        stage = _stage(torch.cat(tables), codes, weight, books=blocks.shape[1])
        return Shared(shape=weight.shape, stages=(stage,), stored=weight.stored)


@dataclass(frozen=True, kw_only=True)
class Residual:
    """The sum of `stages` codebooks for all blocks: each is fitted to what the ones before leave. (gong2014pq)"""

    entries: int = 16
    stages: int = 2
    solver: Solver = field(default_factory=Lloyd)

    def __post_init__(self) -> None:
        _check_entries(self.entries)
        if self.stages < 1:
            raise RecipeError(f"residual quantization has one stage at least, not {self.stages}")

    def __call__(self, weight: Weight) -> Shared:
        """The stages."""
        rest = weight.blocks.flatten(0, 1).double()
        everywhere = torch.ones(len(rest), dtype=torch.bool)
        stages = []
        for _ in range(self.stages):
            table, codes = _fit(self.solver, rest, self.entries, weight, everywhere)
            stages.append(_stage(table, codes.reshape(weight.blocks.shape[:2]), weight))
            rest = rest - stages[-1].table.double()[codes]
        return Shared(shape=weight.shape, stages=tuple(stages), stored=weight.stored)


@dataclass(frozen=True, kw_only=True)
class Normalised:
    """A scale to every row, for networks whose batch norms are folded: `w = s q`, first the row's root mean square.

    Then `s` of least squared error, `<w, q> / <q, q>`, and new codebooks for it, in turn, `rounds` times; scales end as such.
    """

    codebooks: Codebooks
    rounds: int = 2

    def __call__(self, weight: Weight) -> Shared:
        """What `codebooks` makes of the rows, with scales."""
        rows = weight.rows.detach().cpu().float()
        size = rows.square().mean(1).sqrt()
        scales = torch.where(size > 0, size, 1.0)
        for _ in range(self.rounds):
            costs = scales.square() if weight.costs is None else scales.square() * weight.costs
            found = self.codebooks(replace(weight, rows=rows / scales[:, None], costs=costs))
            values = found.values().reshape(rows.shape)
            best = (rows * values).sum(1) / values.square().sum(1).clamp(min=1e-30)
            scales = rounded(torch.where(best > 0, best, scales), weight.stored)
        return replace(found, scales=scales)


def _fit(solver: Solver, blocks: Tensor, entries: int, weight: Weight, used: Tensor) -> tuple[Tensor, Tensor]:
    """Clusters of the blocks that are `used`, in coordinates in which their errors count alike."""
    blocks = blocks[used].detach().cpu().double()
    importance, rows = weight.importance, None
    if weight.costs is not None:
        rows = weight.costs.double().repeat_interleave(weight.blocks.shape[1])[used][:, None]
    metric = None if importance is None or weight.block == 1 else importance.metric(weight.block)
    if metric is not None:
        # |x'(v - c)|^2 = |R(v - c)|^2 with R = E[x x']^(1/2), so the best centroids are means there, and here.
        values, vectors = torch.linalg.eigh(metric.cpu().double())
        # Directions without energy in the samples still count a little, or their coefficients would be left to chance.
        root = values.clamp(min=float(values.mean()) * 1e-3).sqrt()
        found = solver(blocks @ vectors * root, entries, rows)
        return found.table / root @ vectors.T, found.codes
    weights = rows if importance is None else _costs(importance, weight)[used] * (1 if rows is None else rows)
    found = solver(blocks, entries, weights)
    return found.table, found.codes


def _costs(importance: Importance, weight: Weight) -> Tensor:
    """The cost of an error in each weight, shaped like the blocks in a row; none is quite zero, or chance would choose."""
    costs = importance.elements(len(weight.rows)).cpu().double()
    return (costs + costs.mean() * 1e-3).reshape(-1, weight.block)


def _stage(table: Tensor, codes: Tensor, weight: Weight, *, books: int = 1, fixed: int | None = None) -> Stage:
    return Stage(table=rounded(table.float(), weight.stored), codes=codes.to(torch.int32), books=books, fixed=fixed)
