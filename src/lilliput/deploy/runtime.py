"""ONNX Runtime with a chosen number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
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


def open_session(model: bytes | str, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU: one operator after the other, each on `threads` threads."""
    import onnxruntime

    if threads < 1:
        raise PreconditionError(f"a session needs at least one thread, not {threads}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


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
            reason = " ".join(str(error).split())[:300]
            raise CorruptFileError(f"ONNX Runtime cannot run {self.path}: {reason}. Export it again, or update onnxruntime") from error
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
