"""Weighting: how much an error in each weight matters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from lilliput.data.drawing import labelled_batches, sample_batches
from lilliput.graph.moments import Moments
from lilliput.graph.products import is_supported
from lilliput.graph.trace import Traced
from lilliput.graph.walk import Walk
from lilliput.quantize.calibrate import calibration_batches
from lilliput.train.losses import loss_of


class Importance(Protocol):
    """What errors in the weights of one layer cost, `(out, columns)` of them."""

    def elements(self, out: int) -> Tensor:
        """The cost of a squared error in each weight, `(out, columns)`."""

    def metric(self, block: int) -> Tensor | None:
        """`M`, `(block, block)`: an error `e` in a block costs `e' M e`; None where blocks have no such form in common."""


class Weigher(Protocol):
    """The importance of one layer after the other."""

    def __call__(self, layer: fx.Node, name: str) -> Importance | None:
        """For the weight `name` of the layer; None where all errors count alike."""

    def took(self, name: str, values: Tensor) -> None:
        """The weight `name` now has these values."""


class Weighting(Protocol):
    """A rule of importance."""

    def __call__(self, traced: Traced, data: Any, samples: int) -> tuple[Weigher, list[str]]:
        """Weighs the layers of `traced`, which it does not change, on up to `samples` inputs of `data.train`; and notes."""


@dataclass(frozen=True)
class Even:
    """All errors count alike."""

    def __call__(self, traced: Traced, data: Any, samples: int) -> tuple[Weigher, list[str]]:  # noqa: ARG002
        """Looks at nothing."""
        return _Even(), []


class _Even:
    def __call__(self, layer: fx.Node, name: str) -> None:
        """Nothing to say."""

    def took(self, name: str, values: Tensor) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class Outputs:
    """Errors cost what they do to the layer's result: `E|x (w - w')|^2 = (w - w')' E[x x'] (w - w')`.

    `x` is what the layer reads with all layers before it shared already. Single weights take the diagonal of `E[x x']`, blocks
    the mean of its blocks on the diagonal, as if inputs of different blocks had nothing to do with each other. (stock2020bit)
    """

    def __call__(self, traced: Traced, data: Any, samples: int) -> tuple[Weigher, list[str]]:
        """Walks through a copy, whose weights follow."""
        batches, notes = calibration_batches(traced, data, samples)
        return _Outputs(Walk(copy.deepcopy(traced).eval(), batches)), notes


class _Outputs:
    def __init__(self, walk: Walk) -> None:
        self.walk = walk

    def __call__(self, layer: fx.Node, name: str) -> Importance | None:
        if not is_supported(layer):
            return None
        own = self.walk.named[layer.name]
        self.walk.before(own)
        moments = Moments(own, self.walk.traced.tensor(name).detach())
        for values in self.walk.values:
            moments.update(values[own.args[0]])  # type: ignore[index]
        return Moment(moments.hessian / 2)

    def took(self, name: str, values: Tensor) -> None:
        with torch.no_grad():
            self.walk.traced.tensor(name).copy_(values)


@dataclass(frozen=True, eq=False)
class Moment:
    """`E[x x']`, `(groups, columns, columns)`, of what the rows of a layer's groups are multiplied with."""

    moment: Tensor

    def elements(self, out: int) -> Tensor:
        """Its diagonal, for every row of a group."""
        return self.moment.diagonal(dim1=1, dim2=2).repeat_interleave(out // len(self.moment), 0)

    def metric(self, block: int) -> Tensor:
        """The mean of the blocks on the diagonal."""
        count = self.moment.shape[1] // block
        blocks = self.moment.reshape(-1, count, block, count, block).diagonal(dim1=1, dim2=3)
        return blocks.mean((0, -1))


@dataclass(frozen=True)
class Fisher:
    """Errors cost the diagonal of the empirical Fisher information, the mean over samples of the loss's squared gradient.

    The loss is cross entropy with the labels for data with classes, else mean squared error, as in training.
    """

    def __call__(self, traced: Traced, data: Any, samples: int) -> tuple[Weigher, list[str]]:
        """One pass backward to each sample."""
        traced, measure = copy.deepcopy(traced).eval(), loss_of(data)
        names = {name: p for name, p in traced.named_parameters() if p.requires_grad and p.ndim > 1}
        squares = {name: torch.zeros_like(p) for name, p in names.items()}
        seen = 0
        inputs = [batch[i: i + 1] for batch in sample_batches(data.train, samples) for i in range(len(batch))]
        labels = _labels(data.train, samples)
        for x, y in zip(inputs, labels, strict=True):
            gradients = torch.autograd.grad(measure(traced(x), y), list(names.values()), allow_unused=True)
            for square, gradient in zip(squares.values(), gradients, strict=True):
                if gradient is not None:
                    square += gradient.square()
            seen += 1
        return _Fisher({name: square / max(seen, 1) for name, square in squares.items()}), []


def _labels(split: Any, count: int) -> Sequence[Tensor]:
    return [targets[i: i + 1] for _, targets in labelled_batches(split, count) for i in range(len(targets))]


class _Fisher:
    def __init__(self, squares: dict[str, Tensor]) -> None:
        self.squares = squares

    def __call__(self, layer: fx.Node, name: str) -> Importance | None:  # noqa: ARG002
        square = self.squares.get(name)
        return None if square is None else Elements(square.flatten(1))

    def took(self, name: str, values: Tensor) -> None:
        """The information is that of the network as it was."""


@dataclass(frozen=True, eq=False)
class Elements:
    """A cost to each weight."""

    costs: Tensor

    def elements(self, out: int) -> Tensor:  # noqa: ARG002
        """The costs."""
        return self.costs

    def metric(self, block: int) -> None:
        """Blocks have none in common."""
