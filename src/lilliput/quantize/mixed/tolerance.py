"""A width for every single weight: as few bits as the error that the loss tolerates there needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from lilliput.core.errors import BudgetError, RecipeError
from lilliput.quantize.grids import Integer, Parameters
from lilliput.quantize.mixed.evaluator import Evaluator, batches_of
from lilliput.quantize.mixed.sensitivity import at_least_one
from lilliput.quantize.mixed.task import Task
from lilliput.quantize.mixed.written import Finding, FineSearch, Written
from lilliput.quantize.op import along
from lilliput.quantize.ranges import channel_bounds
from lilliput.train.evaluate import device_of
from lilliput.train.losses import loss_of

_HALVINGS = 18


@dataclass(frozen=True, kw_only=True)
class Tolerance(FineSearch):
    """Every weight gets the fewest bits whose rounding errs by no more than `min(k / |g_i|, r m_c)`.

    `min sum_i b_i` subject to `sum_i |g_i| t_i <= rise`, with a bit for each halving of the tolerance `t_i`, has the
    solution `t_i = rise / (n |g_i|)`: the paper's closed form. `k` is found by bisection such that the average of bits just
    meets the budget, where the paper is given the rise. `|g_i|` is the mean magnitude of the gradient of small batches (of
    the mean gradient a trained network has next to none left). `r`, in parts of the channel's largest weight, is the radius
    within which the loss counts as linear: it grows after a round that lowers the loss and shrinks after one that does not,
    and each round adds the gradients at the best weights so far. A value of `b` bits is a multiple of `2^(B - b)` steps of
    the widest grid, at most `2^(b - 1) - 1` of them. The radius's schedule is not the paper's. (khoram2018aq)
    """

    rounds: int = 6
    samples: int = 256
    batch: int = 16

    def __post_init__(self) -> None:
        at_least_one("rounds", self.rounds)
        at_least_one("samples", self.samples)
        at_least_one("batch", self.batch)

    def __call__(self, task: Task) -> Finding:
        """The weights of the round with the least loss on `data.train`."""
        weights = [_Weight.of(task, name) for layer in task.layers for name in layer.tensors]
        limit = task.limits["bits"]
        batches = batches_of(task.data.train, self.samples)
        evaluate = Evaluator(task.network, batches, loss_of(task.data), bool(task.data.num_classes))
        slopes = _slopes(task, {}, self.samples, self.batch)
        best: tuple[float, list[Tensor]] | None = None
        radius = 1.0
        for round_ in range(self.rounds):
            options = _meet(weights, slopes, radius, limit)
            if options is None:
                radius *= 1.5
                continue
            values = {w.name: w.at(chosen) for w, chosen in zip(weights, options, strict=True)}
            loss = evaluate(values).loss
            better = best is None or loss < best[0]
            if better:
                best = loss, options
                found = _slopes(task, values, self.samples, self.batch)
                slopes = {name: (slopes[name] * (round_ + 1) + found[name]) / (round_ + 2) for name in slopes}
            radius *= 1.2 if better else 0.7
        if best is None:
            raise BudgetError(f"no tolerance meets {limit / task.count:.4g} bits on average: allow narrower widths or more bits")
        return _finding(task, weights, best)


def _finding(task: Task, weights: list[_Weight], best: tuple[float, list[Tensor]]) -> Finding:
    loss, options = best
    written = {w.name: w.written(chosen) for w, chosen in zip(weights, options, strict=True)}
    totals = {w.name: float(w.widths[chosen].sum()) for w, chosen in zip(weights, options, strict=True)}
    bits = {layer.name: sum(totals[name] for name in layer.tensors) / layer.count for layer in task.layers}
    note = f"bits count the values; which of {len(task.widths.weights)} widths each weight has is not counted"
    return Finding(weights=written, bits=bits, expected={"search_loss": loss}, notes=(note,))


@dataclass(frozen=True)
class _Weight:
    """A weight and its errors at every width, `(widths, ...)`."""

    name: str
    weight: Tensor
    grid: Integer
    parameters: Parameters
    widths: Tensor
    errors: Tensor
    most: Tensor

    @staticmethod
    def of(task: Task, name: str) -> _Weight:
        grid = next(layer.tensors[name] for layer in task.layers if name in layer.tensors).at(task.widths.weights[-1])
        if not isinstance(grid, Integer) or not grid.symmetric:
            raise RecipeError(f"widths of single weights are those of symmetric integers, not of {grid}")
        weight = task.network.tensor(name).detach().cpu()
        parameters = grid.parameters(*channel_bounds(task.ranges, weight, grid))
        widths = torch.tensor(task.widths.weights)
        scale = along(parameters.scale, weight, -1 if grid.axis is None else grid.axis)
        errors = torch.stack([(multiples(weight / scale, grid.bits, int(b)) * scale - weight).abs() for b in widths])
        return _Weight(name, weight, grid, parameters, widths, errors, scale * grid.qmax)

    def options(self, slope: Tensor, k: float, radius: float) -> Tensor:
        """The narrowest width of each weight within its tolerance; the one of least error where there is none."""
        tolerance = torch.minimum(k / slope.clamp(min=1e-30), radius * self.most)
        within = self.errors <= tolerance
        return torch.where(within.any(0), within.int().argmax(0), self.errors.argmin(0))

    def at(self, options: Tensor) -> Tensor:
        """The values at those widths."""
        scale = along(self.parameters.scale, self.weight, -1 if self.grid.axis is None else self.grid.axis)
        values = torch.zeros_like(self.weight)
        for option, width in enumerate(self.widths.tolist()):
            values = torch.where(options == option, multiples(self.weight / scale, self.grid.bits, width) * scale, values)
        return values

    def written(self, options: Tensor) -> Written:
        """The values on the widest grid."""
        return Written(self.at(options), self.grid, self.parameters)


def multiples(codes: Tensor, most: int, width: int) -> Tensor:
    """`codes` of a grid of `most` bits rounded to those that a value of `width` bits has; nothing is left of 0 bits."""
    if width < 2:
        return torch.zeros_like(codes)
    step, top = 2.0 ** (most - width), 2.0 ** (width - 1) - 1
    return (codes / step).round().clamp(-top, top) * step


def _slopes(task: Task, values: Mapping[str, Tensor], samples: int, batch: int) -> dict[str, Tensor]:
    """Mean magnitude of the gradient of small batches at given weights, by name."""
    names = [name for layer in task.layers for name in layer.tensors]
    out = {name: torch.zeros(task.network.tensor(name).shape) for name in names}
    device, loss = device_of(task.network), loss_of(task.data)
    batches = batches_of(task.data.train, samples, size=batch, device=device)
    for inputs, targets in batches:
        given = {name: values.get(name, task.network.tensor(name)).detach() for name in names}
        own = {name: weight.to(device, copy=True).requires_grad_() for name, weight in given.items()}
        grads = torch.autograd.grad(loss(functional_call(task.network, own, (inputs,)), targets), list(own.values()))
        for name, grad in zip(names, grads, strict=True):
            out[name] += grad.abs().cpu() / len(batches)
    return out


def _meet(weights: list[_Weight], slopes: Mapping[str, Tensor], radius: float, limit: float) -> list[Tensor] | None:
    """Options of the least tolerance whose bits sum to `limit` or less; None where the radius allows none."""

    def chosen(k: float) -> list[Tensor]:
        return [w.options(slopes[w.name], k, radius) for w in weights]

    def total(options: list[Tensor]) -> float:
        return sum(float(w.widths[o].sum()) for w, o in zip(weights, options, strict=True))

    low, high = -40.0, 20.0
    best = chosen(2.0**high)
    if total(best) > limit:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        options = chosen(2.0**middle)
        if total(options) <= limit:
            high, best = middle, options
        else:
            low = middle
    return best
