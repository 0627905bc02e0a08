"""Groups of operators that stand for one, as exporters leave them: root-mean-square normalisation, and arithmetic that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRuleSet, pattern

_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}


def _root_mean_square(op: Any, x: Any, two: Any, axes: Any, epsilon: Any, gain: Any) -> Any:
    mean = op.ReduceMean(op.Pow(x, two), axes, _allow_other_attributes=True)
    return op.Mul(op.Mul(x, op.Reciprocal(op.Sqrt(op.Add(mean, epsilon)))), gain)


def _applies(context: Any, two: ir.Value, axes: ir.Value, epsilon: ir.Value, gain: ir.Value, x: ir.Value, **_: Any) -> bool:
    del context
    found = [ir.convenience.get_const_tensor(value) for value in (two, axes, epsilon, gain)]
    if x.shape is None or any(tensor is None for tensor in found):
        return False
    power, over, least, scale = (tensor.numpy() for tensor in found)  # type: ignore[union-attr]
    last = len(x.shape) - 1
    return bool(power.size == 1 and power.reshape(-1)[0] == 2 and [int(a) % (last + 1) for a in over.reshape(-1)] == [last]
                and least.size == 1 and scale.ndim == 1)


def _normalised(op: Any, x: Any, epsilon: ir.Value, gain: Any, **_: Any) -> Any:
    tensor = ir.convenience.get_const_tensor(epsilon)
    assert tensor is not None
    return op.RMSNormalization(x, gain, axis=-1, epsilon=float(tensor.numpy().reshape(-1)[0]))


def simplify(model: ir.Model) -> None:
    """Rewrite the model in place."""
    # First, since a gain of ones is part of the pattern.
    RewriteRuleSet([pattern.RewriteRule(_root_mean_square, _normalised, _applies)]).apply_to_model(model)
    for node in list(model.graph):
        neutral, other = _NEUTRAL.get(node.op_type), node.inputs[1] if len(node.inputs) == 2 else None
        tensor = ir.convenience.get_const_tensor(other) if other is not None else None
        x, out = (node.inputs[0] if node.inputs else None), node.outputs[0]
        if neutral is None or tensor is None or x is None or x.shape is None or out.shape is None or list(x.shape) != list(out.shape):
            continue
        if tensor.dtype == ir.DataType.FLOAT and bool(np.all(tensor.numpy() == neutral)):
            ir.convenience.replace_all_uses_with(out, x, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
