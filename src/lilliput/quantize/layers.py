"""The quantizers that stand before a layer's weight and bias."""

from __future__ import annotations

from torch import fx

from lilliput.graph.trace import Traced
from lilliput.quantize.quantizer import BiasQuantizer, Quantizer


def weight_quantizer(traced: Traced, layer: fx.Node) -> Quantizer | None:
    """The quantizer of the layer's weight, where it has one of its own."""
    return held_quantizer(traced, layer.args[1])


def held_quantizer(traced: Traced, node: object) -> Quantizer | None:
    """The quantizer that a node calls."""
    module = traced.get_submodule(str(node.target)) if isinstance(node, fx.Node) and node.op == "call_module" else None
    return module if isinstance(module, Quantizer) else None


def settle_biases_(traced: Traced) -> None:
    """Fix the scales of all biases at the present ones of inputs and weights."""
    for module in traced.modules():
        if isinstance(module, BiasQuantizer):
            module.settle()
