"""Multipoint: a row of weights is a sum of scaled low-bit rows, of more of them where the layer's result asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.graph.moments import Moments
from lilliput.graph.products import as_rows, is_supported
from lilliput.graph.trace import Traced
from lilliput.graph.walk import Walk
from lilliput.graph.weights import has_own_weight, weight_name, weight_of
from lilliput.quantize.calibrate import calibration_batches
from lilliput.quantize.grids import SMALLEST_SCALE, Integer, Parameters
from lilliput.quantize.layers import weight_quantizer
from lilliput.quantize.levels import Levels
from lilliput.quantize.operators import LAYERS, layer_name
from lilliput.quantize.quantizer import Quantizer

_CANDIDATES = 48  # scales that are tried for each point
_LARGEST = 256  # levels of a table


def point(rest: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The scale `a` and the integers `q`, at most `top` in magnitude, of (nearly) least `|r - a q|^2` for every row of `rest`.

    `(rows, n)` to `(rows,)` and `(rows, n)`: scales from a twelfth of what covers the row are tried, and each is replaced by the
    best for the integers that it gives.
    """
    reach = rest.abs().amax(1, keepdim=True).clamp(min=SMALLEST_SCALE)
    best = torch.full_like(reach, torch.inf)
    scale, found = torch.zeros_like(reach), torch.zeros_like(rest)
    for share in torch.linspace(1 / 12, 1, _CANDIDATES, dtype=rest.dtype, device=rest.device):
        q = (rest / (reach * share / top)).round().clamp(-top, top)
        a = (rest * q).sum(1, keepdim=True) / q.square().sum(1, keepdim=True).clamp(min=1)
        error = (rest - a * q).square().sum(1, keepdim=True)
        better = error < best
        best, scale, found = torch.where(better, error, best), torch.where(better, a, scale), torch.where(better, q, found)
    return scale[:, 0], found


@dataclass(frozen=True, kw_only=True)
class Multipoint:
    """A Rounding: `w = sum_i a_i q_i` for each output, with integers `q_i` of the grid's bits; outputs of large error get more
    points.

    Points are found greedily, each for what the ones before leave of the row. Every output has one; `extra` times as many more
    are given, one at a time, to the output whose result has the largest error `r' H r` at that moment, `H` the second moments of
    its inputs, up to `most` to an output. Departs from the paper: a budget of points, where the paper adds points until errors
    are below a threshold; and all sums of an output's points are one table of at most 256 levels, so that four bits take two
    points, and files one code to a weight. (liu2022multibit)
    """

    extra: float = 0.25
    most: int = 2

    def __post_init__(self) -> None:
        if self.extra < 0 or self.most < 1:
            raise RecipeError(f"points beyond the first are none or more, and at least one to an output, not {self.extra!r} and "
                              f"{self.most!r}")

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:
        """Round in place, layer after layer; the note says how many points there are."""
        batches, notes = calibration_batches(reference, data, samples)
        walk = Walk(quantized, batches)
        points = rows = 0
        for layer in [node for node in walk.nodes if node.target in LAYERS]:
            given = self._layer(walk, layer)
            if given is None:
                notes.append(f"{layer_name(layer)} keeps its nearest values: its weight is shared, has 8 bits, or is that of a "
                             "transposed convolution")
            else:
                points, rows = points + int(given.sum()), rows + len(given)
        return [*notes, f"{points} points for {rows} outputs"]

    def _layer(self, walk: Walk, layer: fx.Node) -> Tensor | None:
        quantizer, source = weight_quantizer(walk.traced, layer), layer.args[0]
        if quantizer is None or not has_own_weight(layer) or not is_supported(layer) or quantizer.grid.bits >= 8:
            return None
        top = self._top(quantizer)
        assert isinstance(source, fx.Node)
        walk.before(layer)
        tensor = weight_of(walk.traced, layer)
        moments = Moments(layer, tensor)
        for values in walk.values:
            moments.update(values[source])
        grouped = as_rows(tensor.double(), layer)
        weights = grouped.flatten(0, 1)
        hessian = moments.hessian.repeat_interleave(grouped.shape[1], 0) if len(grouped) > 1 else moments.hessian
        scales, sums = self._points(weights, top)
        rest = weights[None] - torch.cat([torch.zeros_like(sums[:1]), sums])
        errors = torch.stack([((r[:, None] @ hessian)[:, 0] * r).sum(1) for r in rest])
        given = allot(errors, round(self.extra * len(weights)))
        chosen = sums[given - 1, torch.arange(len(weights))]
        tabulate_(quantizer, torch.where(torch.arange(self.most) < given[:, None], scales, 0.0), top)
        with torch.no_grad():
            walk.traced.set_tensor(weight_name(layer), quantizer(chosen.reshape(tensor.shape).to(tensor.dtype)))
        return given

    def _top(self, quantizer: Quantizer) -> int:
        grid = quantizer.grid
        if not isinstance(grid, Integer) or not grid.symmetric or grid.axis != 0:
            raise PreconditionError(f"{quantizer.layer}: points are rows of signed integers, one scale to an output, not of "
                                    f"{grid}; see the scheme")
        if (grid.steps + 1) ** self.most > _LARGEST:
            raise RecipeError(f"{self.most} points of {grid.bits} bits make {(grid.steps + 1) ** self.most} levels, more than "
                              f"{_LARGEST}: use fewer bits or points")
        return grid.qmax

    def _points(self, weights: Tensor, top: int) -> tuple[Tensor, Tensor]:
        """Scales `(rows, most)`, and what the first 1, 2... points sum up to, `(most, rows, n)`."""
        scales, sums, total = [], [], torch.zeros_like(weights)
        for _ in range(self.most):
            scale, q = point(weights - total, top)
            total = total + scale[:, None] * q
            scales.append(scale)
            sums.append(total)
        return torch.stack(scales, 1), torch.stack(sums)


def allot(errors: Tensor, extra: int) -> Tensor:
    """Points of each row, at least one: `extra` more go, one at a time, to the row of largest error.

    `errors` is `(most + 1, rows)`: those with no, one, two... points.
    """
    most, rows = errors.shape[0] - 1, errors.shape[1]
    given = torch.ones(rows, dtype=torch.long)
    for _ in range(min(extra, (most - 1) * rows)):
        present = errors.gather(0, given[None])[0].masked_fill(given >= most, -1.0)
        given[int(present.argmax())] += 1
    return given


def tabulate_(quantizer: Quantizer, scales: Tensor, top: int) -> None:
    """Give a quantizer the table of all sums of each row's points, whose scales are `(rows, most)`; points that are not there
    have scale 0.
    """
    digits = torch.arange(-top, top + 1, dtype=scales.dtype)
    codes = torch.cartesian_prod(*[digits] * scales.shape[1]).reshape(-1, scales.shape[1])
    levels = (scales @ codes.T).sort(1).values
    reach = levels.abs().amax(1).clamp(min=SMALLEST_SCALE)
    levels = levels / reach[:, None]
    quantizer.regrid(Levels(values=tuple(torch.linspace(-1, 1, levels.shape[1]).tolist()), axis=quantizer.grid.axis))
    quantizer.tabulate(levels, (levels[:, 1:] + levels[:, :-1]) / 2)
    none = torch.zeros(len(reach), dtype=torch.int32)
    quantizer.set(Parameters(reach.float(), none, none.bool()))
