"""Parameters and multiply-accumulates of an ONNX file, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike

import onnx

from lilliput.core.errors import CorruptFileError
from lilliput.deploy.onnx import read

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class OnnxRow:
    """One layer: `params` elements of its constants (scales and zero points aside), `macs` for one sample."""

    layer: str
    op: str
    params: int
    macs: int
    output: Shape


@dataclass(frozen=True, kw_only=True)
class OnnxProfile:
    """Totals for one sample and the layers that do arithmetic, in order."""

    params: int
    macs: int
    size: int
    rows: tuple[OnnxRow, ...]


def profile_onnx(path: str | PathLike[str]) -> OnnxProfile:
    """Profile an ONNX file: shapes by ONNX's own inference with a batch of one, MACs of convolutions and matrix products.

    `Conv: |out| (C_in / groups) prod(kernel)`, `ConvTranspose: |in| (C_out / groups) prod(kernel)`, `Gemm, MatMul: |out| K`.
    Parameters count once however often they are used. Raises `CorruptFileError` for files that cannot be read.
    """
    model = read(path)
    shapes = _shapes(model, path)
    constants = {t.name: (tuple(t.dims), t.data_type) for t in model.graph.initializer}
    constants |= {n.output[0]: (tuple(a.t.dims), a.t.data_type) for n in model.graph.node if n.op_type == "Constant"
                  for a in n.attribute if a.HasField("t")}
    produced = {output: node for node in model.graph.node for output in node.output}
    learned = {name for node in model.graph.node for i, name in enumerate(node.input) if name in constants and _learned(node, i, *constants[name])}
    rows = []
    for node in model.graph.node:
        macs = _macs(node, shapes)
        owned = {_stored(name, produced) for name in node.input} & learned
        if macs or (owned and node.op_type not in {"QuantizeLinear", "DequantizeLinear"}):
            params = sum(math.prod(constants[name][0]) for name in owned)
            rows.append(OnnxRow(layer=node.name or node.output[0], op=node.op_type, params=params, macs=macs, output=shapes.get(node.output[0], ())))
    size = len(model.SerializeToString()) if not _external(model) else 0
    return OnnxProfile(params=sum(math.prod(constants[name][0]) for name in learned), macs=sum(row.macs for row in rows), size=size, rows=tuple(rows))


def _external(model: onnx.ModelProto) -> bool:
    return any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)


def _learned(node: onnx.NodeProto, position: int, shape: Shape, kind: int) -> bool:
    """Whether an input is a weight: integers behind a dequantization, or floats that are no scale, bound or lone number."""
    if node.op_type == "DequantizeLinear":
        return position == 0
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
    return kind in floats and bool(shape) and node.op_type not in {"QuantizeLinear", "Clip", "Resize", "Pad", "Range"}


def _stored(name: str, produced: dict[str, onnx.NodeProto]) -> str:
    """The constant behind a dequantization."""
    node = produced.get(name)
    return node.input[0] if node is not None and node.op_type == "DequantizeLinear" else name


def _shapes(model: onnx.ModelProto, path: str | PathLike[str]) -> dict[str, Shape]:
    """Shapes of all values with every symbolic size set to one."""
    one = onnx.ModelProto()
    one.CopyFrom(model)
    for value in [*one.graph.input, *one.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1
    try:
        inferred = onnx.shape_inference.infer_shapes(one, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise CorruptFileError(f"{path} has shapes or types that contradict each other: {' '.join(str(error).split())[:300]}. Export it again") from error
    known = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in known}
    return shapes | {t.name: tuple(t.dims) for t in inferred.graph.initializer}


def _macs(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return 0
    first, second, out = shapes.get(node.input[0], ()), shapes.get(node.input[1], ()), shapes.get(node.output[0], ())
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    inner = first[0] if node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute) else first[-1] if first else 0
    return math.prod(out) * inner if out else 0
