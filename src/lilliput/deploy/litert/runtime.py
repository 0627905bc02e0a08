"""The interpreters that run a `.tflite` file, with a choice of kernels."""

from __future__ import annotations

from enum import Enum
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import CorruptFileError, DataError, PreconditionError
from lilliput.deploy.litert.extra import needed, quiet
from lilliput.deploy.litert.flatbuffer import File, Value
from lilliput.deploy.runtime import Split, accuracy

Array = NDArray[Any]


class Kernels(Enum):
    """Who computes: each rounds in its own way.

    `DELEGATE`: LiteRT as it comes, XNNPACK's kernels, whose inner tensors cannot be read. `BUILTIN`: LiteRT's own kernels for this
    processor. `REFERENCE`: LiteRT's plain kernels. `MICRO`: TFLite Micro, as on a microcontroller (package `tflite-micro`).
    """

    DELEGATE = "AUTO"
    BUILTIN = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    REFERENCE = "BUILTIN_REF"
    MICRO = "MICRO"


class _LiteRT:
    def __init__(self, path: Path, kernels: Kernels, threads: int) -> None:
        module = needed("ai_edge_litert.interpreter")
        self._interpreter = module.Interpreter(
            model_path=str(path), num_threads=threads, experimental_op_resolver_type=module.OpResolverType[kernels.value],
            experimental_preserve_all_tensors=kernels is not Kernels.DELEGATE)
        self._interpreter.allocate_tensors()

    def run(self, inputs: list[tuple[Value, Array]]) -> None:
        for value, array in inputs:
            self._interpreter.set_tensor(value.index, array)
        self._interpreter.invoke()

    def value(self, value: Value) -> Array:
        return np.array(self._interpreter.get_tensor(value.index))


# Bytes of working memory: what the interpreter guesses from a small file is too little, and it does not say so.
_ARENA = 1 << 24


class _Micro:
    def __init__(self, path: Path) -> None:
        module = needed("tflite_micro.python.tflite_micro.runtime")
        self._interpreter = module.Interpreter.from_file(str(path), arena_size=_ARENA,
                                                         intrepreter_config=module.InterpreterConfig.kPreserveAllTensors)

    def run(self, inputs: list[tuple[Value, Array]]) -> None:
        for position, (_, array) in enumerate(inputs):
            self._interpreter.set_input(array, position)
        self._interpreter.invoke()

    def value(self, value: Value) -> Array:
        return np.array(self._interpreter.GetTensor(value.index, 0)["tensor_data"])


class Session:
    """A full-integer file in an interpreter: call it with batches of real values, or evaluate a split.

    Real values become codes and codes real values out here, `q = clip(round(x / s) + z, -128, 127)` half to even; the file is
    integer throughout, and takes one sample at a time.
    """

    def __init__(self, path: str | PathLike[str], *, kernels: Kernels = Kernels.DELEGATE, threads: int = 1) -> None:
        """Open the file; raises `CorruptFileError` when it cannot be read or run, `FileNotFoundError` when there is none."""
        if threads < 1:
            raise PreconditionError(f"a session needs at least one thread, not {threads}")
        self.path, self.kernels, self.file = Path(path), kernels, File.read(path)
        self._readable = {value.index for operator in self.file.operators for value in operator.outputs} | {v.index for v in self.file.inputs}
        try:
            with quiet():
                self._interpreter = _Micro(self.path) if kernels is Kernels.MICRO else _LiteRT(self.path, kernels, threads)
        except PreconditionError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise CorruptFileError(f"the interpreter ({kernels.name.lower()}) cannot run {self.path}: {reason}. Export it again") from error

    def __call__(self, *arrays: Array) -> Array:
        """The first output, float32, for one batch `(N, ...)` per input; raises `DataError` where shapes do not fit."""
        output = self.file.outputs[0]
        rows = [self._of(output) for _ in self._samples(arrays)]
        return decode(np.concatenate(rows), output)

    def values(self, *arrays: Array) -> dict[int, Array]:
        """The codes of every tensor that is computed, `(N, ...)`, by its index in the file.

        Raises `PreconditionError` with `Kernels.DELEGATE`, which does not keep them.
        """
        if self.kernels is Kernels.DELEGATE:
            raise PreconditionError("the delegate does not keep inner tensors: pass kernels=Kernels.BUILTIN, REFERENCE or MICRO")
        found: dict[int, list[Array]] = {index: [] for index in sorted(self._readable)}
        for _ in self._samples(arrays):
            for index, rows in found.items():
                rows.append(self._of(self.file.values[index]))
        return {index: np.concatenate(rows) for index, rows in found.items()}

    def _samples(self, arrays: tuple[Array, ...]) -> Any:
        """Run sample after sample."""
        inputs = self.file.inputs
        if len(arrays) != len(inputs):
            raise DataError(f"{self.path} takes {len(inputs)} inputs ({', '.join(value.name for value in inputs)}), not {len(arrays)}")
        if not len(arrays[0]) or any(array.shape[1:] != value.shape[1:] or len(array) != len(arrays[0])
                                     for array, value in zip(arrays, inputs, strict=True)):
            raise DataError(f"{self.path} cannot take {[array.shape for array in arrays]}; it wants batches of {[v.shape[1:] for v in inputs]}")
        codes = [encode(np.asarray(array), value) for array, value in zip(arrays, inputs, strict=True)]
        for i in range(len(codes[0])):
            self._interpreter.run([(value, np.ascontiguousarray(batch[i: i + 1])) for value, batch in zip(inputs, codes, strict=True)])
            yield i

    def _of(self, value: Value) -> Array:
        return self._interpreter.value(value).reshape(value.shape)

    def evaluate(self, split: Split, *, batch_size: int = 256) -> float:
        """Top-1 accuracy in percent, over all labels where a sample has several; raises `DataError` for an empty split."""
        return accuracy(self, split, batch_size)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size


def encode(array: Array, value: Value) -> Array:
    """Real values as codes of the tensor; whole numbers pass."""
    if array.dtype.kind != "f" or not value.scale.size:
        return array.astype(value.kind.lower())
    limits = np.iinfo(value.kind.lower())
    codes = np.rint(array.astype(np.float32) / value.scale) + value.zero_point.astype(np.float32)
    clipped: Array = np.clip(codes, limits.min, limits.max).astype(value.kind.lower())
    return clipped


def decode(codes: Array, value: Value) -> Array:
    """`(q - z) s` in float32; unquantized tensors pass."""
    if not value.scale.size:
        return codes
    out: Array = (codes.astype(np.float32) - value.zero_point.astype(np.float32)) * value.scale
    return out
