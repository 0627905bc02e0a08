"""LiteRT and TFLite Micro in `.venv-litert`: the codes that their kernels compute for codes of one input.

    .venv-litert/bin/python -m benchmarks.peer_tflm KERNELS MODEL.tflite CODES.npy OUT.npz TENSOR...

KERNELS is `micro` (TFLite Micro), or LiteRT's `reference`, `builtin` or `delegate`; CODES int8 `(N, ...)`; TENSOR are the numbers of tensors in
the file, `output` the first output, which alone `delegate` can give. OUT holds each `(N, ...)` under its name. Prints the version; `micro` also the
bytes of its arena on this host, as the interpreter records them.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

_RESOLVERS = {"reference": "BUILTIN_REF", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "delegate": "AUTO"}
_ARENA = 1 << 24


class Micro:
    """TFLite Micro, every tensor kept."""

    def __init__(self, path: str) -> None:
        from tflite_micro.python.tflite_micro import runtime

        self._interpreter = runtime.Interpreter.from_file(path, arena_size=_ARENA, intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors)

    def run(self, codes: np.ndarray) -> None:
        """One input."""
        self._interpreter.set_input(codes, 0)
        self._interpreter.invoke()

    def value(self, tensor: str) -> np.ndarray:
        """The codes of a tensor."""
        return np.array(self._interpreter.get_output(0) if tensor == "output" else self._interpreter.GetTensor(int(tensor), 0)["tensor_data"])


class LiteRT:
    """LiteRT with its plain kernels, with those for this processor, or as it comes, with XNNPACK."""

    def __init__(self, path: str, kernels: str) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self._interpreter = Interpreter(model_path=path, num_threads=1, experimental_op_resolver_type=OpResolverType[_RESOLVERS[kernels]],
                                        experimental_preserve_all_tensors=kernels != "delegate")
        self._interpreter.allocate_tensors()
        self._input, self._output = (details[0]["index"] for details in (self._interpreter.get_input_details(), self._interpreter.get_output_details()))

    def run(self, codes: np.ndarray) -> None:
        """One input."""
        self._interpreter.set_tensor(self._input, codes)
        self._interpreter.invoke()

    def value(self, tensor: str) -> np.ndarray:
        """The codes of a tensor."""
        return np.array(self._interpreter.get_tensor(self._output if tensor == "output" else int(tensor)))


def arena(path: str, codes: np.ndarray) -> dict[str, int]:
    """Bytes of TFLite Micro's arena on this host, as its recording allocator prints them to stderr."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(path, arena_size=_ARENA)
    interpreter.set_input(codes[:1], 0)
    interpreter.invoke()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        text = file.read().decode(errors="replace")
    return {name: int(found[1]) for name in ("total", "head", "tail") if (found := re.search(rf"Arena allocation {name} (\d+)", text))}


def main() -> None:
    kernels, path, codes, out, *tensors = sys.argv[1], sys.argv[2], np.load(sys.argv[3]), Path(sys.argv[4]), *sys.argv[5:]
    interpreter = Micro(path) if kernels == "micro" else LiteRT(path, kernels)
    found: dict[str, list[np.ndarray]] = {tensor: [] for tensor in tensors}
    for k in range(len(codes)):
        interpreter.run(codes[k: k + 1])
        for tensor, rows in found.items():
            rows.append(interpreter.value(tensor))
    np.savez(out, **{tensor: np.stack(rows) for tensor, rows in found.items()})
    print(json.dumps({"version": version("tflite-micro" if kernels == "micro" else "ai-edge-litert"),
                      **({"arena": arena(path, codes)} if kernels == "micro" else {})}))


if __name__ == "__main__":
    main()
