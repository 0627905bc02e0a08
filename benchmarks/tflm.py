"""Programs lowered from LiteRT files beside TFLite Micro, and beside LiteRT operator by operator.

    LILLIPUT_DATA=... python -m benchmarks.tflm --json benchmarks/results/tflm.json [MODEL ...]

The full-integer models of MLPerf Tiny (`mlperf_tiny/*.tflite` in a folder of `LILLIPUT_DATA`). 1,000 inputs: codes uniform over the range of int8, and
as many normal ones, of a spread and about a centre of each input's own. `equal`: inputs for which every output code is the same; `largest`: the
largest difference of an output code; `equal_once`: equal where our linear layers round once, as those of LiteRT's plain kernels do. `operators`: on 50 inputs, where ours reads what theirs gave, differing codes, all codes, largest difference;
operators without differences are left out. `arena`: bytes that TFLite Micro takes on this host; `beside`: memory, flash and
instructions of both runtimes on this host (`lilliput deploy --beside-tflm`). Peers run in `.venv-litert` (`make test-litert`).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import LITERT, run
from benchmarks.results import main
from lilliput.deploy.c import Program, beside_micro, lower
from lilliput.deploy.c.arithmetic import SingleRounding
from lilliput.deploy.tflite.schema import Model, read

MODELS = ("pretrainedResnet_quant", "kws_ref_model", "ad01_int8")
_INPUTS, _INNER = 1000, 50


def find(name: str) -> Path:
    """The file of a model."""
    for folder in filter(None, os.environ.get("LILLIPUT_DATA", "").split(os.pathsep)):
        path = Path(folder) / "mlperf_tiny" / f"{name}.tflite"
        if path.is_file():
            return path
    raise FileNotFoundError(f"mlperf_tiny/{name}.tflite is in no folder of LILLIPUT_DATA; the model is in github.com/mlcommons/tiny")


def inputs(shape: tuple[int, ...]) -> np.ndarray:
    """Codes `(N, ...)`, uniform ones and normal ones in turn."""
    g = np.random.default_rng(0)
    codes = g.integers(-128, 128, (_INPUTS, *shape[1:]))
    for k in range(1, _INPUTS, 2):
        codes[k] = np.clip(np.rint(g.normal(g.uniform(-100, 100), g.uniform(5, 60), shape[1:])), -128, 127)
    return codes.astype(np.int8)


def tensors(program: Program, model: Model) -> dict[str, str]:
    """The number in the file of the tensor that each step computes, by the name of its buffer."""
    return {step.output.name: str(model.operators[int(step.output.name.rsplit("_", 1)[1])].outputs[0]) for step in program}


def operators(program: Program, codes: np.ndarray, theirs: dict[str, np.ndarray], numbers: dict[str, str]) -> dict[str, list[int]]:
    """Differing codes, all codes and the largest difference of each operator, reading what theirs gave."""
    found = {step.output.name: [0, 0, 0] for step in program}
    for k in range(_INNER):
        given = {step.output: theirs[numbers[step.output.name]][k].astype(np.int64).reshape(step.output.shape) for step in program}
        given[program.inputs[0].buffer] = program.inputs[0].placed(codes[k: k + 1]).astype(np.int64)
        for step in program:
            difference = np.abs(step.run([given[buffer] for buffer in step.inputs], program.rounding) - given[step.output])
            row = found[step.output.name]
            row[:] = [row[0] + int((difference > 0).sum()), row[1] + difference.size, max(row[2], int(difference.max()))]
    return {name: row for name, row in found.items() if row[0]}


def once(program: Program, codes: np.ndarray) -> np.ndarray:
    """The program's output for one input where sums of linear layers are rescaled in one rounding."""
    found = {buffer: array.astype(np.int64) for buffer, array in program.constants.items()}
    found[program.inputs[0].buffer] = codes.astype(np.int64)
    for step in program:
        rounding = SingleRounding() if step.output.name.startswith("FULLY_CONNECTED") else program.rounding
        found[step.output] = step.run([found[buffer] for buffer in step.inputs], rounding)
    return found[program.outputs[0].buffer]


def row(name: str) -> dict[str, Any]:
    """One model."""
    path = find(name)
    model, program = read(path), lower(path)
    port, codes = program.outputs[0], inputs(model.tensors[model.inputs[0]].shape)
    placed = [program.inputs[0].placed(codes[k: k + 1]) for k in range(_INPUTS)]
    ours, rounded = (np.stack([found.reshape(-1)[port.positions] for found in rows]).astype(np.int64)
                     for rows in ((program(one)[0] for one in placed), (once(program, one) for one in placed)))
    numbers = tensors(program, model)
    out: dict[str, Any] = {"inputs": _INPUTS, "distinct_outputs": len(np.unique(ours.reshape(_INPUTS, -1), axis=0))}
    with tempfile.TemporaryDirectory() as folder:
        for kernels in ("micro", "reference", "builtin", "delegate"):
            np.save(f"{folder}/codes.npy", codes)
            done = run("peer_tflm", kernels, str(path), f"{folder}/codes.npy", f"{folder}/out.npz", "output", python=LITERT, threads=1)
            theirs = np.load(f"{folder}/out.npz")["output"].astype(np.int64).reshape(ours.shape)
            difference, alike = (np.abs(theirs - found).reshape(_INPUTS, -1).max(1) for found in (ours, rounded))
            out[kernels] = {**done, "equal": int((difference == 0).sum()), "largest": int(difference.max()), "equal_once": int((alike == 0).sum())}
            if kernels != "delegate":
                np.save(f"{folder}/codes.npy", codes[:_INNER])
                run("peer_tflm", kernels, str(path), f"{folder}/codes.npy", f"{folder}/out.npz", *numbers.values(), python=LITERT, threads=1)
                out[kernels]["operators"] = operators(program, codes, dict(np.load(f"{folder}/out.npz")), numbers)
    return out | {"beside": [asdict(costs) for costs in beside_micro(path, python=LITERT)]}


if __name__ == "__main__":
    main(row, MODELS, threads=1)
