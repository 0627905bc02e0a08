"""Dynamic quantization in an exported graph: DynamicQuantizeLinear, or its arithmetic row by row in elementary operators."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript import opset18

from lilliput.deploy.qdq import initializer

_op: Any = opset18
_SMALLEST = 2.0**-100


def translate(x: ir.Value, rows: bool) -> ir.Value:
    """What the exporter writes for `lilliput::dynamic_quantize`: the same arithmetic, bit for bit."""
    if not rows:
        batch: ir.Value = _op.DequantizeLinear(*_op.DynamicQuantizeLinear(x))
        return batch
    largest = _op.ReduceMax(_op.Abs(x), _op.Constant(value_ints=[-1]), keepdims=1)
    scale = _op.Max(_op.Div(largest, _op.Constant(value_float=127.0)), _op.Constant(value_float=_SMALLEST))
    codes = _op.Clip(_op.Round(_op.Div(x, scale)), _op.Constant(value_float=-127.0), _op.Constant(value_float=127.0))
    result: ir.Value = _op.Mul(codes, scale)
    return result


def keep_inputs_(model: ir.Model) -> None:
    """Integer weights that multiply floating-point values get a leading dimension of one; two-dimensional products become Gemm.

    ONNX Runtime (1.31) makes MatMulNBits of such a product otherwise, whose kernel rounds the values to int8 by blocks of 32.
    """
    for node in list(model.graph):
        x, weight = (*node.inputs, None, None)[:2]
        source = weight.producer() if weight is not None else None
        codes = source.inputs[0] if source is not None and source.op_type == "DequantizeLinear" else None
        if node.op_type != "MatMul" or x is None or source is None or codes is None or codes.const_value is None:
            continue
        before = x.producer()
        if len(codes.const_value.shape) != 2 or x.shape is None or (before is not None and before.op_type == "DequantizeLinear"):
            continue
        if len(x.shape) == 2:
            new = ir.Node("", "Gemm", node.inputs, num_outputs=1)
            model.graph.insert_before(node, new)
        else:
            array = codes.const_value.numpy()[None]
            lifted = initializer(model, f"{codes.name}.lifted", array, codes.const_value.dtype)
            attributes = [ir.AttrInt64("axis", source.attributes["axis"].as_int() + 1)] if "axis" in source.attributes else []
            inputs = [lifted, *source.inputs[1:]]
            weights = ir.Node("", "DequantizeLinear", inputs, attributes, num_outputs=1, name=f"{lifted.name}.dequantize")
            new = ir.Node("", "MatMul", [x, weights.outputs[0]], num_outputs=1)
            model.graph.insert_before(node, [weights, new])
            weights.outputs[0].name = f"{lifted.name}.dequantized"
        old, result = node.outputs[0], new.outputs[0]
        result.name, result.shape, result.type = old.name, old.shape, old.type
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        old.name = None
        model.graph.remove(node, safe=True)
