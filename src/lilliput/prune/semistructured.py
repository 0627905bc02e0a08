"""Semi-structured units: single weights whose zeros follow a pattern that hardware and kernels can use.

Both look at a weight as rows `(outputs, inputs)`, those of a convolution channels last: kernel rows, kernel columns, then input channels,
the order in which activations `(N, H, W, C)` meet them, so that neighbours in a row read neighbours in memory. Weights of transposed
convolutions, whose inputs lie along another dimension, stay whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lilliput.core.errors import RecipeError
from lilliput.graph import Traced
from lilliput.graph.coupling import Keep
from lilliput.graph.weights import parameter
from lilliput.prune.patterns import NM
from lilliput.prune.units import Element, ElementPlan, Scores


def rows(weight: Tensor) -> Tensor:
    """A weight as `(outputs, inputs)`, channels last."""
    return weight.flatten(1) if weight.ndim == 2 else weight.movedim(1, -1).flatten(1)


def laid_back(found: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `rows` for a weight of that shape."""
    if len(shape) == 2:
        return found
    return found.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)


@dataclass(frozen=True, kw_only=True)
class Patterned(Element):
    """`n` of every `m` weights in a row stay (Zhou 2021, `zhou2021srste`); a rest shorter than `m` keeps `min(n, rest)`.

    The pattern is the budget: one that is given must allow it. With `linear_only` convolutions stay whole.
    """

    pattern: NM = field(default_factory=NM)
    linear_only: bool = False

    def plan(self, traced: Traced) -> PatternPlan:
        """Find the weights of a network."""
        return PatternPlan(traced, self)


@dataclass(frozen=True, kw_only=True)
class Block(Element):
    """Blocks of `rows` outputs and `columns` inputs, whose weights' scores are added up (Lagunas 2021, `lagunas2021block`).

    Blocks at the edges may be smaller. The kernel of `lilliput.core.sparse` skips blocks whose rows are a multiple of 16.
    """

    rows: int = 32
    columns: int = 32

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise RecipeError(f"a block has at least one row and one column, not {self.rows} x {self.columns}")

    def plan(self, traced: Traced) -> BlockPlan:
        """Find the weights of a network."""
        return BlockPlan(traced, self)


class _RowPlan(ElementPlan, ABC):
    """Weights whose rows are outputs; every tensor is a group, and a choice is made on its rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        turned = {parameter(n.args[1]) for n in self.traced.graph.nodes if "conv_transpose" in str(n.target)}
        self.names = tuple(name for name in self.names if name not in turned)

    def keep(self, scores: Scores, sparsity: NDArray[np.float64]) -> list[Keep]:
        """Keep what the pattern keeps by these scores, laid out as the tensors, given the share of each that goes."""
        chosen = []
        for name, values, share in zip(self.names, scores, sparsity, strict=True):
            shape = self.traced.tensor(name).shape
            found = self._kept(rows(torch.from_numpy(np.ascontiguousarray(values)).reshape(shape)), float(share))
            chosen.append(laid_back(found, shape).numpy().ravel())
        return chosen

    @abstractmethod
    def _kept(self, scores: Tensor, share: float) -> Tensor:
        """What stays of a weight's rows, given their scores and the share that goes."""


class PatternPlan(_RowPlan):
    """Weights of one network, `n` of every `m` of which stay."""

    unit: Patterned

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit.linear_only:
            self.names = tuple(name for name in self.names if self.traced.tensor(name).ndim == 2)

    def _kept(self, scores: Tensor, share: float) -> Tensor:
        """Of every `m` go `floor(share (m - n))`: all of the pattern's for a share of 1."""
        pattern = self.unit.pattern
        stay = pattern.m - int(share * (pattern.m - pattern.n) + 1e-9)
        if stay == pattern.m:
            return torch.ones_like(scores, dtype=torch.bool)
        inputs = scores.shape[1]
        padded = F.pad(scores, (0, -inputs % pattern.m), value=-torch.inf)
        return replace(pattern, n=stay).keep(padded[None], 0)[0, :, :inputs]

    def least(self) -> dict[str, float]:
        """What the pattern costs, whatever stays."""
        whole = [np.zeros(k.size) for k in self.everything()]
        return self.cost(self.keep(whole, np.ones(len(whole))))


class BlockPlan(_RowPlan):
    """Weights of one network in blocks."""

    unit: Block

    def _kept(self, scores: Tensor, share: float) -> Tensor:
        """The best blocks, at least one."""
        height, width = self.unit.rows, self.unit.columns
        outputs, inputs = scores.shape
        padded = F.pad(scores, (0, -inputs % width, 0, -outputs % height))
        blocks = _tiled(padded, height, width).sum((1, 3))
        kept = torch.ones(blocks.numel(), dtype=torch.bool)
        drop = min(round(share * blocks.numel()), blocks.numel() - 1)
        kept[blocks.flatten().argsort(stable=True)[:drop]] = False
        return kept.view(blocks.shape).repeat_interleave(height, 0).repeat_interleave(width, 1)[:outputs, :inputs]

    def notes(self) -> tuple[str, ...]:
        """Where time is saved."""
        return ("lilliput.core.sparse skips blocks of zeros 16 rows high, or a multiple; without_empty_channels removes what they leave empty",)


def _tiled(padded: Tensor, height: int, width: int) -> Tensor:
    """Rows as `(blocks down, height, blocks across, width)`."""
    return padded.reshape(padded.shape[0] // height, height, padded.shape[1] // width, width)


def follows(weight: Tensor, pattern: NM) -> bool:
    """Whether a weight has no more than `n` of every `m` that are not zero.

    >>> follows(torch.tensor([[0.0, 3.0, 4.0, 0.0, 5.0]]), NM(n=2, m=4))
    True
    """
    flat = rows(weight) != 0
    padded = F.pad(flat, (0, -flat.shape[1] % pattern.m))
    return bool((padded.reshape(-1, pattern.m).sum(1) <= pattern.n).all())


def empty_blocks(weight: Tensor, block: Block) -> NDArray[np.bool_]:
    """Which blocks of a weight are all zero."""
    flat = rows(weight.detach()) != 0
    padded = F.pad(flat, (0, -flat.shape[1] % block.columns, 0, -flat.shape[0] % block.rows))
    found: NDArray[np.bool_] = ~_tiled(padded, block.rows, block.columns).any(3).any(1).numpy()
    return found
