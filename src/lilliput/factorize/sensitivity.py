"""Sensitivity: what an error in each weight costs, as a quadratic form; the distortion that bits are spent against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from lilliput.data.drawing import sample_batches
from lilliput.factorize.layers import Layer, matrix, node_of
from lilliput.factorize.observe import Moments, patches, responses, values_and_output
from lilliput.graph.trace import Traced
from lilliput.train import Split

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """`D(E) = sum_o rows[o] e_o' H_g(o) e_o` for errors `E` `(out, m)`; `moments` is `H`, `(groups, m, m)`."""

    moments: Array
    rows: Array

    def __call__(self, error: Array) -> float:
        """The distortion of an error of the weight's size."""
        grouped = error.reshape(len(self.moments), -1, self.moments.shape[-1])
        power = np.einsum("grm,grm->gr", grouped @ self.moments, grouped)
        return float((power.ravel() * self.rows).sum())

    def scaled(self, factor: float) -> Metric:
        """The same form, times a factor."""
        return Metric(moments=self.moments, rows=self.rows * factor)


class Distortion(Protocol):
    """`(network, layers, split, samples) -> Metric` for each layer, by name."""

    needs_data: ClassVar[bool]

    def __call__(self, traced: Traced, layers: tuple[Layer, ...], split: Split | None, samples: int) -> dict[str, Metric]:
        """Measure every layer."""
        ...


@dataclass(frozen=True)
class WeightError:
    """`|E|^2 / |W|^2`: the error of the weights alone, relative to them."""

    needs_data: ClassVar[bool] = False

    def __call__(self, traced: Traced, layers: tuple[Layer, ...], split: Split | None, samples: int) -> dict[str, Metric]:  # noqa: ARG002
        """Identity for every layer."""
        found = {}
        for layer in layers:
            weight = matrix(traced.tensor(layer.weight)).numpy()
            metric = Metric(moments=np.eye(weight.shape[1])[None].repeat(layer.groups, 0), rows=np.ones(len(weight)))
            found[layer.name] = relative(metric, weight)
        return found


@dataclass(frozen=True)
class OutputError:
    """`E |E x|^2 / E |W x|^2` over what the layer reads: the error of its response, relative to that."""

    needs_data: ClassVar[bool] = True

    def __call__(self, traced: Traced, layers: tuple[Layer, ...], split: Split | None, samples: int) -> dict[str, Metric]:
        """Second moments of inputs."""
        assert split is not None
        moments = Moments(traced, layers, split, samples)
        found = {}
        for layer in layers:
            weight = matrix(traced.tensor(layer.weight)).numpy()
            found[layer.name] = relative(Metric(moments=moments[layer.name].numpy(), rows=np.ones(len(weight))), weight)
        return found


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """`E (u' df)^2`, `df` the change of the network's output to first order, `u` random: `E (sum_o e_o' G_o)^2`.

    `G_o` is the gradient of `u' f` of one sample by row `o` of the weight, positions summed, so that errors which all positions
    share add up. Rows count as uncorrelated, and share one matrix in each group, `sum_o G_o G_o'`, each in
    proportion to its `E |G_o|^2`. Relative to the sum over all layers of the cost of losing every weight. The paper spends
    its bits against the distortion of the network's output too; how it estimates that differs. (young2021transform)
    """

    seed: int = 0
    needs_data: ClassVar[bool] = True

    def __call__(self, traced: Traced, layers: tuple[Layer, ...], split: Split | None, samples: int) -> dict[str, Metric]:
        """Second moments of the gradients of single samples."""
        assert split is not None
        generator = torch.Generator().manual_seed(self.seed)
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for inputs in sample_batches(split, samples):
            for layer, found in _gradients(traced, layers, inputs, generator):
                moment = torch.einsum("ngrm,ngrk->gmk", found, found).double()
                power = found.double().square().sum((0, 3)).flatten()
                before = sums.get(layer.name, (torch.zeros_like(moment), torch.zeros_like(power)))
                sums[layer.name] = (before[0] + moment, before[1] + power)
        metrics, total = {}, 0.0
        for layer in layers:
            moment, power = sums[layer.name]
            size = moment.diagonal(dim1=1, dim2=2).sum(1).clamp(min=1e-300)
            metrics[layer.name] = Metric(moments=(moment / size[:, None, None]).numpy(), rows=power.numpy())
            total += metrics[layer.name](matrix(traced.tensor(layer.weight)).numpy())
        return {name: metric.scaled(1 / max(total, 1e-300)) for name, metric in metrics.items()}


def relative(metric: Metric, weight: Array) -> Metric:
    """The form scaled so that losing the whole weight costs one."""
    return metric.scaled(1 / max(metric(weight), 1e-300))


def _gradients(traced: Traced, layers: Sequence[Layer], inputs: Tensor, generator: torch.Generator) -> Iterator[tuple[Layer, Tensor]]:
    """Gradients of a random combination of each sample's outputs by the weight, `(N, groups, out / groups, m)`."""
    nodes = {layer.name: node_of(traced, layer) for layer in layers}
    wanted = [n for node in nodes.values() for n in (node.args[0], node) if isinstance(n, fx.Node)]
    with torch.enable_grad():
        leaf = inputs.clone().requires_grad_(inputs.is_floating_point())
        seen, output = values_and_output(traced, leaf, wanted)
        mixed = (output * torch.randn(output.shape, generator=generator)).sum()
        found = torch.autograd.grad(mixed, [seen[node] for node in nodes.values()], allow_unused=True, materialize_grads=True)
    for layer, node, gradient in zip(layers, nodes.values(), found, strict=True):
        x = patches(layer, seen[node.args[0]].detach())  # type: ignore[index]
        by_sample = x.reshape(len(x), len(inputs), -1, x.shape[-1])
        back = responses(gradient, layer).reshape(len(inputs), -1, layer.groups, layer.shape[0] // layer.groups)
        yield layer, torch.einsum("gnpm,npgr->ngrm", by_sample, back)
