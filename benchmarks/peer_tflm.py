"""LiteRT and TFLite Micro in `.venv-litert`: the codes that their kernels compute for codes of one input.

    .venv-litert/bin/python -m benchmarks.peer_tflm KERNELS MODEL.tflite CODES.npy OUT.npz [--inner]

KERNELS is `micro`, `reference`, `builtin` or `delegate`; CODES int8 `(N, ...)`. OUT holds the outputs under `output`, with `--inner` every computed
tensor `(N, ...)` under its number in the file. Prints the versions; `micro` also the bytes of its arena, as the interpreter records them.
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

from lilliput.deploy.litert import Kernels, Session


def arena(path: Path, codes: np.ndarray) -> dict[str, int]:
    """Bytes of TFLite Micro's arena on this host, as its recording allocator prints them to stderr."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(str(path))
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
    return {name: int(found[1]) for name, pattern in (("total", r"Arena allocation total (\d+)"), ("head", r"head (\d+)"), ("tail", r"tail (\d+)"))
            if (found := re.search(pattern, text))}


def main() -> None:
    """See above."""
    kernels, path, codes, out = Kernels[sys.argv[1].upper()], Path(sys.argv[2]), np.load(sys.argv[3]), Path(sys.argv[4])
    session = Session(path, kernels=kernels)
    output = session.file.outputs[0].index
    if "--inner" in sys.argv:
        found = session.values(codes)
    else:
        rows = [session._interpreter.value(session.file.outputs[0]) for _ in session._samples((codes,))]
        found = {output: np.concatenate(rows)}
    np.savez(out, output=found[output], **{str(index): array for index, array in found.items() if "--inner" in sys.argv})
    print(json.dumps({"ai_edge_litert": version("ai-edge-litert"), "tflite_micro": version("tflite-micro"),
                      **({"arena": arena(path, codes)} if kernels is Kernels.MICRO else {})}))


if __name__ == "__main__":
    main()
