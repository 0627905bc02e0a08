"""Bias correction: quantization moves the mean of a layer's results, and the bias moves it back."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.graph.fold import set_parameter_
from lilliput.graph.products import groups_of
from lilliput.graph.trace import Traced
from lilliput.graph.walk import Walk, evaluate
from lilliput.graph.weights import bias_name, has_own_weight, weight_name, weight_of
from lilliput.quantize.calibrate import calibration_batches
from lilliput.quantize.layers import settle_biases_, weight_quantizer
from lilliput.quantize.operators import LAYERS, TRANSPOSED, layer_name
from lilliput.quantize.place import quantize_bias_
from lilliput.quantize.rewriting.statistics import channel_moments, over_inputs
from lilliput.train.progress import Bar


@dataclass(frozen=True, kw_only=True)
class BiasCorrection:
    """`b -= E[W' x'] - E[W x]` per channel, measured, with the layer's input `x'` in the quantized network, corrected so far.

    The mean is that over samples and positions, so that on the samples no channel is off on average. (nagel2019dfq, appendix D)
    """

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:
        """Correct in place, layer after layer."""
        batches, notes = calibration_batches(reference, data, samples)
        corrected = _correctable(quantized)
        for node in corrected:
            give_bias_(quantized, node)
        mine, theirs = Walk(quantized, batches), Walk(reference, batches)
        with Bar(total=len(corrected)) as bar:
            for index, node in enumerate(corrected):
                mine.before(node)
                wanted = _mean(theirs.through(theirs.named[node.name]), node)
                constants = mine.constants({source for source in node.all_input_nodes if source in mine.constant})
                with torch.no_grad():
                    found = [evaluate(quantized, node, ChainMap(values, constants)) for values in mine.values]
                # From the bias as it is rounded, or the new one would be off by two roundings.
                rounded = next(constants[source] for source in constants if source is node.args[2])
                set_bias_(quantized, node, rounded.double() + wanted - _mean(found, node))
                bar.update(index + 1, layer_name(node))
        return [*notes, f"biases of {len(corrected)} layers corrected by the mean error of their results"]


@dataclass(frozen=True, kw_only=True)
class ExpectedBiasCorrection:
    """`b -= (W' - W) E[x]` per channel, without data: `E[x]` follows from batch norms, through activation functions.

    Layers that no batch norm tells about keep their biases. (nagel2019dfq)
    """

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:  # noqa: ARG002
        """Correct in place."""
        moments = channel_moments(reference)
        named = {node.name: node for node in reference.graph.nodes}
        done = 0
        layers = _correctable(quantized)
        for node in layers:
            original, quantizer = named[node.name], weight_quantizer(quantized, node)
            mean = moments.get(original.args[0]) if isinstance(original.args[0], fx.Node) else None
            if mean is None or quantizer is None or node.target in TRANSPOSED:
                continue
            with torch.no_grad():
                change = quantizer(weight_of(quantized, node)).double() - weight_of(reference, original).double()
            if change.shape[1] * groups_of(node) != len(mean.mean):
                continue
            give_bias_(quantized, node)
            name = bias_name(node)
            assert name is not None
            shift = over_inputs(node, change.cpu(), mean.mean).to(change.device)
            set_bias_(quantized, node, quantized.tensor(name).detach().double() - shift)
            done += 1
        return [f"biases of {done} of {len(layers)} layers corrected by the mean error that batch norms let expect"]


def _correctable(quantized: Traced) -> list[fx.Node]:
    """Layers whose weight is quantized and nobody else's."""
    return [node for node in quantized.graph.nodes
            if node.target in LAYERS and weight_quantizer(quantized, node) is not None and has_own_weight(node)]


def _mean(results: list[Tensor], layer: fx.Node) -> Tensor:
    """Mean over everything but channels, float64."""
    axis = -1 if layer.target is torch.ops.aten.linear.default else 1
    total = sum(r.double().movedim(axis, -1).flatten(0, -2).sum(0) for r in results)
    assert isinstance(total, Tensor)
    return total * len(total) / sum(r.numel() for r in results)


def give_bias_(traced: Traced, layer: fx.Node) -> None:
    """Add a bias of zeros to a quantized layer that has none, in place."""
    if len(layer.args) > 2 and layer.args[2] is not None:
        return
    weight, name = weight_of(traced, layer), weight_name(layer)
    groups = layer.args[6] if layer.target in TRANSPOSED and len(layer.args) > 6 else 1
    assert isinstance(groups, int)
    outputs = weight.shape[1] * groups if layer.target in TRANSPOSED else weight.shape[0]
    bias = f"{name.rpartition('.')[0]}.bias_correction".removeprefix(".")
    set_parameter_(traced, bias, weight.new_zeros(outputs), requires_grad=False)
    with traced.graph.inserting_before(layer):
        node = traced.graph.get_attr(bias)
    layer.args = (*layer.args[:2], node, *layer.args[3:])
    quantize_bias_(traced, layer, layer_name(layer))
    settle_biases_(traced)
    traced.recompile()


def set_bias_(traced: Traced, layer: fx.Node, values: Tensor) -> None:
    """Replace a layer's bias in place."""
    name = bias_name(layer)
    assert name is not None
    traced.set_tensor(name, values.to(traced.tensor(name).dtype))
