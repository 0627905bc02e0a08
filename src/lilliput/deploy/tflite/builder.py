"""The ONNX graph under construction: every LiteRT tensor as int8 codes, as real values, and images in either order of axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lilliput.core.errors import PreconditionError
from lilliput.deploy.tflite.options import Activation
from lilliput.deploy.tflite.schema import Model, Operator, Quantization, Tensor

Array = NDArray[Any]
TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_LIMITS = {Activation.RELU: (0.0, math.inf), Activation.RELU6: (0.0, 6.0), Activation.RELU_N1_TO_1: (-1.0, 1.0)}
_REMEDY = "convert the network with full-integer quantization, int8 throughout"


class Builder:
    """Nodes so far, for one operator after the other; values bear the name of the operator that computes them.

    `first` asks for `(N, C, H, W)`, which ONNX computes on, of a tensor that LiteRT has as `(N, H, W, C)`: its codes are transposed where
    they are not at hand in that order.
    """

    def __init__(self, model: Model) -> None:
        """An empty graph."""
        self.model = model
        self.operator: Operator | None = None
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.codes_of: dict[tuple[int, bool], str] = {}
        self._real_of: dict[tuple[int, bool], str] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._names: set[str] = set()

    def unique(self, stem: str) -> str:
        """A name that no value has."""
        name = stem
        for k in range(1, len(self._names) + 2):
            if name not in self._names:
                break
            name = f"{stem}.{k}"
        self._names.add(name)
        return name

    @property
    def here(self) -> str:
        """The operator, for messages."""
        return self.operator.name if self.operator is not None else "the model"

    def corrupt(self, reason: str) -> Exception:
        """The error for what no converter writes."""
        return self.model.buffer.corrupt(f"{self.here} {reason}")

    def refused(self, reason: str, remedy: str = _REMEDY) -> PreconditionError:
        """The error for what is not read."""
        return PreconditionError(f"{self.model.buffer.name}: {self.here} {reason}; {remedy}")

    def node(self, kind: str, inputs: Sequence[str], suffix: str = "", attributes: Mapping[str, Any] | None = None) -> str:
        """A node with one output, named after the operator and `suffix`; its name."""
        stem = f"{self.operator.kind}_{self.operator.index}" if self.operator is not None else "input"
        output = self.unique(stem + suffix)
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **(attributes or {})))
        return output

    def constant(self, array: Array, stem: str = "constant") -> str:
        """An initializer; equal arrays are one."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.unique(stem)
            self.initializers[self._known[key]] = numpy_helper.from_array(np.array(array, array.dtype.newbyteorder("="), order="C"), self._known[key])
        return self._known[key]

    def tensor(self, place: int, *, output: bool = False) -> Tensor:
        """An input or output of the operator by its place; `CorruptFileError` where it is left out."""
        assert self.operator is not None
        places = self.operator.outputs if output else self.operator.inputs
        if place >= len(places) or places[place] < 0:
            raise self.corrupt(f"lacks its {'output' if output else 'input'} {place}")
        return self.model.tensors[places[place]]

    def optional(self, place: int) -> Tensor | None:
        """An input that may be left out."""
        assert self.operator is not None
        inputs = self.operator.inputs
        return self.model.tensors[inputs[place]] if place < len(inputs) and inputs[place] >= 0 else None

    def whole_numbers(self, place: int) -> list[int]:
        """A constant input of whole numbers: axes, sizes, paddings."""
        tensor = self.tensor(place)
        if tensor.kind not in ("int32", "int64"):
            raise self.corrupt(f"has an input {place} of type {tensor.kind}, which should be whole numbers")
        if tensor.array is None:
            raise self.refused(f"computes its input {place} at run time", "generated code has fixed shapes: make it a constant")
        if tensor.array.size > 64:
            raise self.corrupt(f"has {tensor.array.size} whole numbers as input {place}")
        return [int(n) for n in tensor.array.reshape(-1)]

    def grid(self, tensor: Tensor) -> Quantization:
        """Scale and zero point of an activation; `PreconditionError` where it has none, or not those of int8."""
        q = tensor.quantization
        if tensor.kind != "int8" or q is None:
            raise self.refused(f"has a tensor of type {tensor.kind}{'' if q is not None or tensor.kind != 'int8' else ' without a scale'} "
                               f"({tensor.name or tensor.index})")
        if 0 in tensor.shape:
            raise self.corrupt(f"has a tensor without elements, of shape {tensor.shape}")
        if q.scales.size != 1 or not -128 <= q.zeros[0] <= 127:
            raise self.corrupt(f"has an activation with {q.scales.size} scales and zero point {q.zeros[0]}")
        return q

    def grid_inputs(self, tensor: Tensor) -> list[str]:
        """Values that hold its scale and zero point, as QuantizeLinear and DequantizeLinear read them."""
        q = self.grid(tensor)
        return [self.constant(q.scales.reshape(()), "scale"), self.constant(q.zeros.astype(np.int8).reshape(()), "zero_point")]

    def codes(self, tensor: Tensor, first: bool = False) -> str:
        """The value that holds its codes; `CorruptFileError` where nothing has computed them yet."""
        key = (tensor.index, first)
        if key in self.codes_of:
            return self.codes_of[key]
        if (tensor.index, not first) in self.codes_of:
            found = self.node("Transpose", [self.codes_of[tensor.index, not first]], ".transposed", {"perm": TO_FIRST if first else TO_LAST})
        elif tensor.array is not None:
            self.grid(tensor)
            found = self.constant(tensor.array.transpose(TO_FIRST) if first else tensor.array, "codes")
        else:
            raise self.corrupt(f"reads tensor {tensor.index} before it is computed")
        self.codes_of[key] = found
        return found

    def real(self, tensor: Tensor, first: bool = False) -> str:
        """The value that holds its real values."""
        key = (tensor.index, first)
        if key not in self._real_of:
            codes = self.codes(tensor, first)
            self._real_of[key] = self.node("DequantizeLinear", [codes, *self.grid_inputs(tensor)], ".real")
        return self._real_of[key]

    def has_first(self, tensor: Tensor) -> bool:
        """Whether its codes are at hand as `(N, C, H, W)`, or it has none yet for it is a constant image."""
        return (tensor.index, True) in self.codes_of or (tensor.array is not None and len(tensor.shape) == 4)

    def give(self, tensor: Tensor, value: str, first: bool = False) -> None:
        """Quantize real values as the tensor."""
        self.keep(tensor, self.node("QuantizeLinear", [value, *self.grid_inputs(tensor)], ".codes"), first)

    def keep(self, tensor: Tensor, codes: str, first: bool = False) -> None:
        """Codes are those of the tensor; `CorruptFileError` where it has some already, or is a constant."""
        if tensor.array is not None or {(tensor.index, True), (tensor.index, False)} & self.codes_of.keys():
            raise self.corrupt(f"computes tensor {tensor.index} again")
        self.grid(tensor)
        self.codes_of[tensor.index, first] = codes

    def limited(self, value: str, activation: Activation, tensor: Tensor) -> str:
        """Real values after the fused activation; limits fall on the codes on which TensorFlow Lite has them."""
        if activation is Activation.NONE:
            return value
        if activation not in _LIMITS:
            raise self.refused(f"has the fused activation {activation.name}", "use RELU, RELU6 or RELU_N1_TO_1, or an operator of its own")
        if activation is Activation.RELU:
            return self.node("Relu", [value], ".relu")
        q = self.grid(tensor)
        limits = [self.constant(_limit(bound, q), "limit") for bound in _LIMITS[activation]]
        return self.node("Clip", [value, *limits], ".clip")


def _limit(bound: float, q: Quantization) -> Array:
    """The bound, or the value nearest to it whose code is that of TensorFlow Lite: `round(bound / s)` in float32, ties away from zero."""
    scale = q.scales.reshape(-1)[0]
    steps = np.float32(bound) / scale
    wanted = np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5))
    return np.asarray(bound if np.rint(bound / float(scale)) == wanted else wanted * scale, np.float32)
