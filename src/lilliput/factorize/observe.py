"""What layers see and make on data: inputs, responses and second moments, of a traced network in evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import product
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError
from lilliput.data.drawing import sample_batches
from lilliput.factorize.layers import Layer, node_of
from lilliput.graph.trace import Traced
from lilliput.train import Dataset, Split

_POSITIONS = 8192


class _AllSeen(Exception):  # noqa: N818
    """Nothing that comes later is asked for."""


class _Watch(fx.Interpreter):
    """Runs a graph up to the last of the nodes whose values are asked for."""

    def __init__(self, traced: Traced, nodes: Iterable[fx.Node]) -> None:
        super().__init__(traced)
        self.wanted, self.seen = set(nodes), dict[fx.Node, Tensor]()

    def run_node(self, n: fx.Node) -> Any:
        """Run, and remember."""
        result = super().run_node(n)
        if n in self.wanted:
            self.seen[n] = result
            if len(self.seen) == len(self.wanted):
                raise _AllSeen
        return result


def values(traced: Traced, inputs: Tensor, nodes: Iterable[fx.Node]) -> dict[fx.Node, Tensor]:
    """Values of the nodes for one batch."""
    watch = _Watch(traced, nodes)
    with suppress(_AllSeen):
        watch.run(inputs, enable_io_processing=False)
    return watch.seen


def values_and_output(traced: Traced, inputs: Tensor, nodes: Iterable[fx.Node]) -> tuple[dict[fx.Node, Tensor], Tensor]:
    """Values of the nodes for one batch, and the first tensor that the network returns, with their history."""
    end = next(n for n in traced.graph.nodes if n.op == "output")
    seen = values(traced, inputs, [*nodes, end])
    returned = torch.utils._pytree.tree_leaves(seen.pop(end))
    return seen, next(r for r in returned if isinstance(r, Tensor) and r.is_floating_point())


def needs_data(method: str, data: Dataset | None) -> Dataset:
    """The data, or a `PreconditionError` that asks for them."""
    if data is None:
        raise PreconditionError(f"{method} measures what layers see: pass data=")
    return data


def inputs_and_outputs(traced: Traced, layers: Iterable[Layer], inputs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Input and response of every layer for one batch, by the layer's name."""
    nodes = {layer.name: node_of(traced, layer) for layer in layers}
    with torch.no_grad():
        seen = values(traced, inputs, [n for node in nodes.values() for n in (node.args[0], node)])  # type: ignore[misc]
    return {name: (seen[node.args[0]], seen[node]) for name, node in nodes.items()}  # type: ignore[index]


def patches(layer: Layer, x: Tensor) -> Tensor:
    """What a layer multiplies its weight with: `(groups, positions, in / groups * kernel)`, positions over all samples.

    For a linear layer one group of tokens.
    """
    if not layer.kernel:
        return x.reshape(1, -1, x.shape[-1])
    return unfolded(x, layer.kernel, layer.stride, layer.padding, layer.dilation, layer.groups)


def unfolded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
             groups: int = 1) -> Tensor:
    """Patches of `(N, channels, *)` in any number of dimensions, `(groups, positions, channels / groups * kernel)`."""
    x = F.pad(x, [side for pad in reversed(padding) for side in (pad, pad)])
    sides = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    parts = []
    for offset in product(*(range(k) for k in kernel)):
        window = tuple(slice(o * d, o * d + (n - 1) * s + 1, s) for o, d, n, s in zip(offset, dilation, sides, stride, strict=True))
        parts.append(x[(slice(None), slice(None), *window)])
    stacked = torch.stack(parts, dim=2)  # (N, channels, kernel, *sides)
    grouped = stacked.reshape(len(x), groups, -1, *sides).movedim(1, 0).movedim(2, -1)
    return grouped.reshape(groups, -1, grouped.shape[-1])


def responses(y: Tensor, layer: Layer) -> Tensor:
    """A layer's result as `(positions, out)`."""
    return y.reshape(-1, y.shape[-1]) if not layer.kernel else y.movedim(1, -1).reshape(-1, y.shape[1])


def response_covariances(traced: Traced, layers: Sequence[Layer], split: Split, samples: int) -> dict[str, Tensor]:
    """The covariance of every layer's responses over positions, `(out, out)`, by the layer's name."""
    found: dict[str, tuple[int, Tensor, Tensor]] = {}
    known = {layer.name: layer for layer in layers}
    for inputs in sample_batches(split, samples):
        for name, (_, y) in inputs_and_outputs(traced, layers, inputs).items():
            seen = responses(y, known[name]).double()
            count, total, square = found.get(name, (0, 0.0, 0.0))
            found[name] = (count + len(seen), total + seen.sum(0), square + seen.T @ seen)
    return {name: square / count - torch.outer(total, total) / count**2 for name, (count, total, square) in found.items()}


class Moments:
    """Second moments of what every layer sees, `E[x x']` over positions, `(groups, m, m)` in double precision.

    Of every batch a layer with many positions sees only as many samples as make up `_POSITIONS` of them.
    """

    def __init__(self, traced: Traced, layers: tuple[Layer, ...], split: Split, samples: int) -> None:
        self._sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        known = {layer.name: layer for layer in layers}
        for inputs in sample_batches(split, samples):
            for name, (x, _) in inputs_and_outputs(traced, layers, inputs).items():
                seen = patches(known[name], x[: max(1, _POSITIONS // known[name].positions)])
                moment = (seen.mT @ seen).double()
                self._sums[name] = self._sums[name] + moment if name in self._sums else moment
                counts[name] = counts.get(name, 0) + seen.shape[1]
        self._counts = counts

    def __getitem__(self, name: str) -> Tensor:
        return self._sums[name] / self._counts[name]
