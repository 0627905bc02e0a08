"""GPTQ: columns of a weight are rounded one after the other, and those still to come make up for each one's error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import RecipeError
from lilliput.graph.columns import in_columns, inverse_factor
from lilliput.graph.moments import Moments
from lilliput.graph.products import as_rows, is_supported
from lilliput.graph.trace import Traced
from lilliput.graph.walk import Walk
from lilliput.graph.weights import has_own_weight, weight_name, weight_of
from lilliput.quantize.calibrate import calibration_batches
from lilliput.quantize.layers import weight_quantizer
from lilliput.quantize.operators import LAYERS, layer_name
from lilliput.quantize.quantizer import Quantizer
from lilliput.train.progress import Bar

Nearest = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class GPTQ:
    """A rounding: one column of a layer's weight after the other goes to the nearest values, and the rest makes up for it.

    After column `i` went to `q`, `W[:, j] -= (W[:, i] - q) U[i, j] / U[i, i]` for `j > i`.
    `U` is the upper Cholesky factor of the inverse of `H = 2 X X' + damping mean(diag(2 X X')) I`, with the inputs `X` that the
    layer gets in the quantized network; `block` columns are updated at once, and `by_activation` takes those of large `H[i, i]`
    first. Grids stay as they were calibrated. Departs from the paper: a row that nearest values serve better keeps them, and
    inputs that were always zero keep their weights' nearest values instead of zeros. (frantar2023gptq)
    """

    damping: float = 0.01
    block: int = 128
    by_activation: bool = False

    def __post_init__(self) -> None:
        if self.damping <= 0 or self.block < 1:
            raise RecipeError(f"GPTQ needs positive damping and blocks of one column or more, not {self.damping} and {self.block}")

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:
        """Round in place, layer after layer; the note says what part of the error was left."""
        batches, notes = calibration_batches(reference, data, samples)
        walk = Walk(quantized, batches)
        found = [node for node in walk.nodes if node.target in LAYERS]
        left = []
        with Bar(total=len(found)) as bar:
            for index, layer in enumerate(found):
                part = self._layer(walk, layer)
                if part is None:
                    notes.append(f"{layer_name(layer)} keeps its nearest values: its weight is shared, not quantized, or transposed")
                else:
                    left.append(part)
                bar.update(index + 1, layer_name(layer))
        mean = math.exp(sum(math.log(max(part, 1e-12)) for part in left) / max(len(left), 1))
        notes.append(f"{len(left)} layers rounded with the Hessian of their inputs: "
                     f"{100 * mean:.0f}% of the error of nearest values is left")
        return notes

    def _layer(self, walk: Walk, layer: fx.Node) -> float | None:
        """Round one layer; the part of the error that is left, None where it cannot be done."""
        quantizer, source = weight_quantizer(walk.traced, layer), layer.args[0]
        if quantizer is None or not has_own_weight(layer) or not is_supported(layer):
            return None
        assert isinstance(source, fx.Node)
        walk.before(layer)
        tensor = weight_of(walk.traced, layer)
        moments = Moments(layer, tensor)
        for values in walk.values:
            moments.update(values[source])
        rows, hessian = as_rows(tensor.double(), layer), moments.hessian
        rounded, left = self.rounded(rows, hessian.to(rows.device), lambda column: _nearest(quantizer, column))
        walk.traced.set_tensor(weight_name(layer), rounded.reshape(tensor.shape).to(tensor.dtype))
        return left

    def rounded(self, rows: Tensor, hessian: Tensor, nearest: Nearest) -> tuple[Tensor, float]:
        """The rounded weight `(groups, outputs, inputs)` and what part of the nearest values' error `tr(E H E')` is left.

        `nearest` rounds a column `(groups, outputs)`.
        """
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        order = diagonal.argsort(dim=1, descending=True) if self.by_activation else torch.arange(rows.shape[2]).expand(len(rows), -1)
        across = order[:, None, :].expand_as(rows)
        permuted = hessian.gather(1, order[:, :, None].expand_as(hessian)).gather(2, order[:, None, :].expand_as(hessian))
        factor = inverse_factor(permuted, self.damping)

        def change(i: int, changed: Tensor) -> Tensor:
            return nearest(changed[:, :, i])

        found = torch.empty_like(rows).scatter_(2, across, in_columns(rows.gather(2, across), factor, change, self.block))
        plain = torch.stack([nearest(column) for column in rows.unbind(2)], 2)
        errors = [((values - rows) @ hessian * (values - rows)).sum(2) for values in (found, plain)]
        best = torch.where((errors[0] < errors[1])[:, :, None], found, plain)
        nothing = bool((errors[1] == 0).all())
        return best, 1.0 if nothing else float(torch.minimum(*errors).sum() / errors[1].sum())


def _nearest(quantizer: Quantizer, column: Tensor) -> Tensor:
    with torch.no_grad():
        rounded: Tensor = quantizer(column.reshape(-1, 1).float())
    return rounded.reshape(column.shape).double()
