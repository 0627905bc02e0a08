"""Running the same codes here and in TFLite Micro."""

import os
from pathlib import Path

import numpy as np
import pytest

from lilliput.deploy.c import lower
from lilliput.deploy.tflite import to_onnx

REAL = ("pretrainedResnet_quant", "kws_ref_model", "ad01_int8")
# The interpreter's own estimate is ten times the file, and too little memory for a small file ends the process.
_ARENA = 1 << 20


def real_model(name):
    """A model of MLPerf Tiny, where `LILLIPUT_DATA` has it."""
    for folder in filter(None, os.environ.get("LILLIPUT_DATA", "").split(os.pathsep)):
        path = Path(folder) / "mlperf_tiny" / f"{name}.tflite"
        if path.is_file():
            return path
    pytest.skip("LILLIPUT_DATA has no mlperf_tiny")


def samples(program, count=16, seed=0):
    """Codes in the model's shapes, for every input; over the whole range, and close together."""
    g = np.random.default_rng(seed)
    for k in range(count):
        low, high = (-128, 128) if k % 2 else sorted(g.choice(np.arange(-128, 129), 2, replace=False))
        yield [g.integers(low, high, port.shape, dtype=np.int8) for port in program.inputs]


def ours(program, codes):
    """The codes of the outputs in the model's shapes."""
    found = program(*[port.placed(array) for port, array in zip(program.inputs, codes, strict=True)])
    return [out.reshape(-1)[port.positions] for port, out in zip(program.outputs, found, strict=True)]


class Micro:
    """TFLite Micro with a model."""

    def __init__(self, data):
        runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="tflite-micro is not installed: make test-litert")
        self._interpreter = runtime.Interpreter.from_bytes(bytes(data), arena_size=_ARENA)

    def __call__(self, codes, outputs):
        for k, array in enumerate(codes):
            self._interpreter.set_input(array, k)
        self._interpreter.invoke()
        return [np.array(self._interpreter.get_output(k)) for k in range(outputs)]


def differences(data, count=16):
    """How far our codes are from TFLite Micro's, all outputs of all samples in one."""
    micro, program = Micro(data), lower(to_onnx(data))
    found = []
    for codes in samples(program, count):
        theirs = micro(codes, len(program.outputs))
        found += [(a.astype(int) - b.reshape(a.shape)).reshape(-1) for a, b in zip(ours(program, codes), theirs, strict=True)]
    return np.concatenate(found)
