"""Layers with floating-point weights between quantized activations: ONNX Runtime must leave them so."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lilliput.deploy.qdq import initializer

_LAYERS = {"Conv", "ConvTranspose", "Gemm"}
_CLAMPS = {"Relu", "Clip"}


def subtract_biases_(model: ir.Model) -> None:
    """Take the bias out of such layers: `conv(x, w) - (-b)`; where there is none, zeros.

    ONNX Runtime's transformer WeightBiasQuantization rounds float weights right before a QuantizeLinear to int8, with one scale;
    weights on tables of levels would not keep theirs. It does not look past a subtraction, and no other of its rewrites puts
    one back into the layer, as it does with additions.
    """
    for node in list(model.graph):
        if node.op_type in _LAYERS and _floating(node.inputs[1]) and _one_scale(node.inputs[0]) and _quantized_next(node):
            _separate(model, node)


def _floating(weight: ir.Value | None) -> bool:
    """Whether a value is computed from constants alone, and not from integers by a DequantizeLinear."""
    if weight is None or ir.convenience.get_const_tensor(weight) is not None:
        return weight is not None
    node = weight.producer()
    return node is not None and node.op_type != "DequantizeLinear" and all(_floating(x) for x in node.inputs if x is not None)


def _one_scale(x: ir.Value | None) -> bool:
    node = x.producer() if x is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[1] is None:
        return False
    scale = ir.convenience.get_const_tensor(node.inputs[1])
    return scale is not None and scale.size == 1


def _quantized_next(node: ir.Node) -> bool:
    """Whether the one reader of a node's result, clamps aside, is a QuantizeLinear."""
    readers = list(node.outputs[0].uses())
    while len(readers) == 1 and readers[0][0].op_type in _CLAMPS:
        readers = list(readers[0][0].outputs[0].uses())
    return len(readers) == 1 and readers[0][0].op_type == "QuantizeLinear"


def _separate(model: ir.Model, node: ir.Node) -> None:
    old, bias = node.outputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    array = None if bias is None else ir.convenience.get_const_tensor(bias)
    channels = old.shape[1] if old.shape is not None and len(old.shape) > 1 else None
    if not isinstance(channels, int) or old.shape is None or (bias is not None and (array is None or len(array.shape) != 1)):
        return
    # A vector even of zeros: the subtraction of a single zero would be taken out again.
    negative = np.zeros(channels, np.float32) if array is None else -array.numpy()
    negative = np.ascontiguousarray(negative.reshape([-1, *[1] * (len(old.shape) - 2)]))
    name, attributes = str(old.name), list(node.attributes.values())
    bare = ir.Node("", node.op_type, node.inputs[:2], attributes, num_outputs=1, name=f"{name}.product")
    bare.outputs[0].name = f"{name}.product"
    constant = initializer(model, f"{name}.negative_bias", negative)
    new = ir.Node("", "Sub", [bare.outputs[0], constant], num_outputs=1, name=f"{name}.sub")
    model.graph.insert_before(node, [bare, new])
    result = new.outputs[0]
    result.shape, result.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    old.name, result.name = None, name
    model.graph.remove(node, safe=True)
