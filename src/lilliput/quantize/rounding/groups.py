"""Embedding groups: feature dimensions of similar range share a scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import RecipeError
from lilliput.data.drawing import sample_batches
from lilliput.graph.shapes import fake_values
from lilliput.graph.trace import Traced
from lilliput.graph.walk import Walk
from lilliput.quantize.grids import Integer
from lilliput.quantize.layers import held_quantizer
from lilliput.quantize.quantizer import BiasQuantizer, Quantizer, SameQuantizer


def grouped(low: Tensor, high: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The ends that each feature shares with its group: features in the order of their ranges, cut into `groups` of one size.
    """
    low, high = low.clone(), high.clone()
    for members in (high - low).argsort(stable=True).tensor_split(groups):
        if len(members):
            low[members], high[members] = low[members].min(), high[members].max()
    return low, high


@dataclass(frozen=True, kw_only=True)
class EmbeddingGroups:
    """A rounding that leaves weights alone: activations `(samples, tokens, features)` get `groups` scales, by features' ranges.

    Features are sorted by `max x_j - min x_j` and cut into groups of one size; a group's range is the least that holds its
    features'. The order only says who shares a scale: nothing is moved, and the exported quantizers have a scale to the
    feature. Departs from the paper, which groups the activations around feed-forward layers only, in taking all that no
    operator views in another shape. A bias behind such an input stays in floating point, since there is no accumulator with one
    scale. (bondarenko2021peg)
    """

    groups: int = 6

    def __post_init__(self) -> None:
        if not isinstance(self.groups, int) or self.groups < 1:
            raise RecipeError(f"features are cut into one group or more, not {self.groups!r}")

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:
        """Change scales in place."""
        found = _embeddings(quantized, reference)
        ends = _extremes(reference, set(found.values()), data, samples)
        for quantizer, node in found.items():
            low, high = grouped(*ends[node], self.groups)
            quantizer.regrid(quantizer.grid.along(2))
            quantizer.set(quantizer.grid.parameters(low, high))
        _free_biases_(quantized, set(found))
        return [f"{len(found)} activations quantized in {self.groups} groups of features"]


def _embeddings(quantized: Traced, reference: Traced) -> dict[Quantizer, fx.Node]:
    """Quantizers of activations of three dimensions whose grid no other edge takes over, with the node of the float network."""
    values = fake_values(reference, reference.example)
    named = {node.name: node for node in reference.graph.nodes}
    taken = {module.source for module in quantized.modules() if isinstance(module, SameQuantizer)}
    out: dict[Quantizer, fx.Node] = {}
    for node in quantized.graph.nodes:
        quantizer, source = held_quantizer(quantized, node), node.args[0] if node.args else None
        if quantizer is None or quantizer.weight or quantizer in taken or not isinstance(quantizer.grid, Integer):
            continue
        original = named.get(source.name) if isinstance(source, fx.Node) else None
        if original is not None and values[original].ndim == 3:
            out[quantizer] = original
    return out


def _extremes(reference: Traced, wanted: set[fx.Node], data: Any, samples: int) -> dict[fx.Node, tuple[Tensor, Tensor]]:
    """Least and largest value of each feature."""
    order = [node for node in reference.graph.nodes if node in wanted]
    device = next((p.device for p in reference.parameters()), torch.device("cpu"))
    found: dict[fx.Node, tuple[Tensor, Tensor]] = {}
    for inputs in sample_batches(data.train, samples):
        walk = Walk(reference, [inputs.to(device)])
        for node in order if len(inputs) else ():
            rows = walk.through(node)[0].flatten(0, 1)
            low, high = found.get(node, (rows[0], rows[0]))
            found[node] = torch.minimum(low, rows.amin(0)), torch.maximum(high, rows.amax(0))
    return found


def _free_biases_(quantized: Traced, inputs: set[Quantizer]) -> None:
    """Take out the quantizers of biases whose input's scale is one of these, in place."""
    for node in list(quantized.graph.nodes):
        module = quantized.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, BiasQuantizer) and module.sources[0] in inputs:
            node.replace_all_uses_with(node.args[0])
            quantized.graph.erase_node(node)
            quantized.delete_submodule(str(node.target))
    quantized.recompile()
