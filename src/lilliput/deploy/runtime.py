"""ONNX Runtime with a chosen number of threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor

from lilliput.core.errors import CorruptFileError, DataError, PreconditionError

Array = NDArray[Any]


class Split(Protocol):
    """What `evaluate` needs of a data split."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every sample in order, with its label."""
        ...


def session_options(threads: int) -> Any:
    """Options of a session that runs one operator after the other, each on `threads` threads; it says nothing."""
    import onnxruntime

    if threads < 1:
        raise PreconditionError(f"a session needs at least one thread, not {threads}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    return options


def open_session(model: bytes | str, threads: int, options: Any = None) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU, with the options of `session_options(threads)` or those given."""
    import onnxruntime

    return onnxruntime.InferenceSession(model, session_options(threads) if options is None else options, providers=["CPUExecutionProvider"])


def cannot_run(path: str | PathLike[str], error: Exception) -> CorruptFileError:
    """What ONNX Runtime's refusal of a file is to the user."""
    reason = " ".join(str(error).split())[:300]
    return CorruptFileError(f"ONNX Runtime cannot run {path}: {reason}. Export it again, or update onnxruntime")


def noise(path: str | PathLike[str], input_shape: tuple[int, ...] | None = None) -> dict[str, Array]:
    """A batch of one for every input of the file: normal noise, zeros where it takes integers or truth values.

    `input_shape` is the shape without the batch, where the file leaves it open. Raises `PreconditionError` for an open
    shape, an input that is no tensor of numbers, and more than 2^28 values.
    """
    from lilliput.deploy.onnx import read

    graph = read(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if input_shape is not None and len(inputs) != 1:
        raise PreconditionError(f"{path} has {len(inputs)} inputs, and one input shape was given; export it with fixed shapes instead")
    return {value.name: _noise(path, value, input_shape) for value in inputs}


def _noise(path: str | PathLike[str], value: onnx.ValueInfoProto, input_shape: tuple[int, ...] | None) -> Array:
    tensor = value.type.tensor_type
    if tensor.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        raise PreconditionError(f"the input {value.name!r} of {path} is no tensor of numbers, so no sample can be made for it")
    dims = [dim.dim_value for dim in tensor.shape.dim]
    shape = input_shape or tuple(dims[1:])
    if not all(shape):
        raise PreconditionError(f"{path} leaves its input shape open; give it without the batch: --input-shape 3,224,224")
    whole = ((dims[0] or 1), *shape) if dims or input_shape else ()
    if math.prod(whole) > 1 << 28:
        raise PreconditionError(f"{path} asks for an input of {math.prod(whole):,} values; give a smaller --input-shape")
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if kind.kind in "iub":
        return np.zeros(whole, kind)
    return np.asarray(np.random.default_rng(0).standard_normal(whole)).astype(kind)


def accuracy(predict: Callable[[Array], Array], split: Split, batch_size: int) -> float:
    """Top-1 accuracy in percent, over all labels where a sample has several; raises `DataError` for an empty split."""
    right = total = 0
    for images, labels in split.batches(batch_size):
        found = predict(np.ascontiguousarray(images.numpy())).argmax(-1)
        right += int((found == labels.numpy()).sum())
        total += labels.numel()
    if not total:
        raise DataError("the split is empty, so there is no accuracy")
    return 100.0 * right / total


class Session:
    """A model in ONNX Runtime: call it with a batch, or evaluate a split."""

    def __init__(self, path: str | PathLike[str], threads: int = 1) -> None:
        """Open the file; raises `CorruptFileError` when it cannot be read or run, `FileNotFoundError` when there is none."""
        from lilliput.deploy.onnx import read

        self.path, self.threads = Path(path), threads
        read(self.path)
        try:
            self._session = open_session(str(self.path), threads)
        except PreconditionError:
            raise
        except Exception as error:
            raise cannot_run(self.path, error) from error
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def __call__(self, *arrays: Array) -> Array:
        """The first output for one batch `(N, ...)` per input; raises `DataError` where shape or type do not fit."""
        if len(arrays) != len(self.inputs):
            raise DataError(f"{self.path} takes {len(self.inputs)} inputs ({', '.join(self.inputs)}), not {len(arrays)}")
        try:
            result: Array = self._session.run([self.outputs[0]], dict(zip(self.inputs, arrays, strict=True)))[0]
        except Exception as error:
            shapes = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in self._session.get_inputs())
            raise DataError(f"{self.path} cannot take {[(a.dtype.name, a.shape) for a in arrays]}; it wants {shapes}") from error
        return result

    def evaluate(self, split: Split, *, batch_size: int = 256) -> float:
        """Top-1 accuracy in percent, over all labels where a sample has several; raises `DataError` for an empty split."""
        return accuracy(self, split, batch_size)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size
