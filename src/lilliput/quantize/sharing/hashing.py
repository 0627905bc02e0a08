"""Hashing: weights share the value of a bucket that a hash of their position chooses, so that no codes are stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from lilliput.core.cosine import cosine
from lilliput.core.errors import RecipeError
from lilliput.quantize.codebook import Hash, Shared, Stage, rounded
from lilliput.quantize.sharing.fitting import Weight


def _check_compression(compression: object) -> None:
    if not isinstance(compression, int | float) or not compression >= 1:
        raise RecipeError(f"compression is the number of weights to a bucket, 1 or more, not {compression!r}")


@dataclass(frozen=True, kw_only=True)
class Hashed:
    """`w_i = xi(i) t_h(i)`: `h` chooses one of `n / compression` buckets for `n` weights, and a second hash the sign `xi`.

    Positions are counted through the whole network, so that layers have hashes of their own. Buckets start at the values of
    least squared error, `t_b = mean of xi(i) w_i over h(i) = b`, not at random as in the paper. (chen2015hashednets)
    """

    compression: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_compression(self.compression)

    def __call__(self, weight: Weight) -> Shared:
        """One segment."""
        count = weight.rows.numel()
        return _hashed(weight, weight.rows.flatten(), ((count, max(round(count / self.compression), 1)),), self.seed)


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """Hashing of a kernel's cosine coefficients, with more buckets to low frequencies; plain hashing where there is no kernel.

    Coefficient `(j1, j2)` belongs to band `j = j1 + j2` of `b`. Buckets are dealt to bands in proportion to their coefficients
    times `x^(alpha - 1) (1 - x)^(beta - 1)`, one at least and no more than coefficients. We are unsure of the authors'
    exponents, taken to be 0.2 and 2.5, and of where in a band they take `x`: here in the middle, `(j + 1/2) / b`.
    (chen2016freshnets)
    """

    compression: float = 8.0
    alpha: float = 0.2
    beta: float = 2.5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_compression(self.compression)
        if not (self.alpha > 0 and self.beta > 0):
            raise RecipeError(f"alpha and beta are positive, not {self.alpha!r} and {self.beta!r}")

    def __call__(self, weight: Weight) -> Shared:
        """One segment to a band."""
        kernel = weight.shape[2:]
        positions = math.prod(kernel)
        if positions == 1:
            return Hashed(compression=self.compression, seed=self.seed)(weight)
        order, sizes = bands(kernel)
        basis = torch.from_numpy(cosine(kernel))[:, order].T.contiguous()  # rows are frequencies, in the order of their bands
        coefficients = weight.rows.detach().cpu().double().reshape(-1, positions) @ basis.T
        counts = [size * len(coefficients) for size in sizes]
        segments = tuple(zip(counts, self.buckets(counts), strict=True))
        return _hashed(weight, coefficients.T.flatten(), segments, self.seed, basis)

    def buckets(self, counts: list[int]) -> list[int]:
        """Buckets of every band, for their numbers of coefficients; rounding aside, `sum(counts) / compression` in all."""
        places = [(j + 0.5) / len(counts) for j in range(len(counts))]
        shares = [x ** (self.alpha - 1) * (1 - x) ** (self.beta - 1) for x in places]
        budget, found = sum(counts) / self.compression, [float(n) for n in counts]
        open_ = set(range(len(counts)))
        # A band that would have a bucket for every coefficient keeps that many; the others share what is left.
        while open_:
            left = budget - sum(found[j] for j in range(len(counts)) if j not in open_)
            scale = left / sum(counts[j] * shares[j] for j in open_)
            full = {j for j in open_ if scale * shares[j] >= 1}
            if not full:
                for j in open_:
                    found[j] = scale * counts[j] * shares[j]
                break
            open_ -= full
        return [min(max(round(value), 1), n) for value, n in zip(found, counts, strict=True)]


def bands(kernel: tuple[int, ...]) -> tuple[Tensor, list[int]]:
    """Frequencies in the order of their sums of indices, and how many have each sum."""
    sums = torch.tensor([sum(index) for index in product(*(range(n) for n in kernel))])
    return sums.argsort(stable=True), torch.bincount(sums).tolist()


def _hashed(weight: Weight, values: Tensor, segments: tuple[tuple[int, int], ...], seed: int,
            basis: Tensor | None = None) -> Shared:
    """Buckets of least squared error for `values` in order; each segment is its number of values and of buckets."""
    values = values.detach().cpu().double()
    counts, buckets = (tuple(numbers) for numbers in zip(*segments, strict=True))
    choice = Hash(start=weight.start, counts=counts, buckets=buckets, seed=seed)
    sign = Hash(start=weight.start, counts=(len(values),), buckets=(2,), seed=seed + 1)
    codes, signs = choice.codes(values).long(), sign.codes(values).double() * 2 - 1
    total = torch.zeros(sum(buckets), dtype=torch.float64).index_add_(0, codes, signs * values)
    members = torch.bincount(codes, minlength=sum(buckets)).clamp(min=1)
    table = rounded((total / members).float()[:, None], weight.stored)
    return Shared(shape=weight.shape, stages=(Stage(table=table, codes=choice),), signs=sign,
                  basis=None if basis is None else basis.float(), stored=weight.stored)
