"""Nuclear norms: layers whose results are diverse get more bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lilliput.graph.walk import Walk
from lilliput.quantize.mixed.evaluator import batches_of
from lilliput.quantize.mixed.sensitivity import Sensitivity, squared
from lilliput.quantize.mixed.task import Array, Task
from lilliput.quantize.operators import LAYERS, layer_name
from lilliput.train.evaluate import device_of


@dataclass(frozen=True, kw_only=True)
class NuclearNorm(Sensitivity):
    """`sum_j sigma_j(Y) |Q(w) - w|^2`, the singular values of a layer's result `Y` (tokens by features) averaged over samples.

    Of images the positions are the tokens. Departs from the paper in one norm to the layer, where it takes attention maps too,
    and in widths of weights alone. (liu2021ptqvit)
    """

    samples: int = 32

    def __call__(self, task: Task) -> Array:
        """The table."""
        norms = {layer.name: 0.0 for layer in task.layers}
        for inputs, _ in batches_of(task.data.train, self.samples, size=32, device=device_of(task.network)):
            walk = Walk(task.network, [inputs])
            for node in walk.nodes:
                if node.target in LAYERS and layer_name(node) in norms:
                    norms[layer_name(node)] += float(torch.linalg.svdvals(_matrices(walk.through(node)[0])).sum()) / self.samples
        table: Array = squared(task) * np.array([norms[layer.name] for layer in task.layers])[:, None]
        return table


def _matrices(result: Tensor) -> Tensor:
    """A result as one matrix to the sample, float32."""
    return (result.flatten(2) if result.ndim > 3 else result if result.ndim == 3 else result[:, None]).float()
