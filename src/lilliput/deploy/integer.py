"""Rewrites that let ONNX Runtime see integer layers: global pooling, constants transposed as integers, integer biases."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lilliput.deploy.qdq import initializer, quantize

_INT32 = (-(2**31), 2**31 - 1)


def global_pools_(model: ir.Model) -> None:
    """The mean over both positions of an image, dimensions kept, becomes GlobalAveragePool, which has an integer kernel."""
    for node in list(model.graph):
        x, axes = (*node.inputs, None, None)[:2]
        if node.op_type != "ReduceMean" or x is None or x.shape is None or len(x.shape) != 4 or axes is None:
            continue
        over, kept = ir.convenience.get_const_tensor(axes), node.attributes.get("keepdims")
        if over is None or {int(axis) % 4 for axis in over.numpy().reshape(-1)} != {2, 3} or (kept is not None and not kept.as_int()):
            continue
        new = ir.Node("", "GlobalAveragePool", [x], num_outputs=1)
        model.graph.insert_before(node, new)
        old, pooled = node.outputs[0], new.outputs[0]
        pooled.name, pooled.shape, pooled.type = old.name, old.shape, old.type
        ir.convenience.replace_all_uses_with(old, pooled, replace_graph_outputs=True)
        old.name = None
        model.graph.remove(node, safe=True)


def transpose_constants_(model: ir.Model) -> None:
    """`Transpose(DequantizeLinear(codes))` becomes `DequantizeLinear(codes transposed)`."""
    for node in list(model.graph):
        source = _constant_source(node.inputs[0]) if node.op_type == "Transpose" and node.inputs else None
        if source is None:
            continue
        codes = source.inputs[0]
        assert codes is not None
        assert codes.const_value is not None
        axes = node.attributes["perm"].as_ints() if "perm" in node.attributes else list(range(len(codes.const_value.shape)))[::-1]
        turned = initializer(model, f"{codes.name}.transposed", codes.const_value.numpy().transpose(axes), codes.const_value.dtype)
        attributes = [ir.AttrInt64("axis", list(axes).index(source.attributes["axis"].as_int()))] if "axis" in source.attributes else []
        new = ir.Node("", "DequantizeLinear", [turned, *source.inputs[1:]], attributes, num_outputs=1, name=f"{turned.name}.dequantize")
        model.graph.insert_before(node, new)
        new.outputs[0].name = f"{turned.name}.dequantized"
        ir.convenience.replace_all_uses_with(node.outputs[0], new.outputs[0])
        model.graph.remove(node, safe=True)


def integer_biases_(model: ir.Model) -> None:
    """A float bias between quantized input and weight becomes int32 with `s_bias = s_input s_weight` and zero point 0.

    That is the accumulator's own grid, so the runtime adds it before it rescales (as ONNX Runtime's quantizer does).
    """
    for node in list(model.graph):
        if node.op_type not in {"Conv", "Gemm"} or len(node.inputs) < 3:
            continue
        x, weight, bias = node.inputs[:3]
        array = ir.convenience.get_const_tensor(bias) if bias is not None else None
        layer, source = _constant_source(weight), x.producer() if x is not None else None
        if array is None or layer is None or source is None or source.op_type != "DequantizeLinear":
            continue
        scales = [ir.convenience.get_const_tensor(n.inputs[1]) if n.inputs[1] is not None else None for n in (source, layer)]
        if scales[0] is None or scales[1] is None or scales[0].size != 1 or array.numpy().ndim != 1:
            continue
        values, of = array.numpy(), layer.attributes.get("axis")
        if scales[1].size > 1 and (scales[1].size != values.size or (node.op_type == "Conv" and (of is None or of.as_int() != 0))):
            continue  # the scales are not those of the outputs
        scale = np.broadcast_to(scales[0].numpy().reshape(()) * scales[1].numpy(), values.shape).astype(np.float32)
        codes = quantize(values, scale, np.zeros(values.shape, np.int32), 0, _INT32).astype(np.int32)
        inputs = [initializer(model, f"{bias.name}.codes", codes), initializer(model, f"{bias.name}.scale", np.ascontiguousarray(scale))]  # type: ignore[union-attr]
        new = ir.Node("", "DequantizeLinear", inputs, [ir.AttrInt64("axis", 0)], num_outputs=1, name=f"{bias.name}.dequantize")  # type: ignore[union-attr]
        new.outputs[0].name = f"{bias.name}.dequantized"  # type: ignore[union-attr]
        model.graph.insert_before(node, new)
        node.replace_input_with(2, new.outputs[0])


def _constant_source(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear of a constant that produces the value, if one does."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None or node.inputs[0].const_value is None:
        return None
    return node
