"""Where a tensor is not zero, as far as the size of a sparse format depends on it: of a real tensor, or expected at a density."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lilliput.core import PreconditionError

Indices = NDArray[np.int64]


class Occupancy(Protocol):
    """Counts that formats are sized by; expected ones need not be whole."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's."""
        ...

    @property
    def present(self) -> float:
        """Elements that are not zero."""
        ...

    @property
    def longest(self) -> float:
        """The most zeros before an element that is not zero."""
        ...

    def prefixes(self, length: int) -> float:
        """Different beginnings of that length among the coordinates of elements that are not zero."""
        ...

    def paddings(self, longest: int) -> float:
        """Zeros that must be told so that no run is longer than `longest`, every one of them ending a run of `longest`."""
        ...


@dataclass(frozen=True, eq=False)
class Measured:
    """Of a tensor, in C order."""

    values: NDArray[Any]

    def __post_init__(self) -> None:
        if self.values.ndim == 0:
            raise PreconditionError("a scalar has no sparse format: pass a tensor of one dimension or more")

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's."""
        return self.values.shape

    @property
    def flags(self) -> NDArray[np.bool_]:
        """Whether each element is something; a negative zero is, so that it comes back."""
        found: NDArray[np.bool_] = self.values != 0
        return found | np.signbit(self.values) if self.values.dtype.kind == "f" else found

    @property
    def places(self) -> Indices:
        """Where it is not zero, counted in C order."""
        return np.flatnonzero(self.flags)

    @property
    def runs(self) -> Indices:
        """Zeros before each of these."""
        gaps: Indices = np.diff(self.places, prepend=-1) - 1
        return gaps

    @property
    def present(self) -> float:
        """How many there are."""
        return int(np.count_nonzero(self.flags))

    @property
    def longest(self) -> float:
        """The longest run."""
        return int(self.runs.max(initial=0))

    def prefixes(self, length: int) -> float:
        """Whole ones."""
        inner = math.prod(self.shape[length:])
        return len(np.unique(self.places // max(inner, 1)))

    def paddings(self, longest: int) -> float:
        """Whole ones."""
        return int((self.runs // (longest + 1)).sum())


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Expected, where each element is present with probability `density`, independently of the others."""

    shape: tuple[int, ...]
    density: float

    def __post_init__(self) -> None:
        if not 0 <= self.density <= 1 or not self.shape:
            raise PreconditionError(f"a density is between 0 and 1 and a shape has dimensions, not {self.density} and {self.shape}")

    @property
    def present(self) -> float:
        """`density` of all."""
        return self.density * math.prod(self.shape)

    @property
    def longest(self) -> float:
        """About the run that is as long once among so many: `log(1 / present) / log(1 - density)`."""
        if self.present <= 1 or self.density == 1:
            return 0.0 if self.density == 1 else math.prod(self.shape) / 2
        return math.log(1 / self.present) / math.log1p(-self.density)

    def prefixes(self, length: int) -> float:
        """All, less those under which nothing is."""
        return math.prod(self.shape[:length]) * (1 - (1 - self.density) ** math.prod(self.shape[length:]))

    def paddings(self, longest: int) -> float:
        """Runs are geometric: each element is preceded by `q / (1 - q)` of them on average, with `q = (1 - density)^(longest + 1)`."""
        q = (1 - self.density) ** (longest + 1)
        return self.present * q / (1 - q) if q < 1 else 0.0
