"""A LiteRT full-integer model as a QDQ ONNX model of standard operators."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from lilliput.deploy.tflite import layers, moves, pointwise
from lilliput.deploy.tflite.builder import TO_FIRST, Builder
from lilliput.deploy.tflite.schema import Operator, Tensor, parse

_OPSET, _IR = 20, 10
_BORDER = ("float32", "uint8")
# The key of the file's metadata that says whose integer arithmetic its numbers were made for, and TensorFlow Lite Micro's.
ARITHMETIC, MICRO = "lilliput.arithmetic", "tflite-micro"

RULES: dict[str, Callable[[Builder], None]] = {
    "CONV_2D": layers.convolution, "DEPTHWISE_CONV_2D": layers.convolution, "TRANSPOSE_CONV": layers.transposed_convolution,
    "FULLY_CONNECTED": layers.fully_connected, "BATCH_MATMUL": layers.matmul, "AVERAGE_POOL_2D": layers.pool, "MAX_POOL_2D": layers.pool,
    "ADD": pointwise.binary, "SUB": pointwise.binary, "MUL": pointwise.binary, "QUANTIZE": pointwise.requantize, "SOFTMAX": pointwise.softmax,
    "MEAN": pointwise.mean, **dict.fromkeys((*pointwise.FUNCTIONS, *pointwise.CLIPS), pointwise.function),
    "RESHAPE": moves.reshape, "SQUEEZE": moves.reshape, "EXPAND_DIMS": moves.reshape, "TRANSPOSE": moves.transpose,
    "CONCATENATION": moves.concatenate, "SPLIT": moves.split, "SLICE": moves.slice_, "STRIDED_SLICE": moves.strided_slice, "PAD": moves.pad,
    "PADV2": moves.pad, "RESIZE_NEAREST_NEIGHBOR": moves.resize_nearest}


def to_onnx(source: str | PathLike[str] | bytes) -> onnx.ModelProto:
    """The model in a file, or the file's bytes: int8 codes in and out, named and shaped as in the file, images as `(N, H, W, C)`.

    What QUANTIZE or DEQUANTIZE (or uint8) stands at the borders goes. The ONNX file computes in real values between codes, as every QDQ
    model; the integers of TensorFlow Lite Micro come from `deploy.c.lower`, for which the model's metadata say that it is one of its.
    Reading is by numbers of the schema's fields; nothing of TensorFlow is needed.

    Raises `CorruptFileError` for files that are damaged or contradict themselves; `PreconditionError` naming the operator and the way
    out for what is not int8, and for operators that are not known.
    """
    data, name = (source, "the file") if isinstance(source, bytes) else (Path(source).read_bytes(), str(source))
    model = parse(data, name)
    b = Builder(model)
    dropped = _borders(b)
    inputs = [_input(b, tensor) for tensor in (model.tensors[i] for i in model.inputs)]
    for operator in model.operators:
        b.operator = operator
        if operator.index not in dropped:
            _convert(b, operator)
    b.operator = None
    outputs = [_output(b, model.tensors[i], dropped) for i in model.outputs]
    return _checked(b, inputs, outputs)


def _convert(b: Builder, operator: Operator) -> None:
    rule = RULES.get(operator.kind)
    if rule is None:
        raise b.refused("is not among the operators that are read", f"replace it in the network and convert again, or run the model in LiteRT. "
                                                                    f"Known: {', '.join(sorted(RULES))}")
    rule(b)


def _borders(b: Builder) -> dict[int, Tensor]:
    """Operators that only change the type of an input or output, with the int8 tensor on their inner side."""
    found: dict[int, Tensor] = {}
    for operator in b.model.operators:
        b.operator = operator
        if operator.kind == "QUANTIZE" and len(operator.inputs) == 1 and operator.inputs[0] in b.model.inputs and b.tensor(0).kind in _BORDER:
            found[operator.index] = b.tensor(0, output=True)
        if operator.kind in ("DEQUANTIZE", "QUANTIZE") and len(operator.outputs) == 1 and operator.outputs[0] in b.model.outputs and (
                b.tensor(0, output=True).kind in _BORDER):
            found[operator.index] = b.tensor(0)
    b.operator = None
    return found


def _input(b: Builder, tensor: Tensor) -> onnx.ValueInfoProto:
    """The int8 codes of an input, behind its QUANTIZE if it has one."""
    name = b.unique(tensor.name or "input")
    inner = [tensor]
    if tensor.kind != "int8":
        readers = [operator for operator in b.model.operators if tensor.index in operator.inputs]
        inner = [b.model.tensors[operator.outputs[0]] for operator in readers if operator.kind == "QUANTIZE" and operator.outputs]
        if tensor.kind not in _BORDER or not inner or len(inner) != len(readers) or any(not b.grid(t).same(b.grid(inner[0])) for t in inner):
            raise b.refused(f"reads its input {tensor.name!r} as {tensor.kind}")
    if 0 in inner[0].shape or not inner[0].shape:
        raise b.corrupt(f"has an input of shape {inner[0].shape}")
    for one in inner:
        b.keep(one, name)
    return helper.make_tensor_value_info(name, TensorProto.INT8, inner[0].shape)


def _output(b: Builder, tensor: Tensor, dropped: dict[int, Tensor]) -> tuple[str, Tensor]:
    """The value that holds the codes of an output, and the name that it is to have."""
    inner = tensor
    if tensor.kind != "int8":
        sources = [operator.index for operator in b.model.operators if tensor.index in operator.outputs and operator.index in dropped]
        if len(sources) != 1:
            raise b.refused(f"gives its output {tensor.name!r} as {tensor.kind}")
        inner = dropped[sources[0]]
    b.grid(inner)
    return b.unique(tensor.name or "output"), inner


def _checked(b: Builder, inputs: list[onnx.ValueInfoProto], outputs: list[tuple[str, Tensor]]) -> onnx.ModelProto:
    """The model, once ONNX has found the shapes in it that the file records."""
    infos = []
    for name, tensor in outputs:
        # A pair that changes nothing, so that the grid of an output stands beside it whatever computes it.
        b.nodes.append(helper.make_node("QuantizeLinear", [b.real(tensor), *b.grid_inputs(tensor)], [name], name=name))
        infos.append(helper.make_tensor_value_info(name, TensorProto.INT8, tensor.shape))
    graph = helper.make_graph(b.nodes, "network", inputs, infos, list(b.initializers.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="lilliput")
    helper.set_model_props(model, {ARITHMETIC: MICRO})
    try:
        onnx.checker.check_model(model)
        found = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        raise b.corrupt(f"contradicts itself: {' '.join(str(error).split())[:300]}") from error
    shapes = {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
              for value in (*found.graph.value_info, *found.graph.input, *found.graph.output)}
    for (index, first), name in b.codes_of.items():
        recorded = b.model.tensors[index].shape
        if name in shapes and shapes[name] != (tuple(np.take(recorded, TO_FIRST)) if first else recorded):
            raise b.corrupt(f"records the shape {recorded} for tensor {index}, which has {shapes[name]}")
    return model


def is_tflite(path: str | PathLike[str]) -> bool:
    """Whether a file says that it is a LiteRT model: the identifier TFL3 at byte 4."""
    with Path(path).open("rb") as file:
        return file.read(8)[4:] == b"TFL3"


def read(path: str | PathLike[str]) -> onnx.ModelProto:
    """An ONNX model from an ONNX or LiteRT file, whichever it is by its content.

    Raises `CorruptFileError`; `PreconditionError` for LiteRT models that are not int8 throughout.
    """
    from lilliput.deploy.onnx import read as read_onnx

    return to_onnx(path) if is_tflite(path) else read_onnx(path)


__all__ = ["ARITHMETIC", "MICRO", "is_tflite", "read", "to_onnx"]
