"""Splitting: feature dimensions with outliers are multiplied apart from the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.graph.fold import set_parameter_
from lilliput.graph.trace import Traced
from lilliput.graph.weights import has_own_weight, weight_name, weight_of
from lilliput.quantize.operators import layer_name
from lilliput.quantize.rewriting.observe import largest

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class SplitOutliers:
    """A rewrite: linear layers become two, `y = x[:, R] W[:, R]' + b + x[:, O] W[:, O]'`, outlier features `O` and the rest `R`.

    `O` are the features whose magnitude reached `threshold` on some sample. `keep` marks the layer of the outliers, named
    `NAME.outliers`, as one to leave in floating point; a layer that reads outliers only is marked as a whole. Departs from the
    paper, which looks for outliers in every batch that passes: the set is fixed on `samples` inputs, as a deployed graph needs
    it, and outliers elsewhere are quantized. (dettmers2022int8)
    """

    keep: Callable[[fx.Node], None]
    threshold: float = 6.0
    samples: int = 512

    def __call__(self, traced: Traced, data: Any) -> list[str]:
        """Split in place."""
        layers = [node for node in traced.graph.nodes
                  if node.target is aten.linear.default and isinstance(node.args[0], fx.Node) and has_own_weight(node)]
        magnitudes = largest(traced, {node.args[0] for node in layers}, data, self.samples)
        notes = []
        for layer in layers:
            outliers = magnitudes[layer.args[0]] >= self.threshold
            count, features = int(outliers.sum()), len(outliers)
            if count == features:
                self.keep(layer)
            elif count:
                self.keep(_split_(traced, layer, outliers))
            if count:
                notes.append(f"{layer_name(layer)}: {count} of {features} input features reach {self.threshold:g} and stay in floating point")
        traced.graph.lint()
        traced.recompile()
        return notes or [f"no input feature of any linear layer reaches {self.threshold:g}"]


def _split_(traced: Traced, layer: fx.Node, outliers: Tensor) -> fx.Node:
    """Multiply the outlier features apart, in place; the new layer of the outliers."""
    source, name, weight = layer.args[0], weight_name(layer), weight_of(traced, layer)
    owner = name.rpartition(".")[0]
    apart = f"{owner}.outliers" if owner else "outliers"
    traced.set_tensor(name, weight[:, ~outliers].contiguous())
    set_parameter_(traced, f"{apart}.weight", weight[:, outliers])
    with traced.graph.inserting_before(layer):
        parts = []
        for leaf, mask in (("rest", ~outliers), ("features", outliers)):
            traced.get_submodule(apart).register_buffer(leaf, mask.nonzero().flatten())
            index = traced.graph.get_attr(f"{apart}.{leaf}")
            parts.append(traced.graph.call_function(aten.index_select.default, (source, -1, index)))
        weights = traced.graph.get_attr(f"{apart}.weight")
        exact = traced.graph.call_function(aten.linear.default, (parts[1], weights))
    layer.args = (parts[0], *layer.args[1:])
    with traced.graph.inserting_after(layer):
        total = traced.graph.call_function(aten.add.Tensor, (layer, exact))
    layer.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
    return exact
