"""Simulation, integer reference and ONNX Runtime, tensor by tensor: the deployed integers are the simulated integers.

    python -m benchmarks.agreement --json benchmarks/results/agreement.json [NETWORK ...]

int8 networks (`quantize.minmax`) trained on Fashion-MNIST, 64 test images; every quantized tensor of the ONNX file, in steps of its grid.
`each`: the largest difference between ONNX Runtime and the numpy integer reference where every layer of the reference reads what ONNX Runtime's
layer read, and the share of values that differ: what one layer does differently. `through`: the same when differences travel on through
the network, where a step more at one place is many steps at another. Tensors are read off ONNX Runtime without graph optimisation; for the
output also as deployed. `exact`: the simulation in float64, whose sums of integer products are exact, against the reference.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.networks28 import original
from benchmarks.results import main
from lilliput import data, quantize
from lilliput.deploy.onnx import export
from lilliput.deploy.reference import Reference
from lilliput.deploy.runtime import Session

_IMAGES = 64


def tensors(path: Path, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Every quantized tensor of the file, from ONNX Runtime."""
    model = onnx.load(path)
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    names = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], kinds[node.input[2]], None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {"input": inputs}), strict=True))


def row(name: str) -> dict[str, Any]:
    """The differences of one network."""
    fashion, network = data.load("fashion_mnist"), original(name, 0).eval()
    quantized = quantize.minmax()(network, fashion).model.eval()
    inputs = next(fashion.test.batches(_IMAGES))[0]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = export(quantized, Path(folder) / "model.onnx", fashion.example(8))
        reference = Reference(path).values(inputs.numpy())
        found = tensors(path, inputs.numpy())
        each = Reference(path).values(inputs.numpy(), given=found)
        deployed = Session(path)(inputs.numpy())
        simulated, exact = quantized(inputs).numpy(), quantize.exact(quantized)(inputs.double()).numpy()
    step = float(np.diff(np.unique(reference["output"].round(7))).min())
    out: dict[str, Any] = {"tensors": len(found), "images": _IMAGES}
    for key, compared in (("each", each), ("through", reference)):
        steps = [np.abs(value.astype(np.int64) - compared[name].astype(np.int64)) for name, value in found.items()]
        out[f"{key}_largest"] = int(max(value.max() for value in steps))
        out[f"{key}_share"] = float(sum(int((value > 0).sum()) for value in steps) / sum(value.size for value in steps))
    return out | {
            "output_reference_exact": float(np.abs(exact - reference["output"]).max() / step),
            "output_reference_simulated": float(np.abs(simulated - reference["output"]).max() / step),
            "output_reference_deployed": float(np.abs(deployed - reference["output"]).max() / step),
            "same_top1": float((deployed.argmax(1) == simulated.argmax(1)).mean())}


if __name__ == "__main__":
    main(row, ("resnet8", "resnet20", "mobilenet_v2", "vit"), threads=1)
