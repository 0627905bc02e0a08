"""Post-training quantization: scales from data, weights rounded without training the network."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from lilliput.core.report import Entry, Report, describe
from lilliput.core.step import Result
from lilliput.data.drawing import check_samples
from lilliput.graph.trace import Traced
from lilliput.quantize.bits import Uniform
from lilliput.quantize.calibrate import calibrate_
from lilliput.quantize.measure import layer_rows
from lilliput.quantize.place import place_
from lilliput.quantize.prepare import Rewrite, lowered
from lilliput.quantize.ranges import MinMax, Ranges
from lilliput.quantize.scheme import Scheme


class Rounding(Protocol):
    """Moves a calibrated network's weights (to values on their grids), biases or scales, in place; returns notes.

    `reference` is the float network, equal in everything but the quantizers: its nodes and parameters have the same names.
    """

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:
        """Use up to `samples` inputs of `data.train`."""


@dataclass(frozen=True, kw_only=True)
class Static:
    """A Step: quantize with scales fixed on up to `samples` inputs from all over `data.train`, not augmented.

    `rewrites` prepare the float network (equalisation, migration of outliers); `roundings` then choose the integers, one
    after the other, where rounding to nearest is not the method. `method` is the id that the report shows.
    """

    scheme: Scheme = field(default_factory=Scheme)
    rewrites: tuple[Rewrite, ...] = ()
    roundings: tuple[Rounding, ...] = ()
    samples: int = 512
    method: str = "quantize.minmax"

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The simulated quantized network, and rows with each layer's loss."""
        started = time.perf_counter()
        check_samples(self.samples)
        reference, notes = lowered(model, data, rewrites=self.rewrites)
        quantized = copy.deepcopy(reference)
        notes += place_(quantized, self.scheme)
        notes += calibrate_(quantized, data, ranges=self.scheme.ranges, weight_ranges=self.scheme.weight_ranges, samples=self.samples)
        for rounding in self.roundings:
            notes += rounding(quantized.eval(), reference.eval(), data, self.samples)
        quantized.eval()
        entry = Entry(method=self.method, recipe=describe(self), layers=layer_rows(quantized, data, reference=reference), notes=tuple(notes),
                      seconds=time.perf_counter() - started)
        return Result(quantized, Report((entry,)))


def static(*, ranges: Ranges = MinMax(), weights: int = 8, activations: int = 8, samples: int = 512,
           exclude: tuple[str, ...] = ()) -> Static:
    """Static post-training quantization: weights symmetric per channel, activations affine per tensor."""
    scheme = Scheme(ranges=ranges, bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return Static(scheme=scheme, samples=samples, method=f"quantize.{type(ranges).__name__.lower()}")
