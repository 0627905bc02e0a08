"""Grids that are tables: binary, ternary, bit planes, powers of two, sums of powers of two, small floats, any list of levels."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from lilliput.core.errors import RecipeError
from lilliput.quantize.grids import SMALLEST_SCALE, Grid, Integer, Parameters


@dataclass(frozen=True, kw_only=True)
class Table(Grid):
    """The grid `{s l}` over the levels `l` of a table, which lie in [-1, 1] and reach 1 in magnitude.

    A scale `s` covers `[low, high]` when `s` is the larger magnitude of the two ends.
    """

    @property
    @abstractmethod
    def levels(self) -> tuple[float, ...]:
        """The levels in ascending order."""

    @property
    def symmetric(self) -> bool:
        """A table has no zero point."""
        return True

    @property
    def steps(self) -> int:
        """Number of levels less one."""
        return len(self.levels) - 1

    @property
    def table(self) -> Tensor:
        """The levels, `(K,)`, float32."""
        return torch.tensor(self.levels, dtype=torch.float32)

    @property
    def thresholds(self) -> Tensor:
        """The points half-way between neighbours, `(K - 1,)`; values on one of them move up."""
        levels = torch.tensor(self.levels, dtype=torch.float64)
        return ((levels[1:] + levels[:-1]) / 2).float()

    def parameters(self, low: Tensor, high: Tensor) -> Parameters:
        """The scale that covers the interval; where that is empty, the largest of the other channels, reported as dead."""
        span = torch.maximum(low.double().abs(), high.double().abs())
        dead = span < SMALLEST_SCALE
        live = span[~dead].max() if bool((~dead).any()) else torch.ones((), dtype=span.dtype)
        scale = torch.where(dead, live, span).float()
        return Parameters(scale, torch.zeros_like(scale, dtype=torch.int32), dead)

    def at(self, bits: int) -> Grid:
        """The table of that width, or the integer grid where this kind has no such width; affine for tables without signs."""
        try:
            return replace(self, bits=bits)
        except RecipeError:
            signed = self.levels[0] < 0
            return Integer(bits=bits, axis=self.axis, signed=signed, symmetric=signed)

    def nearest(self, values: Tensor, parameters: Parameters) -> Tensor:
        """The nearest level times the scale, in float64."""
        scale = parameters.scale.double()
        levels, thresholds = (t.double() for t in (self.table, self.thresholds))
        return levels[torch.bucketize(values / scale, thresholds, right=True)] * scale


@dataclass(frozen=True, kw_only=True)
class Binary(Table):
    """`{-s, s}`; zero and above is `s`. All-zero channels do not stay zero. (courbariaux2016bnn)"""

    bits: int = 1

    def __post_init__(self) -> None:
        _check_bits(self, 1, 1)

    @property
    def levels(self) -> tuple[float, ...]:
        """-1 and 1."""
        return (-1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Ternary(Table):
    """`{-s, 0, s}`, stored in two bits. (li2016twn)"""

    bits: int = 2

    def __post_init__(self) -> None:
        _check_bits(self, 2, 2)

    @property
    def levels(self) -> tuple[float, ...]:
        """-1, 0 and 1."""
        return (-1.0, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class BitPlanes(Table):
    """Sums of bits with the weights 1, 2, 4...: each bit is -1 or 1 (`signed`), so that there is no zero, or 0 or 1.

    `{s (2 i - n) / n}` or `{s i / n}`, `0 <= i <= n = 2^bits - 1`, of up to 7 bits. (zhou2016dorefa)

    >>> BitPlanes(bits=2).levels
    (-1.0, -0.3333333333333333, 0.3333333333333333, 1.0)
    """

    bits: int = 2
    signed: bool = True

    def __post_init__(self) -> None:
        _check_bits(self, 1, 7)

    @property
    def levels(self) -> tuple[float, ...]:
        """Evenly spaced."""
        steps = 2**self.bits - 1
        return tuple((2 * i - steps if self.signed else i) / steps for i in range(steps + 1))


@dataclass(frozen=True, kw_only=True)
class PowerOfTwo(Table):
    """`{0, +-s 2^-i : 0 <= i < 2^(bits - 1) - 1}`, or without signs `{0, s 2^-i : 0 <= i < 2^bits - 1}`: products become shifts.

    (zhou2017inq)
    """

    bits: int = 4
    signed: bool = True

    def __post_init__(self) -> None:
        _check_bits(self, 2, 6)

    @property
    def levels(self) -> tuple[float, ...]:
        """Zero and the powers from 1 downwards."""
        count = 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1
        return _mirrored({2.0**-i for i in range(count)}, signed=self.signed)


@dataclass(frozen=True, kw_only=True)
class AdditivePowersOfTwo(Table):
    """Sums of `n = b / k` powers of two, `s g sum_i p_i`, `p_i` in `{0, 2^-i, 2^-(i + n), ..., 2^-(i + (2^k - 2) n)}`.

    Equation 5 of the paper, with `k = base_bits`, `b` the bits of the magnitude (one less than `bits` when signed) and `g` such
    that the largest level is 1. Where `k` does not divide `b`, one more term takes the bits that are left and the exponents are
    dealt out as in the authors' code: for three bits `{0, 1, 1/2, 1/8}` and `{0, 1/4}`. (li2020apot)

    >>> AdditivePowersOfTwo(bits=3, signed=False, base_bits=2).steps
    7
    """

    bits: int = 4
    signed: bool = True
    base_bits: int = 2

    def __post_init__(self) -> None:
        _check_bits(self, 2, 7)
        if not 1 <= self.base_bits <= 3:
            raise RecipeError(f"base_bits is 1, 2 or 3, not {self.base_bits!r}")

    @property
    def levels(self) -> tuple[float, ...]:
        """All sums, scaled to reach 1."""
        return _mirrored(set(_additive(self.bits - int(self.signed), self.base_bits)), signed=self.signed)


@cache
def _additive(bits: int, base: int) -> tuple[float, ...]:
    whole, rest = divmod(bits, base)
    parts: list[list[float]] = [[0.0] for _ in range(whole + (rest > 0))]
    exponent = 0
    for j in range(2**base - 1):
        # The term of the bits that are left takes part in the last rounds, before the others.
        late = rest > 0 and j >= 2**base - 2**rest
        for part in ([parts[-1]] if late else []) + parts[:whole]:
            part.append(2.0**-exponent)
            exponent += 1
    sums = sorted({sum(choice) for choice in itertools.product(*parts)})
    return tuple(v / sums[-1] for v in sums)


@dataclass(frozen=True, kw_only=True)
class Minifloat(Table):
    """Small floating point with a sign, `exponent` and `mantissa` bits, subnormals and no infinities, scaled to reach `s`.

    `bits` follows from the two. (wang2018fp8)
    """

    exponent: int = 4
    mantissa: int = 3

    def __post_init__(self) -> None:
        if not (1 <= self.exponent <= 5 and 0 <= self.mantissa <= 4):
            raise RecipeError(f"a small float has 1 to 5 exponent and 0 to 4 mantissa bits, not {self.exponent} and {self.mantissa}")
        object.__setattr__(self, "bits", 1 + self.exponent + self.mantissa)

    @property
    def levels(self) -> tuple[float, ...]:
        """Subnormals, then every exponent's values."""
        steps = 2**self.mantissa
        small = {m / steps for m in range(steps)}
        normal = {(1 + m / steps) * 2.0**e for e in range(2**self.exponent - 1) for m in range(steps)}
        largest = max(normal)
        return _mirrored({v / largest for v in small | normal}, signed=True)

    def at(self, bits: int) -> Grid:
        """Itself at its own width, the symmetric integer grid at others."""
        return self if bits == self.bits else Integer(bits=bits, axis=self.axis)


