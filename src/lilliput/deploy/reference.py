"""The integer reference: a quantized ONNX model in numpy, products summed as whole numbers.

Everything exported is judged against this executor. What DequantizeLinear gives remembers its codes, and Conv, Gemm and MatMul of
two such tensors sum `(q_x - z_x)(q_w - z_w)` exactly and scale once; whatever an integer runtime does not say (softmax,
normalisation) is computed in float64, and QuantizeLinear rounds half to even.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from lilliput.core.errors import PreconditionError

Array = NDArray[Any]
# Whole numbers up to here are exact in float64, in which numpy multiplies matrices fast.
_EXACT = 2.0**53


class Codes(np.ndarray[Any, Any]):
    """Real values, float64, that remember the whole numbers they are: `codes * scale`, `scale` broadcasting over them."""

    codes: Array | None
    scale: Array | None

    def __array_finalize__(self, source: Any) -> None:
        """Results of arithmetic are plain values."""
        self.codes = self.scale = None


def real(codes: Array, scale: Array) -> Codes:
    """`codes * scale` as values that remember both."""
    out = np.asarray(codes * scale).view(Codes)
    out.codes, out.scale = codes, scale
    return out


def _along(values: Array, ndim: int, axis: int) -> Array:
    return values.reshape([-1 if dim == axis % ndim else 1 for dim in range(ndim)]) if values.ndim else values


class DequantizeLinear(OpRun):
    """`(q - z) s` in float64."""

    def _run(self, q: Array, scale: Array, zero_point: Array | None = None, axis: int = 1, **_: Any) -> tuple[Array]:
        codes = np.asarray(q).astype(np.int64)
        if zero_point is not None:
            codes = codes - _along(np.asarray(zero_point).astype(np.int64), q.ndim, axis)
        return (real(codes, _along(np.asarray(scale, np.float64), q.ndim, axis)),)


class QuantizeLinear(OpRun):
    """`clip(rint(x / s) + z)`, half to even, to the range of the zero point's type."""

    def _run(self, x: Array, scale: Array, zero_point: Array, axis: int = 1, **_: Any) -> tuple[Array]:
        kind = np.asarray(zero_point).dtype
        limits = ml_dtypes.iinfo(kind)  # type: ignore[no-untyped-call]
        codes = np.rint(np.asarray(x, np.float64) / _along(np.asarray(scale, np.float64), x.ndim, axis))
        codes = codes + _along(np.asarray(zero_point).astype(np.float64), x.ndim, axis)
        return (np.clip(codes, float(limits.min), float(limits.max)).astype(kind),)


def _product(a: Array, b: Array, ndim: int, axis: int) -> tuple[Array, Array, Array]:
    """Left and right factors as whole numbers where both have them, and the scale of their product along `axis` of `ndim`."""
    if isinstance(a, Codes) and isinstance(b, Codes) and a.codes is not None and b.codes is not None:
        assert a.scale is not None
        assert b.scale is not None
        if a.scale.size == 1:
            scale = a.scale.reshape(()) * _along(b.scale.reshape(-1) if b.scale.size > 1 else b.scale.reshape(()), ndim, axis)
            return a.codes.astype(np.float64), b.codes.astype(np.float64), scale
    return np.asarray(a, np.float64), np.asarray(b, np.float64), np.ones(())


def _summed(total: Array, scale: Array) -> Array:
    if scale.size and float(np.abs(total).max(initial=0.0)) >= _EXACT:
        raise PreconditionError("a sum of products leaves the whole numbers that float64 holds exactly; the layer is too wide for this executor")
    return total * scale


class MatMul(OpRun):
    """Products of codes summed as whole numbers."""

    def _run(self, a: Array, b: Array) -> tuple[Array]:
        left, right, scale = _product(a, b, max(np.ndim(a), np.ndim(b)), -1)
        return (_summed(np.matmul(left, right), scale),)


class Gemm(OpRun):
    """The same with a bias."""

    def _run(self, a: Array, b: Array, c: Array | None = None, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
             transB: int = 0) -> tuple[Array]:
        left, right, scale = _product(a, b, 2, -1)
        out = alpha * _summed(np.matmul(left.T if transA else left, right.T if transB else right), scale)
        return (out if c is None else out + beta * np.asarray(c, np.float64),)


