"""Softmax between quantized values stays in floating point: ONNX Runtime's integer kernel rounds in a way of its own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lilliput.deploy.qdq import initializer


def keep_softmax_(model: ir.Model) -> None:
    """Subtract zeros before every softmax of dequantized values.

    ONNX Runtime (1.31) fuses it into QLinearSoftmax otherwise, of whose codes one in twenty-five is off, and attention carries
    that on. It does not look past a subtraction; that of a single zero it would take out again.
    """
    for node in list(model.graph):
        x = node.inputs[0] if node.op_type == "Softmax" else None
        source = x.producer() if x is not None else None
        if x is None or source is None or source.op_type != "DequantizeLinear" or x.shape is None:
            continue
        axis = next((dim for dim, size in enumerate(x.shape) if isinstance(size, int) and size > 1), None)
        if axis is None:
            continue
        name, channels = f"{node.outputs[0].name}.input", x.shape[axis]
        assert isinstance(channels, int)
        zeros = initializer(model, f"{name}.zeros", np.zeros([channels, *[1] * (len(x.shape) - axis - 1)], np.float32))
        new = ir.Node("", "Sub", [x, zeros], num_outputs=1, name=name)
        new.outputs[0].name = name
        model.graph.insert_before(node, new)
        node.replace_input_with(0, new.outputs[0])
