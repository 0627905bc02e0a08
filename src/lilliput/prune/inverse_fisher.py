"""The empirical Fisher information of the task's loss, inverted: what each weight's removal costs, and what makes up for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lilliput.core.errors import RecipeError
from lilliput.graph import Traced
from lilliput.prune.criteria import Layer
from lilliput.prune.statistics import Batches, Statistic, Stats, Tensors

_OUT: frozenset[str] = frozenset({"out"})


class InverseFisher(Statistic, Protocol):
    """The inverse of `F = damping I + 1/m sum g g'`, `g` gradients of `m` small batches, as tensors by the name of a weight."""

    def diagonal(self, found: Tensor, weight: Tensor) -> Tensor:
        """`[F^-1]_qq` of every weight of one tensor, float64."""
        ...

    def product(self, found: Tensors, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`F^-1 v` for a `v` of a number to each weight, float64."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Gradients(Batches):
    """Gradients of `batches` batches of `batch_size` samples; `damping` is that of the papers."""

    batches: int = 64
    batch_size: int = 16
    damping: float = 1e-5

    def __post_init__(self) -> None:
        if self.damping <= 0:
            raise RecipeError(f"the Fisher information is damped by a positive number, not {self.damping}")

    def gradients(self, traced: Traced, data: object, seed: int) -> dict[str, Tensor]:
        """`(m, weights)` to each weight tensor, float64; a weight that is exactly zero is gone, and has a gradient of zero."""
        rows: dict[str, list[Tensor]] = {}
        for loss, parameters in self.losses(traced, data, seed):
            weights = {name: p for name, p in parameters.items() if p.ndim > 1}
            found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True, allow_unused=True)
            for (name, weight), slope in zip(weights.items(), found, strict=True):
                rows.setdefault(name, []).append((slope * (weight != 0)).detach().flatten())
        return {name: torch.stack(parts).double() for name, parts in rows.items()}


@dataclass(frozen=True, kw_only=True)
class BlockFisher(_Gradients):
    """Blocks of `block` weights of a tensor, one after the other, that are taken to have nothing to do with each other.

    `F^-1 = (I - G' (m damping I + G G')^-1 G) / damping` for a block's gradients `G`, `(m, block)`: Woodbury's identity for all
    gradients at once, where the paper applies it to one after the other. A tensor's statistic is `(blocks, block, block)`; the
    last block is filled up with weights that no loss depends on. (singh2020woodfisher)
    """

    block: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block < 1:
            raise RecipeError(f"a block has one weight or more, not {self.block}")

    def __call__(self, traced: Traced, data: object, seed: int) -> Tensors:
        """One pass backward to each gradient."""
        return {name: self.inverse(rows) for name, rows in self.gradients(traced, data, seed).items()}

    def inverse(self, gradients: Tensor) -> Tensor:
        """The inverse's blocks, given gradients `(m, weights)`."""
        parts = self._blocks(gradients).transpose(0, 1)
        inner = parts @ parts.transpose(1, 2) + torch.eye(len(gradients), dtype=parts.dtype) * (self.damping * len(gradients))
        explained: Tensor = parts.transpose(1, 2) @ torch.linalg.solve(inner, parts)
        return (torch.eye(self.block, dtype=parts.dtype) - explained) / self.damping

    def _blocks(self, values: Tensor) -> Tensor:
        padded = F.pad(values, (0, -values.shape[-1] % self.block))
        return padded.reshape(*padded.shape[:-1], -1, self.block)

    def diagonal(self, found: Tensor, weight: Tensor) -> Tensor:
        """Of all blocks; positive, with rounding errors of numbers as large as `1 / damping`."""
        return found.diagonal(dim1=1, dim2=2).flatten()[: weight.numel()].clamp(min=1e-14 / self.damping).reshape(weight.shape)

    def product(self, found: Tensors, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Block by block."""
        out = {}
        for name, vector in vectors.items():
            product = found[name] @ self._blocks(vector.flatten())[:, :, None]
            out[name] = product.flatten()[: vector.numel()].reshape(vector.shape)
        return out


@dataclass(frozen=True, kw_only=True)
class MatrixFreeFisher(_Gradients):
    """The whole matrix, by as many vectors as there are gradients: `F^-1 = I / damping - sum_i s_i s_i'`.

    `s_i = F_i^-1 g_i / sqrt(m + g_i' F_i^-1 g_i)`, where `F_i^-1` holds the gradients before `g_i`, and so comes from the vectors
    before `s_i`. A tensor's statistic is its part of them, `(m, weights)`: 8 bytes to each weight and gradient. The paper keeps
    `F_i^-1 g_i` and the denominators apart, which comes to the same. (frantar2021mfac)
    """

    def __call__(self, traced: Traced, data: object, seed: int) -> Tensors:
        """One pass backward to each gradient, and `m^2` products of a number to each weight."""
        gradients = self.gradients(traced, data, seed)
        sizes = [rows.shape[1] for rows in gradients.values()]
        vectors = torch.split(self.vectors(torch.cat(list(gradients.values()), 1)), sizes, 1)
        return dict(zip(gradients, vectors, strict=True))

    def vectors(self, gradients: Tensor) -> Tensor:
        """The vectors `s`, given gradients, both `(m, weights)`."""
        out = torch.empty_like(gradients)
        for i, gradient in enumerate(gradients):
            product = gradient / self.damping - (out[:i] @ gradient) @ out[:i]
            out[i] = product / (len(gradients) + gradient @ product).sqrt()
        return out

    def diagonal(self, found: Tensor, weight: Tensor) -> Tensor:
        """`1 / damping - sum_i s_i^2`; positive, with rounding errors of numbers as large as `1 / damping`."""
        return (1 / self.damping - found.square().sum(0)).clamp(min=1e-14 / self.damping).reshape(weight.shape)

    def product(self, found: Tensors, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`v / damping - sum_i s_i (s_i' v)`."""
        shares = torch.stack([found[name] @ vector.flatten() for name, vector in vectors.items()]).sum(0)
        return {name: vector / self.damping - (shares @ found[name]).reshape(vector.shape) for name, vector in vectors.items()}


@dataclass(frozen=True, kw_only=True)
class RemovalCost:
    """`w_q^2 / (2 [F^-1]_qq)`: the rise of the loss where `F` is its curvature and the other weights make up for the removal.

    (singh2020woodfisher, frantar2021mfac)
    """

    fisher: InverseFisher
    roles: ClassVar[frozenset[str]] = _OUT

    @property
    def needs(self) -> frozenset[Statistic]:
        """The inverse."""
        return frozenset({self.fisher})

    def __call__(self, layer: Layer, stats: Stats) -> Tensor:
        """Scores; larger matters more."""
        stored = layer.weight.movedim(0, layer.dim)
        return layer.moved(stored.double().square() / (2 * self.fisher.diagonal(stats[self.fisher][layer.name], stored)))


@dataclass(frozen=True, kw_only=True)
class Compensate:
    """A recovery: `w -= F^-1 v` with `v_q = w_q / [F^-1]_qq` for weights that go, and zero for those that stay.

    That is the sum of what makes up for each removal alone, as in the papers; where removals have to do with each other, it makes
    up for the same thing more than once. (singh2020woodfisher, frantar2021mfac)
    """

    fisher: InverseFisher

    @property
    def needs(self) -> frozenset[Statistic]:
        """The inverse Fisher information."""
        return frozenset({self.fisher})

    def __call__(self, traced: Traced, stats: Stats, masks: Mapping[str, Tensor], /) -> Mapping[str, Tensor]:
        """Weights of the tensors that have masks, zero where these are."""
        found = stats[self.fisher]
        weights = {name: traced.tensor(name).detach().double() for name in masks}
        vectors = {name: torch.where(masks[name], 0.0, weight / self.fisher.diagonal(found[name], weight))
                   for name, weight in weights.items()}
        changes = self.fisher.product(found, vectors)
        return {name: ((weight - changes[name]) * masks[name]).to(traced.tensor(name).dtype) for name, weight in weights.items()}
