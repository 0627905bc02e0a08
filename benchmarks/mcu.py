"""The four MLPerf Tiny networks as C code: memory, flash, instructions, time to generate, and equality on every processor.

    LILLIPUT_DATA=... python -m benchmarks.mcu --json benchmarks/results/mcu.json [CASE ...]

Image classification, keyword spotting and anomaly detection are the int8 models of MLPerf Tiny (`$LILLIPUT_DATA/mlperf_tiny`); visual
wake words is the zoo's MobileNetV1 0.25 at 96 x 96, `patches` its MobileNetV2 at 224 x 224, as it is and
with its receptive field redistributed, `few bits` its ResNet-8 at 32 x 32 with weights of
4 bits, then with activations of 4 bits too but for input and output, in bytes and packed; random weights, calibrated on noise: memory and instructions are those of any weights. `arena` is with inputs and outputs,
`plain` without overlap. Flash is of objects compiled for Cortex-M4 at -Os; instructions are of -O2.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import main
from lilliput import quantize, zoo
from lilliput.data import Normalize, Transforms, from_splits
from lilliput.deploy.c import Bytes, Coded, Packed, Plain, SubByte, harness, lower, to_c
from lilliput.deploy.c.plan import faults, plan
from lilliput.deploy.c.program import Program
from lilliput.deploy.c.storage import store
from lilliput.deploy.c.targets import TARGETS
from lilliput.deploy.onnx import export
from lilliput.deploy.redistribute import Redistribute
from lilliput.graph import trace
from lilliput.quantize.bits import Uniform
from lilliput.quantize.posttraining import Static
from lilliput.quantize.scheme import Scheme

FILES = {"image classification": "pretrainedResnet_quant", "keyword spotting": "kws_ref_model", "anomaly detection": "ad01_int8"}
ZOO: dict[str, tuple[str, dict[str, Any], int]] = {
    "visual wake words": ("mobilenet_v1", {"width": 0.25}, 96), "patches": ("mobilenet_v2", {}, 224),
    "patches, redistributed": ("mobilenet_v2", {}, 224), "few bits": ("resnet8", {}, 32),
    "few bits, activations too": ("resnet8", {}, 32)}
STORAGES = {"plain": Plain(), "packed": Packed(), "coded": Coded()}
ARENAS = {"bytes": Bytes(), "sub_byte": SubByte()}
_SAMPLES = 8


def _model(case: str, folder: Path) -> Path:
    if case in FILES:
        return Path(os.environ["LILLIPUT_DATA"]) / "mlperf_tiny" / f"{FILES[case]}.tflite"
    name, options, size = ZOO[case]
    random = np.random.default_rng(0)
    splits = {key: (random.integers(0, 256, (16, 3, size, size), np.uint8), random.integers(0, 2, 16)) for key in ("train", "val", "test")}
    noise = from_splits("noise", splits, num_classes=2, transforms=Transforms(normalize=Normalize(mean=(0.5,) * 3, std=(0.25,) * 3)))
    network = trace(zoo.create(name, num_classes=2, in_chans=3, seed=0, options=options).eval(), noise.example())
    if case == "patches, redistributed":
        network = Redistribute()(network, noise).model.eval()
    recipe = quantize.minmax(samples=16, weights=4 if case == "few bits" else 8)
    if case == "few bits, activations too":
        recipe = Static(scheme=Scheme(bits=Uniform(weights=4, activations=4, ends=8), others=4), samples=16)
    quantized = recipe(network, noise).model
    # Through fifty layers of random weights single steps grow beyond what a trained network shows.
    return export(quantized, folder / "model.onnx", noise.example(2), tolerance=1.0)


def _patches(program: Program) -> dict[str, Any]:
    """The arena in patches that keeps the multiplications within a quarter more."""
    plain, whole = plan(program, overlap=False), plan(program)
    out: dict[str, Any] = {"macs": program.macs, "plain": plain.arena, "overlap": whole.arena}
    for name, overlap, arena in (("plain_patches", False, plain.arena), ("overlap_patches", True, whole.arena)):
        split = plan(program, ram=arena // 4, overlap=overlap, seconds=60)
        out[name] = {"arena": split.arena, "macs": split.program.macs, "patches": repr(split.patches), "faults": len(faults(split))}
    return out


def _few_bits(program: Program) -> dict[str, Any]:
    """Bytes of weights and instructions on Cortex-M4, by how weights are stored."""
    random, out = np.random.default_rng(1), {}
    samples = [[random.integers(-128, 128, port.buffer.shape, dtype=np.int8) for port in program.inputs]]
    for name, storage in STORAGES.items():
        stored = store(program, storage)
        target = TARGETS["cortex-m4"]
        ready = plan(stored, pixels_at_once=target.pixels_at_once)
        found = harness.measure(ready, target, samples)
        out[name] = {"weights": sum(step.weight_bytes for step in stored.steps), "instructions": found.instructions, "arena": ready.arena,
                     "wrong": int((found.outputs[0][0].reshape(-1) != program(*samples[0])[0].reshape(-1)).sum())}
    return out


def _activations(program: Program) -> dict[str, Any]:
    """Arena and instructions on Cortex-M4, by how activations lie; weights packed."""
    stored, target, out = store(program, Packed()), TARGETS["cortex-m4"], {}
    random = np.random.default_rng(1)
    samples = [[random.integers(-128, 128, port.buffer.shape, dtype=np.int8) for port in program.inputs]]
    for name, activations in ARENAS.items():
        ready = activations(stored, None, target.pixels_at_once)
        found = harness.measure(ready, target, samples)
        out[name] = {"arena": ready.arena, "instructions": found.instructions, "stack": found.stack,
                     "packed": sum(step.output.bits < 8 for step in ready.program.steps),
                     "wrong": int((found.outputs[0][0].reshape(-1) != program(*samples[0])[0].reshape(-1)).sum())}
    return out


def row(case: str) -> dict[str, Any]:
    """One network."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _model(case, folder)
        began = time.perf_counter()
        program = lower(model)
        lowered = time.perf_counter() - began
        if case not in FILES and case != "visual wake words":
            return {"few bits": _few_bits, "few bits, activations too": _activations}.get(case, _patches)(program)
        plain, shared = plan(program, overlap=False), plan(program)
        began = time.perf_counter()
        project = to_c(model, folder / "firmware")
        out: dict[str, Any] = {"steps": len(program.steps), "macs": program.macs, "plain": plain.arena, "plain_optimal": plain.optimal,
                               "overlap": shared.arena, "overlap_optimal": shared.optimal, "lower_seconds": lowered,
                               "generate_seconds": time.perf_counter() - began, "code": project.code, "constants": project.constants,
                               "weights": sum(step.weight_bytes for step in program.steps)}
        random = np.random.default_rng(1)
        samples = [[random.integers(-128, 128, port.buffer.shape, dtype=np.int8) for port in program.inputs] for _ in range(_SAMPLES)]
        wanted = [program(*sample) for sample in samples]
        for target in TARGETS.values():
            if target.board is None:
                continue
            ready = plan(program, pixels_at_once=target.pixels_at_once)
            found = harness.measure(ready, target, samples)
            wrong = sum(int((a.reshape(-1) != b.reshape(-1)).sum()) for x, y in zip(found.outputs, wanted, strict=True) for a, b in zip(x, y, strict=True))
            out[target.name] = {"wrong": wrong, "instructions": found.instructions, "stack": found.stack, "arena": ready.arena}
    return out


if __name__ == "__main__":
    main(row, [*FILES, *ZOO])
