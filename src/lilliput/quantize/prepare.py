"""Preparation: from any network to one with calibrated quantizers on every edge."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from lilliput.core.errors import PreconditionError
from lilliput.graph.fold import fold_batchnorm_
from lilliput.graph.trace import Traced, trace
from lilliput.quantize.calibrate import calibrate_, is_quantized
from lilliput.quantize.lower import lower_
from lilliput.quantize.place import place_
from lilliput.quantize.scheme import Scheme


def prepare(model: nn.Module, data: Any, scheme: Scheme, *, samples: int = 512) -> tuple[Traced, list[str]]:
    """Trace, fold batch norms, lower, place quantizers and calibrate; the network and notes on it.

    Raises `PreconditionError` for a network that is quantized already, or has nothing to quantize.
    """
    if samples < 1:
        raise PreconditionError(f"calibration needs samples; samples={samples} asks for none")
    if is_quantized(model):
        raise PreconditionError("the network is quantized already: start from the network as it was before")
    traced = copy.deepcopy(trace(model, data.example())).eval()
    fold_batchnorm_(traced)
    lower_(traced)
    notes = place_(traced, scheme)
    notes += calibrate_(traced, data, ranges=scheme.ranges, weight_ranges=scheme.weight_ranges, samples=samples)
    return traced.eval(), notes