class Conv(OpRun):
    """Convolution over any number of spatial dimensions, products summed as whole numbers."""

    def _run(self, x: Array, w: Array, b: Array | None = None, auto_pad: str | None = None, dilations: Sequence[int] | None = None,
             group: int = 1, kernel_shape: Sequence[int] | None = None, pads: Sequence[int] | None = None,  # noqa: ARG002
             strides: Sequence[int] | None = None) -> tuple[Array]:
        if auto_pad not in (None, "NOTSET", "VALID"):
            raise PreconditionError(f"auto_pad={auto_pad} has no explicit padding; export the model again with pads")
        spatial = x.ndim - 2
        left, right, scale = _product(x, w, x.ndim, 1)
        pads = list(pads or [0] * 2 * spatial)
        left = np.pad(left, [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)])
        windows = _windows(left, w.shape[2:], list(strides or [1] * spatial), list(dilations or [1] * spatial))
        # (N, C, *out, *kernel) -> (group, N, *out, C/group * kernel)
        count, size = x.shape[0], windows.shape[2: 2 + spatial]
        windows = windows.reshape(count, group, -1, *size, int(np.prod(w.shape[2:])))
        windows = np.moveaxis(windows, (1, 2), (0, -2)).reshape(group, count * int(np.prod(size)), -1)
        kernels = right.reshape(group, w.shape[0] // group, -1)
        total = np.matmul(windows, np.swapaxes(kernels, 1, 2)).reshape(group, count, *size, -1)
        total = np.moveaxis(total, (0, -1), (1, 2)).reshape(count, w.shape[0], *size)
        out = _summed(total, scale)
        return (out if b is None else out + _along(np.asarray(b, np.float64), x.ndim, 1),)


def _windows(x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """Windows `(N, C, *out, *kernel)` of a padded input."""
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    axes = tuple(range(2, x.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilations))
    return windows[steps]


class MaxPool(OpRun):
    """The largest value of each window."""

    def _run(self, x: Array, auto_pad: str | None = None, ceil_mode: int = 0, dilations: Sequence[int] | None = None,
             kernel_shape: Sequence[int] | None = None, pads: Sequence[int] | None = None, storage_order: int = 0,
             strides: Sequence[int] | None = None) -> tuple[Array]:
        if auto_pad not in (None, "NOTSET", "VALID") or ceil_mode or storage_order or kernel_shape is None:
            raise PreconditionError("MaxPool with auto_pad, ceil_mode or storage_order is not in the reference; use explicit padding")
        spatial = x.ndim - 2
        pads = list(pads or [0] * 2 * spatial)
        padded = np.pad(np.asarray(x, np.float64), [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)], constant_values=-np.inf)
        windows = _windows(padded, kernel_shape, list(strides or [1] * spatial), list(dilations or [1] * spatial))
        return (windows.max(axis=tuple(range(2 + spatial, 2 + 2 * spatial))),)


_OPERATORS = [DequantizeLinear, QuantizeLinear, MatMul, Gemm, Conv, MaxPool]


class Reference:
    """A quantized ONNX model in exact arithmetic: call it with a batch for each input."""

    def __init__(self, path: str | PathLike[str]) -> None:
        """Read the file; raises `CorruptFileError` when it cannot be read."""
        from lilliput.deploy.onnx import read

        self.model: onnx.ModelProto = _wide(read(path))
        self._evaluator = ReferenceEvaluator(self.model, new_ops=_OPERATORS)

    def __call__(self, *arrays: Array) -> Array:
        """The first output, float64, for one batch `(N, ...)` per input."""
        return self.values(*arrays)[self.model.graph.output[0].name]

    def values(self, *arrays: Array, given: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Every tensor of the graph by name; readers of a tensor in `given` read that one in place of what is computed here."""
        names = [value.name for value in self.model.graph.input]
        feeds = {name: np.asarray(x, np.float64) if x.dtype.kind == "f" else x for name, x in zip(names, arrays, strict=True)}
        evaluator = self._evaluator if not given else ReferenceEvaluator(_reading(self.model, given), new_ops=_OPERATORS)
        found = evaluator.run(None, feeds | {f"{name}.given": x for name, x in (given or {}).items()}, intermediate=True)
        assert isinstance(found, dict)
        return {name: np.asarray(value) for name, value in found.items() if isinstance(value, np.ndarray)}


def _wide(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its real constants in float64: numpy widens them by itself, onnx's operators refuse to."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    return model


def _reading(model: onnx.ModelProto, given: Mapping[str, Array]) -> onnx.ModelProto:
    """The model whose readers of a given tensor read a new input, `NAME.given`."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        for i, name in enumerate(node.input):
            if name in given:
                node.input[i] = f"{name}.given"
    for name in given:
        changed.graph.input.append(onnx.helper.make_tensor_value_info(f"{name}.given", onnx.TensorProto.UNDEFINED, None))
    return changed
