"""What stands in a `.tflite` file: its operators, their tensors, scales and zero points."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.core.atomic import write_bytes
from lilliput.core.errors import CorruptFileError
from lilliput.deploy.litert.extra import needed

_IDENTIFIER = b"TFL3"
_INTEGERS = ("INT4", "INT8", "INT16", "INT32", "INT64", "UINT8", "BOOL")


@dataclass(frozen=True, kw_only=True)
class Value:
    """One tensor: `scale` and `zero_point` are `(1,)` or `(channels,)` along `axis`, empty where it has none; `data` of constants."""

    index: int
    name: str
    kind: str
    shape: tuple[int, ...]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int
    data: NDArray[Any] | None

    @property
    def integer(self) -> bool:
        """Whether it holds integers (or truth values)."""
        return self.kind in _INTEGERS


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator with its tensors; `None` stands for an input left out."""

    kind: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]

    @property
    def float_values(self) -> tuple[Value, ...]:
        """Tensors that are no integers."""
        return tuple(value for value in (*self.inputs, *self.outputs) if value is not None and not value.integer)


class File:
    """A `.tflite` file of one graph, read; `rename` and `write` make another."""

    def __init__(self, data: bytes, name: str = "the file") -> None:
        """Parse the bytes; raises `CorruptFileError`."""
        self._schema = needed("ai_edge_litert.schema_py_generated")
        if data[4:8] != _IDENTIFIER:
            raise CorruptFileError(f"{name} is not a LiteRT file: it lacks the identifier TFL3. Copy it again from its source, or export it again")
        try:
            self._model = self._schema.ModelT.InitFromPackedBuf(data, 0)
            self._graph = self._model.subgraphs[0]
            self.values = tuple(self._value(index) for index in range(len(self._graph.tensors)))
            self.operators = tuple(self._operator(operator) for operator in self._graph.operators)
            self.inputs = tuple(self.values[index] for index in self._graph.inputs)
            self.outputs = tuple(self.values[index] for index in self._graph.outputs)
        except Exception as error:  # the generated reader checks nothing, so anything may come
            raise CorruptFileError(f"{name} cannot be read as a LiteRT file: {type(error).__name__} {error}. Export it again") from error

    @classmethod
    def read(cls, path: str | PathLike[str]) -> File:
        """Read a file; raises `CorruptFileError`, and `FileNotFoundError` when there is none."""
        return cls(Path(path).read_bytes(), str(path))

    def _names(self, table: str) -> dict[int, str]:
        return {code: name for name, code in vars(getattr(self._schema, table)).items() if not name.startswith("_")}

    def _value(self, index: int) -> Value:
        tensor, kinds = self._graph.tensors[index], self._names("TensorType")
        found, raw = tensor.quantization, self._model.buffers[tensor.buffer].data
        scale = found.scale if found is not None and found.scale is not None else ()
        zero_point = found.zeroPoint if found is not None and found.zeroPoint is not None else ()
        kind, shape = kinds[tensor.type], tuple(int(size) for size in (() if tensor.shape is None else tensor.shape))
        data = None
        if raw is not None and len(raw) and kind in (*_INTEGERS[1:], "FLOAT32"):
            data = np.frombuffer(bytes(raw), np.dtype(kind.lower())).reshape(shape)
        return Value(index=index, name=tensor.name.decode(), kind=kind, shape=shape, scale=np.asarray(scale, np.float32),
                     zero_point=np.asarray(zero_point, np.int64), axis=found.quantizedDimension if found is not None else 0, data=data)

    def _operator(self, operator: Any) -> Operator:
        code = self._model.operatorCodes[operator.opcodeIndex]
        kind = self._names("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return Operator(kind=kind, inputs=tuple(self.values[i] if i >= 0 else None for i in operator.inputs),
                        outputs=tuple(self.values[i] for i in operator.outputs))

    def rename(self, names: dict[int, str]) -> File:
        """Give tensors other names; inputs and outputs bear theirs in the signature, too."""
        for index, name in names.items():
            self._graph.tensors[index].name = name.encode()
        for signature in self._model.signatureDefs or ():
            for entry in (*signature.inputs, *signature.outputs):
                entry.name = names.get(entry.tensorIndex, entry.name.decode()).encode()
        return File(self._packed())

    def _packed(self) -> bytes:
        builder = needed("flatbuffers").Builder(1024)
        builder.Finish(self._model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the file; it appears whole or not at all."""
        write_bytes(path, self._packed())
        return Path(path)
