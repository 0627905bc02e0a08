"""Post-training quantization: scales from data, weights as they are."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lilliput.core.report import Entry, Report
from lilliput.core.step import Result
from lilliput.quantize.bits import Uniform
from lilliput.quantize.measure import layer_rows
from lilliput.quantize.prepare import prepare
from lilliput.quantize.ranges import MinMax, Ranges
from lilliput.quantize.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class Static:
    """A Step: quantize with scales fixed on up to `samples` inputs of `data.train`, in order and not augmented."""

    scheme: Scheme = field(default_factory=Scheme)
    samples: int = 512

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The simulated quantized network, and rows with each layer's loss."""
        started = time.perf_counter()
        quantized, notes = prepare(model, data, self.scheme, samples=self.samples)
        method = f"quantize.{type(self.scheme.ranges).__name__.lower()}"
        entry = Entry(method=method, recipe=repr(self), layers=layer_rows(quantized, data), notes=tuple(notes),
                      seconds=time.perf_counter() - started)
        return Result(quantized, Report((entry,)))


def static(*, ranges: Ranges = MinMax(), weights: int = 8, activations: int = 8, samples: int = 512,
           exclude: tuple[str, ...] = ()) -> Static:
    """Static post-training quantization: weights symmetric per channel, activations affine per tensor."""
    return Static(scheme=Scheme(ranges=ranges, bits=Uniform(weights=weights, activations=activations), exclude=exclude), samples=samples)
