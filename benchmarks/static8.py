"""int8 after training on Fashion-MNIST beside NNCF's default: accuracy lost and wall time, three seeds a network.

    python -m benchmarks.static8 --json benchmarks/results/static8.json [NETWORK:SEED ...]

The same float network (`benchmarks.networks28`), the same 300 calibration images (NNCF's own default number) and two threads
for both. Wall time: from the float network to the integer ONNX file written, for NNCF from float ONNX to integer ONNX, imports left
out for both; ours includes the export. Accuracy is measured in ONNX Runtime, on the test split.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks28 import original
from benchmarks.peers import run
from benchmarks.results import main
from lilliput import data, quantize
from lilliput.core import CorruptFileError
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session

NETWORKS, SEEDS = ("resnet20", "mobilenet_v2", "vit"), (0, 1, 2)
_SAMPLES = 300


def row(case: str) -> dict[str, Any]:
    """Test accuracy of the float network, ours and NNCF's, and seconds taken."""
    name, _, seed = case.partition(":")
    fashion, network = data.load("fashion_mnist"), original(name, int(seed)).eval()
    out: dict[str, Any] = {"network": name, "seed": int(seed), "calibration_images": _SAMPLES}
    with tempfile.TemporaryDirectory() as folder:
        files = {key: Path(folder) / f"{key}.onnx" for key in ("float", "ours", "nncf")}
        export(network, files["float"], fashion.example(8))
        began = time.perf_counter()
        export(quantize.minmax(samples=_SAMPLES)(network, fashion).model, files["ours"], fashion.example(8))
        out["ours_seconds"] = time.perf_counter() - began
        images = next(fashion.train.batches(_SAMPLES))[0].numpy()
        np.save(Path(folder) / "images.npy", images)
        done = run("peer_quantization", "nncf", str(files["float"]), str(Path(folder) / "images.npy"), str(files["nncf"]), peer=True)
        out |= {"nncf_seconds": done["seconds"], "nncf_version": done["version"]}
        for key, path in files.items():
            try:
                session = Session(path, threads=2)
            except CorruptFileError as error:
                if key != "nncf":
                    raise
                # On the ViT its file gives a QuantizeLinear a type that contradicts its zero point.
                return out | {"drop": out["float"] - out["ours"], "nncf_error": str(error)}
            out[key], out[f"{key}_val"] = session.evaluate(fashion.test), session.evaluate(fashion.val)
    return out | {"drop": out["float"] - out["ours"], "nncf_drop": out["float"] - out["nncf"]}


if __name__ == "__main__":
    main(row, [f"{name}:{seed}" for name in NETWORKS for seed in SEEDS])
