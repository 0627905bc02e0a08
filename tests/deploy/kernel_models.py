"""Small ONNX files, float and quantized, for what a runtime makes of them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

QUANTIZED = {"x": (0.02, 0), "a": (0.03, 0), "b": (0.05, 128), "c": (0.04, 0), "y": (0.1, 120)}


class Builder:
    """Nodes and constants in the order they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def constant(self, name: str, array: np.ndarray) -> str:
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: list[str], output: str, name: str | None = None, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output if name is None else name, **attributes))
        return output

    def pair(self, value: str) -> str:
        """Quantize and dequantize an activation."""
        scale, zero = QUANTIZED[value.partition(".")[0]]
        pair = [self.constant(f"{value}.scale", np.float32(scale)), self.constant(f"{value}.zero_point", np.uint8(zero))]
        self.node("QuantizeLinear", [value, *pair], f"{value}.q")
        return self.node("DequantizeLinear", [f"{value}.q", *pair], f"{value}.dq")

    def weight(self, layer: str, shape: tuple[int, ...], axis: int = 0) -> str:
        """A constant of 8 bits with a scale for each index of the axis, dequantized."""
        self.constant(f"{layer}.weight.codes", self.rng.integers(-127, 128, shape).astype(np.int8))
        self.constant(f"{layer}.weight.scale", self.rng.uniform(0.001, 0.003, shape[axis]).astype(np.float32))
        self.constant(f"{layer}.weight.zero_point", np.zeros(shape[axis], np.int8))
        return self.node("DequantizeLinear", [f"{layer}.weight.{key}" for key in ("codes", "scale", "zero_point")], f"{layer}.w", axis=axis)

    def bias(self, layer: str, scale: float, count: int) -> str:
        self.constant(f"{layer}.bias.codes", self.rng.integers(-500, 500, count).astype(np.int32))
        scales = next(numpy_helper.to_array(t) for t in self.stored if t.name == f"{layer}.weight.scale")
        self.constant(f"{layer}.bias.scale", (scales * scale).astype(np.float32))
        return self.node("DequantizeLinear", [f"{layer}.bias.codes", f"{layer}.bias.scale"], f"{layer}.b", axis=0)

    def save(self, path: Path, inputs: dict[str, list[int | str]], output: str, shape: list[int | str]) -> Path:
        graph = helper.make_graph(self.nodes, "g", [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in inputs.items()],
                                  [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)], self.stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))
        return path


def integers(path: Path, *, named: bool = True, size: int = 8) -> Path:
    """conv 3->8, ReLU; conv 8->8, added to the first's result, ReLU; mean; 8->5 linear: all in QDQ form."""
    build = Builder()
    x = build.pair("x")
    build.node("Conv", [x, build.weight("first", (8, 3, 3, 3)), build.bias("first", 0.02, 8)], "conv1", pads=[1, 1, 1, 1])
    build.node("Relu", ["conv1"], "a")
    a = build.pair("a")
    build.node("Conv", [a, build.weight("second", (8, 8, 3, 3)), build.bias("second", 0.03, 8)], "b", name="conv2", pads=[1, 1, 1, 1])
    build.node("Add", [build.pair("b"), a], "sum")
    build.node("Relu", ["sum"], "c")
    build.node("GlobalAveragePool", [build.pair("c")], "c.mean")
    build.constant("flat", np.array([0, -1], np.int64))
    build.node("Reshape", [build.pair("c.mean"), "flat"], "c.flat")
    build.node("Gemm", [build.pair("c.flat"), build.weight("head", (5, 8)), build.bias("head", 0.04, 5)], "y", name="head", transB=1)
    out = build.pair("y")
    if not named:
        for node in build.nodes:
            node.name = ""
    return build.save(path, {"x": ["batch", 3, size, size]}, out, ["batch", 5])


def floats(path: Path) -> Path:
    """conv 3->8, ReLU; conv 8->8, added to the first's result, ReLU; an identity; flatten and a matrix product, in floats."""
    build = Builder()
    for layer, shape in (("first", (8, 3, 3, 3)), ("second", (8, 8, 3, 3)), ("head", (512, 5))):
        build.constant(f"{layer}.weight", build.rng.normal(size=shape).astype(np.float32))
    build.node("Conv", ["x", "first.weight"], "conv1", pads=[1, 1, 1, 1])
    build.node("Relu", ["conv1"], "relu1")
    build.node("Conv", ["relu1", "second.weight"], "conv2", pads=[1, 1, 1, 1])
    build.node("Add", ["conv2", "relu1"], "sum")
    build.node("Relu", ["sum"], "relu2")
    build.node("Identity", ["relu2"], "same")
    build.node("Flatten", ["same"], "flat")
    build.node("MatMul", ["flat", "head.weight"], "y", name="head")
    return build.save(path, {"x": ["batch", 3, 8, 8]}, "y", ["batch", 5])