@dataclass(frozen=True, kw_only=True)
class Levels(Table):
    """Any list of levels in ascending order, scaled so that the largest magnitude is 1.

    >>> Levels(values=(-1.0, 0.0, 2.0)).levels
    (-0.5, 0.0, 1.0)
    """

    values: tuple[float, ...] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if not 2 <= len(self.values) <= 256 or sorted(set(self.values)) != list(self.values):
            raise RecipeError("levels are 2 to 256 different numbers in ascending order")
        if not all(abs(v) < float("inf") for v in self.values):
            raise RecipeError("levels are finite numbers")
        object.__setattr__(self, "bits", (len(self.values) - 1).bit_length())

    @property
    def levels(self) -> tuple[float, ...]:
        """The values over the largest magnitude."""
        largest = max(abs(v) for v in self.values)
        return tuple(float(v) / largest for v in self.values)

    def at(self, bits: int) -> Grid:
        """Itself at its own width, the symmetric integer grid at others."""
        return self if bits == self.bits else Integer(bits=bits, axis=self.axis)


def _mirrored(magnitudes: set[float], *, signed: bool) -> tuple[float, ...]:
    both = {0.0, *magnitudes} | ({-v for v in magnitudes} if signed else set())
    # Adding 0.0 turns the negative zero into the positive one.
    return tuple(sorted({v + 0.0 for v in both}))


def _check_bits(grid: Grid, least: int, most: int) -> None:
    if not isinstance(grid.bits, int) or not least <= grid.bits <= most:
        held = f"{least} bits" if least == most else f"{least} to {most} bits"
        raise RecipeError(f"{type(grid).__name__} has {held}, not {grid.bits!r}")
