"""Sums: how the products of a matrix multiplication are added up, and to which numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.low_precision.casts import Rounded
from lilliput.quantize.low_precision.formats import FP16


class Sum(Protocol):
    """Multiplies matrices and adds up in an accumulator of its own."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """`(..., M, K)` by `(..., K, N)` to `(..., M, N)`."""

    def finish(self, x: Tensor) -> Tensor:
        """The result as it is stored, once scale and bias are in."""

    def nearest(self) -> Sum:
        """The same without chance, for evaluation."""


@dataclass(frozen=True, kw_only=True)
class Wide:
    """An accumulator wide enough not to matter; where `result` is set the sum is rounded once, at the end.

    Sums run in `dtype`: float64 adds whole numbers exactly up to `2^53`, hence as an int32 or int48 accumulator does that
    does not overflow; float32 errs below `2^-24` of the largest partial sum. (gupta2015limited)
    """

    dtype: torch.dtype = torch.float32
    result: Rounded | None = None

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """One product."""
        return a.to(self.dtype) @ b.to(self.dtype)

    def finish(self, x: Tensor) -> Tensor:
        """Round once."""
        return x.float() if self.result is None else self.result.round(x)

    def nearest(self) -> Wide:
        """Rounding the result to nearest."""
        return self if self.result is None else replace(self, result=self.result.nearest())


@dataclass(frozen=True, kw_only=True)
class Chunked:
    """Chunk-based accumulation: partial sums of `chunk` products each, added up in turn, all in the format of `number`.

    A running sum loses whatever is below half of its last place; with chunks no sum has more terms than `chunk` or
    `K / chunk`. The paper rounds after every addition. `every_addition` does so, `s <- round(s + a_k b_k)` with exact
    `a_k b_k`, in one pass for each product. By default only the sums of chunks are rounded, and every addition of one to
    the total: a chunk itself is a float32 sum, so that the roundings within it are left out. A float32 addition that is
    then rounded equals the addition rounded once, for terms with mantissas of up to 10 bits. (wang2018fp8)
    """

    number: Rounded = field(default_factory=lambda: Rounded(format=FP16))
    chunk: int = 64
    every_addition: bool = False

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise RecipeError(f"a chunk has at least one product, not {self.chunk!r}")

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Chunk after chunk, in the order of the shared dimension."""
        total: Tensor | None = None
        for left, right in zip(torch.split(a, self.chunk, -1), torch.split(b, self.chunk, -2), strict=True):
            part = self._chunk(left, right)
            total = part if total is None else self.number.round(total + part)
        assert total is not None
        return total

    def _chunk(self, a: Tensor, b: Tensor) -> Tensor:
        if not self.every_addition:
            return self.number.round(a @ b)
        total = self.number.round(a[..., :1] * b[..., :1, :])
        for k in range(1, a.shape[-1]):
            total = self.number.round(total + a[..., k : k + 1] * b[..., k : k + 1, :])
        return total

    def finish(self, x: Tensor) -> Tensor:
        """The accumulator's own format."""
        return self.number.round(x)

    def nearest(self) -> Chunked:
        """Rounding to nearest throughout."""
        return replace(self, number=self.number.nearest())
