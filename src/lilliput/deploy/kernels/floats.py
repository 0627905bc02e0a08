"""Float kernels for layers of a quantized model: the same values, in a form that a runtime does not fuse to integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lilliput.deploy.kernels.attribution import Attribution, reads
from lilliput.deploy.kernels.fusion import layer_name, node_names

MARK = ".float."  # nodes written here are named by their layer's node and this
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CODES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


def quantized_layers(model: onnx.ModelProto) -> dict[str, str]:
    """Node to layer, for every product of a value with a constant of 8 bits behind a DequantizeLinear."""
    graph, attribution, names = model.graph, Attribution(model.graph), node_names(model.graph)
    stored = _stored(graph)
    found = {}
    for index, node in enumerate(graph.node):
        if node.op_type not in _LAYERS or len(node.input) < 2 or node.domain not in ("", "ai.onnx"):
            continue
        weight, x = (_dequantization(attribution, node.input[i], stored) for i in (1, 0))
        if weight is None or weight.input[0] not in stored or stored[weight.input[0]].data_type not in _CODES:
            continue
        if x is None or not stored[x.input[1]].dims:
            found[names[index]] = layer_name(attribution, index, names[index])
    return found


def with_floats(model: onnx.ModelProto, layers: set[str]) -> onnx.ModelProto:
    """The model with float kernels for the layers (names of nodes), activations quantized as before.

    With scales `s` and zero points `z` of codes `q`, `layer(s_x (q_x - z_x), s_w (q_w - z_w))` becomes
    `layer(cast(q_x) - z_x, s_x s_w (cast(q_w) - z_w))`. The runtime computes the second operand once, when it loads the file,
    which keeps 8 bit weights. The first costs what its DequantizeLinear did (one pass more for `z_x` other than 0). That
    node may not stay: behind it ONNX Runtime (1.31) quantizes float weights itself, coarser, and fuses them again.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    writer = _Writer(result.graph)
    for name, node in zip(node_names(model.graph), result.graph.node, strict=True):
        if name in layers:
            writer.convert_(name, node)
    writer.finish_()
    return result


def _stored(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The constants; what is an input too may be another at every run."""
    inputs = {value.name for value in graph.input}
    return {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}


def _dequantization(attribution: Attribution, value: str, stored: Mapping[str, onnx.TensorProto]) -> onnx.NodeProto | None:
    """The DequantizeLinear with stored parameters, not in blocks, that makes a value, if one does."""
    index = attribution.producers.get(value)
    node = attribution.graph.node[index] if index is not None else None
    if node is None or node.op_type != "DequantizeLinear" or any(a.name == "block_size" and a.i for a in node.attribute):
        return None
    return node if all(name in stored for name in node.input[1:] if name) and len(stored[node.input[1]].dims) <= 1 else None


class _Writer:
    """Converts the layers of one graph, each constant once."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        copy = onnx.GraphProto()
        copy.CopyFrom(graph)
        self._graph, self._before, self._stored = graph, Attribution(copy), _stored(copy)
        self._made: dict[tuple[str, str], str] = {}
        self._new: dict[str, list[onnx.NodeProto]] = {}

    def convert_(self, name: str, node: onnx.NodeProto) -> None:
        """Give the layer float operands."""
        x = _dequantization(self._before, node.input[0], self._stored)
        scale = np.ones((), np.float32) if x is None else numpy_helper.to_array(self._stored[x.input[1]])
        if x is not None:
            node.input[0] = self._value(name, "input", x, None)
        for position, factor in ((1, scale), (2, np.ones((), scale.dtype))):
            source = _dequantization(self._before, node.input[position], self._stored) if position < len(node.input) else None
            if source is not None and source.input[0] in self._stored:
                node.input[position] = self._value(name, ("", "weight", "bias")[position], source, factor)

    def _value(self, name: str, role: str, source: onnx.NodeProto, factor: NDArray[np.generic] | None) -> str:
        """`factor` times what a DequantizeLinear computes; without one, the codes less their zero point."""
        key = source.output[0], "" if factor is None else str(float(factor))
        if key not in self._made:
            nodes = self._nodes(f"{name}{MARK}{role}", source, factor)
            self._made[key] = nodes[-1].output[0]
            self._new.setdefault(name, []).extend(nodes)
        return self._made[key]

    def _nodes(self, stem: str, source: onnx.NodeProto, factor: NDArray[np.generic] | None) -> list[onnx.NodeProto]:
        scale = numpy_helper.to_array(self._stored[source.input[1]])
        zero = numpy_helper.to_array(self._stored[source.input[2]]) if len(source.input) > 2 and source.input[2] else np.zeros((), np.int32)
        aligned = self._aligned(source, scale.size)
        nodes = [helper.make_node("Cast", [source.input[0]], [stem], name=stem, to=helper.np_dtype_to_tensor_dtype(scale.dtype))]
        steps: Sequence[tuple[str, NDArray[np.generic]]] = [("Sub", zero.astype(scale.dtype))] if zero.any() else []
        for op, array in (*steps, *([("Mul", scale * factor)] if factor is not None else [])):
            value = f"{stem}.{op.lower()}"
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(array, scale.dtype).reshape(aligned if array.size > 1 else []), f"{value}.by"))
            nodes.append(helper.make_node(op, [nodes[-1].output[0], f"{value}.by"], [value], name=value))
        return nodes

    def _aligned(self, source: onnx.NodeProto, size: int) -> list[int]:
        """The shape in which scales broadcast over the codes."""
        if size == 1 or source.input[0] not in self._stored:
            return []
        shape = [1] * len(self._stored[source.input[0]].dims)
        shape[next((a.i for a in source.attribute if a.name == "axis"), 1)] = size
        return shape

    def finish_(self) -> None:
        """Put the new nodes before the layers that read them first, and drop what nothing reads any more."""
        graph, outputs = self._graph, {value.name for value in self._graph.output}
        nodes: list[onnx.NodeProto] = []
        for name, node in zip(node_names(self._before.graph), graph.node, strict=True):
            nodes += [*self._new.get(name, []), node]
        replaced = {value for value, _ in self._made}
        read = {value for node in nodes for value in reads(node)} | outputs
        nodes = [node for node in nodes if node.output[0] not in replaced or node.output[0] in read]
        read = {value for node in nodes for value in reads(node)} | outputs
        constants = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend(constants)
