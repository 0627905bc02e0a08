"""What rewrites want to know of activations: the largest magnitude in each feature dimension."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import DataError
from lilliput.data.drawing import sample_batches
from lilliput.graph.trace import Traced
from lilliput.graph.walk import Walk


def largest(traced: Traced, wanted: Collection[fx.Node], data: Any, samples: int) -> dict[fx.Node, Tensor]:
    """`max |x_j|` over everything but the last dimension, `(features,)`, for each wanted node, on up to `samples` inputs of
    `data.train`.

    Raises `DataError` without samples.
    """
    found: dict[fx.Node, Tensor] = {}
    order = [node for node in traced.graph.nodes if node in wanted]
    device = next((p.device for p in traced.parameters()), torch.device("cpu"))
    for inputs in sample_batches(data.train, samples):
        walk = Walk(traced, [inputs.to(device)])
        for node in order if len(inputs) else ():
            magnitude = walk.through(node)[0].detach().abs().flatten(0, -2).amax(0)
            found[node] = torch.maximum(found[node], magnitude) if node in found else magnitude
    if len(found) < len(order):
        raise DataError("the training split has no samples to calibrate on: pass data with some")
    return found
