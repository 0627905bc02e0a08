"""Dynamic quantization in an exported graph: DynamicQuantizeLinear, or its arithmetic row by row in elementary operators."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript import opset18

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
