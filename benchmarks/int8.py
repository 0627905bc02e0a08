"""int8 ResNet-18 and MobileNetV2 at 224 x 224 beside ONNX Runtime's own quantizer and NNCF; one thread.

    python -m benchmarks.int8 --json benchmarks/results/int8.json [MODEL ...]

One float network (see `benchmarks.networks224`), the same 512 calibration images for every tool, min-max ranges, weights
per channel. Agreement: share of 1,024 held-out images on which the largest logit is that of fp32. Latency: all files take
turns in ONNX Runtime, batch one. The bar is judged against the better of ONNX Runtime's two activation types, separately
for latency and for agreement. A first run trains the networks and takes some minutes; they are kept in `.cache`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import networks224
from benchmarks.peers import run
from benchmarks.results import main
from lilliput import quantize
from lilliput.data import Data
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph import latency

_TOOLS = ("ort_s8", "ort_u8", "nncf")
_SAMPLES, _ROUNDS = 512, 100


def row(name: str) -> dict[str, Any]:
    """Agreement, accuracy, size and latency of every tool's file."""
    full = networks224.full_data()
    out: dict[str, Any] = {"model": name, "calibration_images": _SAMPLES, "held_out_images": networks224.HELD_OUT}
    with tempfile.TemporaryDirectory() as folder:
        files = _files(name, full, Path(folder), out)
        logits, labels = _logits(files, full)
        for tool, found in logits.items():
            out[tool] = {"agreement": round(100 * float((found.argmax(1) == logits["float"].argmax(1)).mean()), 2),
                         "accuracy": round(100 * float((found.argmax(1) == labels).mean()), 2),
                         "noise": float(np.square(found - logits["float"]).mean() / np.square(logits["float"]).mean()),
                         "bytes": files[tool].stat().st_size, **out.get(tool, {})}
        sample = next(full.test.batches(1))[0].numpy()
        sessions = {tool: Session(path) for tool, path in files.items()}
        compared = latency.compare({tool: (lambda s=s: s(sample)) for tool, s in sessions.items()}, rounds=_ROUNDS, warmup=5)
    for tool in files:
        out[tool]["ms"] = round(1e3 * compared[tool].p50, 3)
        if tool != "ours":
            ratio = compared.ratio("ours", tool)
            out[tool]["ours_takes"] = [round(ratio.median, 4), round(ratio.low, 4), round(ratio.high, 4)]
    return out


def _files(name: str, full: Data, folder: Path, out: dict[str, Any]) -> dict[str, Path]:
    """One ONNX file per tool, and the float one; a tool that fails is noted and left out."""
    model = networks224.network(name, full)
    example = full.example()
    files = {"float": export(model, folder / "float.onnx", example),
             "ours": export(quantize.minmax(samples=_SAMPLES)(model, full).model, folder / "ours.onnx", example)}
    np.save(folder / "images.npy", next(full.train.batches(_SAMPLES))[0].numpy())
    for tool in _TOOLS:
        target = folder / f"{tool}.onnx"
        try:
            done = run("peer_quantization", tool, str(files["float"]), str(folder / "images.npy"), str(target), peer=True)
        except RuntimeError as error:
            out.setdefault("failed", {})[tool] = str(error)[-300:]
        else:
            out[tool] = {"version": done["version"]}
            files[tool] = target
    return files


def _logits(files: dict[str, Path], full: Data) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Logits of every file on the held-out images `(1024, 10)`, and the labels."""
    sessions = {tool: Session(path, threads=2) for tool, path in files.items()}
    found: dict[str, list[np.ndarray]] = {tool: [] for tool in files}
    labels = []
    for inputs, targets in full.test.batches(32):
        labels.append(targets.numpy())
        for tool, session in sessions.items():
            found[tool].append(session(inputs.numpy()))
    return {tool: np.concatenate(parts).astype(np.float64) for tool, parts in found.items()}, np.concatenate(labels)


if __name__ == "__main__":
    main(row, networks224.NAMES, threads=2)
