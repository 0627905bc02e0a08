"""An ONNX model as the lowering reads it: a batch of one, all shapes known, constants folded, no cycles and no surprises."""

from __future__ import annotations

import math
from os import PathLike
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from lilliput.core.errors import CorruptFileError, LilliputError, PreconditionError
from lilliput.deploy import tflite
from lilliput.deploy.c.lowering.patterns import simplify

Array = NDArray[Any]
# A constant this large is no shape computation.
_FOLDED_BYTES = 1 << 24
# More than any microcontroller holds; lowering keeps a place of 8 bytes for each.
_ELEMENTS = 1 << 24
_KEPT = frozenset({"QuantizeLinear", "DequantizeLinear"})
_DOMAINS = frozenset({"", "ai.onnx"})


def load(source: str | PathLike[str] | onnx.ModelProto) -> ir.Model:
    """The model, ready to be lowered.

    Raises `CorruptFileError` for files that are damaged, `PreconditionError` for shapes that are not fixed, and for
    operators of other domains, functions and subgraphs.
    """
    proto = source if isinstance(source, onnx.ModelProto) else tflite.read(source)
    proto = _fixed(proto)
    try:
        proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        model = ir.from_proto(proto)
        model.graph.sort()
    except LilliputError:
        raise
    except Exception as error:
        raise CorruptFileError(f"the model's types or shapes contradict each other: {' '.join(str(error).split())[:300]}. Export it again") from error
    _vet(model)
    _fold(model)
    simplify(model)
    return model


def _fixed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose inputs have a batch of one; recorded shapes of other values are dropped, since they speak of another batch."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    constant = {tensor.name for tensor in copy.graph.initializer}
    for value in copy.graph.input:
        if value.name in constant:
            continue
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            raise PreconditionError(f"input {value.name} has no shape: export the model with a fixed shape")
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis == 0 and not (dim.HasField("dim_value") and dim.dim_value > 0):
                dim.Clear()
                dim.dim_value = 1
            if not dim.HasField("dim_value") or dim.dim_value < 1:
                raise PreconditionError(f"axis {axis} of input {value.name} is not fixed ({dim.dim_param or dim.dim_value}): generated code has "
                                        f"fixed shapes; export the model with a number there")
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy


def _vet(model: ir.Model) -> None:
    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        dims = _dims(value) or ()
        if math.prod(dims) > _ELEMENTS:
            raise PreconditionError(f"{value.name} has {math.prod(dims)} elements (shape {dims}); generated code holds at most {_ELEMENTS} in one tensor: "
                                    f"use smaller inputs, or another runtime")
    for node in model.graph:
        if node.domain not in _DOMAINS:
            raise PreconditionError(f"{describe(node)} is of the domain {node.domain}, which generated code does not know; export the model with "
                                    f"standard operators only")
        if any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()):
            raise PreconditionError(f"{describe(node)} holds a graph of its own (a loop or a branch); unroll it before exporting")


def _fold(model: ir.Model) -> None:
    """Compute what depends on constants alone, quantized constants excepted."""
    for node in list(model.graph):
        if node.op_type == "Constant":
            arrays: list[Array] = [np.asarray(ReferenceEvaluator(ir.to_proto(node)).run(None, {})[0])]  # type: ignore[index]
        elif node.op_type == "Shape" and node.inputs[0] is not None and _dims(node.inputs[0]) is not None:
            start, end = (node.attributes[k].as_int() if k in node.attributes else d for k, d in (("start", 0), ("end", None)))
            arrays = [np.asarray(_dims(node.inputs[0])[start:end], np.int64)]  # type: ignore[index]
        elif node.op_type not in _KEPT and node.inputs and all(value is None or constant(value) is not None for value in node.inputs):
            arrays = _evaluated(node)
        else:
            continue
        for old, array in zip(node.outputs, arrays, strict=True):
            if array.nbytes > _FOLDED_BYTES:
                raise PreconditionError(f"{describe(node)} computes a constant of {array.nbytes} bytes; simplify the model before deploying it")
            new = ir.Value(name=f"{old.name}.folded", const_value=ir.tensor(array), shape=ir.Shape(array.shape))
            model.graph.register_initializer(new)
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def _evaluated(node: ir.Node) -> list[Array]:
    feeds = {value.name: constant(value) for value in node.inputs if value is not None}
    try:
        return [np.asarray(array) for array in ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)]  # type: ignore[arg-type]
    except Exception as error:
        raise PreconditionError(f"{describe(node)} cannot be computed ahead: {' '.join(str(error).split())[:200]}") from error


def _dims(value: ir.Value) -> tuple[int, ...] | None:
    shape = value.shape
    return tuple(int(d) for d in shape) if shape is not None and all(isinstance(d, int) for d in shape) else None  # type: ignore[arg-type]


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The fixed shape; `PreconditionError` where it is not known or has a zero."""
    dims = _dims(value)
    if dims is None:
        raise PreconditionError(f"the shape of {value.name} is not known ahead: generated code has fixed shapes; export the model with fixed ones")
    if 0 in dims:
        raise PreconditionError(f"{value.name} has no elements (shape {dims}); remove what computes it")
    return dims


def constant(value: ir.Value | None) -> Array | None:
    """The array of an initializer."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return tensor.numpy() if tensor is not None else None


def real(value: ir.Value | None) -> Array | None:
    """The real values of a constant, float64, those of quantized ones too; None for what is no constant of numbers."""
    found, source = constant(value), value.producer() if value is not None else None
    if found is not None:
        return found.astype(np.float64) if found.dtype.kind in "fiu" else None
    parts = [constant(v) for v in source.inputs if v is not None] if source is not None and source.op_type == "DequantizeLinear" else []
    known = [part.astype(np.float64) for part in parts if part is not None]
    if source is None or not parts or len(known) < len(parts):
        return None
    codes, axis = known[0], number(source, "axis", 1)
    scale, zero = ((part.reshape([-1 if k == axis % codes.ndim else 1 for k in range(codes.ndim)]) if part.size > 1 else part.reshape(()))
                   for part in (known[1], known[2] if len(known) > 2 else np.zeros(())))
    return np.asarray((codes - zero) * scale)


def describe(node: ir.Node) -> str:
    """The node for messages: type, name, and what it reads."""
    before = next((value.producer() for value in node.inputs if value is not None and value.producer() is not None), None)
    after = f" after {before.name or before.op_type}" if before is not None else ""
    return f"{node.op_type} {node.name or (node.outputs[0].name if node.outputs else '')}{after}"


def label(node: ir.Node) -> str:
    """The layer for tables: what its weights are called, less what exporters add to that."""
    for value in node.inputs[1:2]:
        source = value.producer() if value is not None else None
        while source is not None and source.op_type in ("Transpose", "Reshape") and source.inputs[0] is not None:
            source = source.inputs[0].producer()
        codes = source.inputs[0] if source is not None and source.op_type == "DequantizeLinear" else None
        if codes is not None and constant(codes) is not None and codes.name:
            return f"{node.op_type} {codes.name.removesuffix('.transposed').removesuffix('.codes').removesuffix('.weight')}"
    return f"{node.op_type} {node.name or node.outputs[0].name}"


def ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """A list attribute."""
    return [int(v) for v in node.attributes[name].as_ints()] if name in node.attributes else list(default)


def number(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    return int(node.attributes[name].as_int()) if name in node.attributes else default


def text(node: ir.Node, name: str, default: str) -> str:
    """A text attribute."""
    return node.attributes[name].as_string() if name in node.attributes else default
