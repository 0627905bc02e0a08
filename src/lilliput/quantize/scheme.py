"""The scheme: one choice on every axis of quantization."""

from __future__ import annotations

from dataclasses import dataclass, field

from lilliput.core.patterns import check_patterns
from lilliput.quantize.bits import Allocation, check_bits
from lilliput.quantize.grids import Grid, Integer
from lilliput.quantize.ranges import MinMax, Ranges


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How a network is quantized.

    `weights` and `activations` are the grids, whose bits `bits`, where given, overrides layer by layer; the axis of `weights` is
    that of a layer's outputs whatever its number, or None for one scale a tensor. `ranges` and `weight_ranges` choose
    what the grids cover. Activations that no convolution or linear layer reads (into additions, normalisations, the
    network's output) keep 8 bits at least; with `others`, all of them but the output have so many. Weights that are looked up in
    tables stay what they are, unless `tables` is a grid for the entries. `exclude` lists patterns (`fnmatch`) of layers to leave in
    floating point.
    """

    weights: Grid = field(default_factory=lambda: Integer(axis=0))
    activations: Grid = field(default_factory=lambda: Integer(signed=False, symmetric=False))
    ranges: Ranges = field(default_factory=MinMax)
    weight_ranges: Ranges = field(default_factory=MinMax)
    bits: Allocation | None = None
    tables: Grid | None = None
    others: int | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.others is not None:
            check_bits(self.others)
        check_patterns(self.exclude)

