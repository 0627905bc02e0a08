"""ONNX Runtime's quantizer and NNCF in a process of their own: int8 from a float ONNX file and calibration images.

    .venv-peers/bin/python -m benchmarks.peer_quantization TOOL FLOAT.onnx IMAGES.npy OUT.onnx

TOOL is `ort_s8` (signed activations, its default), `ort_u8` (unsigned ones) or `nncf`. ONNX Runtime: QDQ, weights per channel,
min-max, after its own pre-processing. NNCF: its defaults.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx


class _Reader:
    """The images one by one, as ONNX Runtime asks for them."""

    def __init__(self, images: np.ndarray, name: str) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = ({name: images[i : i + 1]} for i in range(len(images)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _onnxruntime(source: Path, images: np.ndarray, out: Path, unsigned: bool) -> str:
    import onnxruntime
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    name = onnx.load(prepared).graph.input[0].name
    quantize_static(str(prepared), str(out), _Reader(images, name), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8, weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax)
    return f"onnxruntime {onnxruntime.__version__}"


def _nncf(source: Path, images: np.ndarray, out: Path) -> str:
    import nncf

    model = onnx.load(source)
    name = model.graph.input[0].name
    dataset = nncf.Dataset([images[i : i + 1] for i in range(len(images))], lambda image: {name: image})
    onnx.save(nncf.quantize(model, dataset, subset_size=len(images)), out)
    return f"nncf {nncf.__version__}"


def main() -> None:
    tool, source, images, out = sys.argv[1], Path(sys.argv[2]), np.load(sys.argv[3], mmap_mode="r"), Path(sys.argv[4])
    if tool == "nncf":
        import nncf  # noqa: F401 (imported before the clock starts)
    else:
        import onnxruntime.quantization  # noqa: F401
    began = time.perf_counter()
    version = _nncf(source, images, out) if tool == "nncf" else _onnxruntime(source, images, out, tool == "ort_u8")
    print(json.dumps({"version": version, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
