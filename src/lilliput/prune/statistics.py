"""Statistics that criteria ask for: what a network's tensors say, alone or on data.

A statistic is a frozen object, `(network, data, seed) -> tensor by the name of a weight`; a criterion names those that it needs, and equal
ones are gathered once. Those that say so need data.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.train import loss_of

Tensors = Mapping[str, Tensor]


class Statistic(Protocol):
    """What is known of every weight."""

    on_data: ClassVar[bool]

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """Gather it; `data` is None only where `on_data` is false."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What was gathered, and the seed for criteria that draw."""

    values: Mapping[Statistic, Tensors] = field(default_factory=dict)
    seed: int = 0

    def __getitem__(self, statistic: Statistic) -> Tensors:
        """The tensors of a statistic that the criterion needs."""
        return self.values[statistic]


def gather(traced: Traced, data: Any, needs: Set[Statistic], *, seed: int = 0) -> Stats:
    """Gather statistics of a network, which stays as it is; raises `PreconditionError` where one needs data and there is none."""
    for statistic in needs:
        if statistic.on_data and data is None:
            raise PreconditionError(f"this criterion needs {type(statistic).__name__} on data: pass data=")
    return Stats(values={statistic: statistic(traced, data, seed) for statistic in needs}, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Statistics of the task's loss `L_b` on `batches` batches of the training split, the network in evaluation."""

    on_data: ClassVar[bool] = True

    batches: int = 8
    batch_size: int = 64

    def drawn(self, data: Any, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches."""
        yield from islice(data.train.batches(self.batch_size, seed=seed), self.batches)

    def losses(self, traced: Traced, data: Any, seed: int, temperature: float = 1.0) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """The loss of each batch, with its graph, outputs divided by `temperature`, and the parameters of a copy of the network."""
        model, loss = copy.deepcopy(traced).eval(), loss_of(data)
        parameters = {name: p.requires_grad_() for name, p in model.named_parameters()}
        for inputs, targets in self.drawn(data, seed):
            with torch.enable_grad():
                value = loss(model(inputs) / temperature, targets)
            yield value, parameters


def gradients(value: Tensor, parameters: Mapping[str, Tensor], *, further: bool = False) -> dict[str, Tensor]:
    """Gradients by name, zero where the value does not depend on a parameter; `further` ones can be derived again."""
    found = torch.autograd.grad(value, list(parameters.values()), create_graph=further, allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(parameters.items(), found, strict=True)}


def _along(slopes: Mapping[str, Tensor], direction: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`H v`: the slopes' own slope along a direction; the slopes can be used again."""
    with torch.enable_grad():
        total = torch.stack([(slope * direction[name]).sum() for name, slope in slopes.items()]).sum()
    found = torch.autograd.grad(total, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(parameters.items(), found, strict=True)}


def _mean(rows: Iterator[dict[str, Tensor]]) -> Tensors:
    total: dict[str, Tensor] = {}
    count = 0
    for row in rows:
        total = {name: value + total.get(name, 0) for name, value in row.items()}
        count += 1
    return {name: value / count for name, value in total.items()}


@dataclass(frozen=True, kw_only=True)
class SquaredProduct(Batches):
    """`E_b[(w dL_b/dw)^2]`. (molchanov2019importance)"""

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass backward to each batch."""
        return _mean({name: (parameters[name].detach() * g).square() for name, g in gradients(loss, parameters).items()}
                     for loss, parameters in self.losses(traced, data, seed))


@dataclass(frozen=True, kw_only=True)
class Gradient(Batches):
    """`E_b[dL_b/dw]`."""

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """One pass backward to each batch."""
        return _mean(gradients(loss, parameters) for loss, parameters in self.losses(traced, data, seed))


@dataclass(frozen=True, kw_only=True)
class HessianDiagonal(Batches):
    """`diag(H)` of the mean loss, by `E v (H v)` over random signs `v`, `probes` to each batch."""

    probes: int = 4

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """A Hessian-vector product to each probe."""
        generator = torch.Generator().manual_seed(seed)

        def probed() -> Iterator[dict[str, Tensor]]:
            for loss, parameters in self.losses(traced, data, seed):
                slopes = gradients(loss, parameters, further=True)
                for _ in range(self.probes):
                    signs = {name: (torch.randint(0, 2, p.shape, generator=generator) * 2 - 1).to(p) for name, p in parameters.items()}
                    yield {name: signs[name] * hv for name, hv in _along(slopes, signs, parameters).items()}

        return _mean(probed())


@dataclass(frozen=True, kw_only=True)
class HessianGradient(Batches):
    """`H g` of the loss whose outputs are divided by `temperature`, `g` its gradient on all batches. (wang2020grasp)"""

    temperature: float = 200.0

    def __call__(self, traced: Traced, data: Any, seed: int) -> Tensors:
        """The gradient first, then one Hessian-vector product to each batch."""
        mean = _mean(gradients(loss, parameters) for loss, parameters in self.losses(traced, data, seed, self.temperature))
        return _mean(_along(gradients(loss, parameters, further=True), mean, parameters)
                     for loss, parameters in self.losses(traced, data, seed, self.temperature))
