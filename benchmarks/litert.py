"""LiteRT's integers beside ours, operator by operator.

    .venv-litert/bin/python -m benchmarks.litert --json benchmarks/results/litert.json [NETWORK ...]

int8 networks (`quantize.minmax`) trained on Fashion-MNIST, 64 test images, in steps of each tensor's grid: LiteRT's own kernels, its plain
reference kernels and TFLite Micro against the numpy integer reference. `each`: the largest difference where the reference reads what
LiteRT's operators gave, and the share of values that differ; `through`: the largest when differences travel on through the network;
`operators`: the same by kind of operator. Accuracy of the same network on the test split in ONNX Runtime and in LiteRT as it comes (XNNPACK).
Runs in the environment of `make test-litert`.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks28 import original
from benchmarks.results import main
from lilliput import data, quantize
from lilliput.deploy import litert
from lilliput.deploy.litert import Difference, Kernels
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session

_IMAGES = 64


def summary(rows: tuple[Difference, ...]) -> dict[str, Any]:
    """Largest differences and shares, of all operators and by kind; operators without an edge of ours are only counted."""
    kinds: dict[str, Any] = {}
    for kind in dict.fromkeys(row.operator for row in rows):
        of = [row for row in rows if row.operator == kind]
        compared = [row for row in of if row.differ is not None]
        kinds[kind] = {"count": len(of), "compared": len(compared), "values": sum(row.values for row in compared),
                       "differ": sum(row.differ or 0 for row in compared), "largest": max((row.largest or 0 for row in compared), default=None)}
    return {"operators": kinds, "each_largest": max(row.largest or 0 for row in rows),
            "each_share": sum(kind["differ"] for kind in kinds.values()) / sum(kind["values"] for kind in kinds.values()),
            "through_largest": max(row.carried or 0 for row in rows), "output_largest": rows[-1].carried}


def row(name: str) -> dict[str, Any]:
    """The differences of one network."""
    fashion, network = data.load("fashion_mnist"), original(name, 0).eval()
    quantized = quantize.minmax()(network, fashion).model.eval()
    inputs = next(fashion.test.batches(_IMAGES))[0]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        exported = export(quantized, Path(folder) / "model.onnx", fashion.example(8))
        path = litert.export(quantized, Path(folder) / "model.tflite", fashion.example(8))
        out: dict[str, Any] = {"images": _IMAGES, "bytes": path.stat().st_size}
        for kernels in (Kernels.BUILTIN, Kernels.REFERENCE, Kernels.MICRO):
            out[kernels.name.lower()] = summary(litert.difference(path, exported, inputs.numpy(), kernels=kernels))
        out["accuracy_onnx"] = Session(exported).evaluate(fashion.test)
        out["accuracy_litert"] = litert.Session(path).evaluate(fashion.test)
    return out | {"versions": {package: version(package) for package in ("litert-torch", "ai-edge-litert", "tflite-micro")}}


if __name__ == "__main__":
    main(row, ("resnet8", "resnet20", "mobilenet_v2"), threads=1)
