"""torchvision's 80 classification models: trace, profile, prune to half the channels, compare with the masked network.

    python -m benchmarks.torchvision80 --json benchmarks/results/torchvision80.json [NAME ...]

One result per model; an interrupted run goes on where it stopped. A trace leaves out what evaluation does not use, so
Inception's parameters are the published ones less its auxiliary head (3,326,696); GoogLeNet's published figure is without.
"""

from __future__ import annotations

import gc
import time
import traceback
from typing import Any

import torch

from benchmarks import torchvision_models
from benchmarks.masked import halved, randomise_constants_
from benchmarks.results import main
from lilliput.graph import profile, trace


def row(name: str) -> dict[str, Any]:
    """Everything measured of one model."""
    out: dict[str, Any] = {"model": name}
    try:
        _measure(name, out)
    except Exception as error:
        out["error"] = "".join(traceback.format_exception_only(error)).strip()[:500]
    gc.collect()
    return out


def _measure(name: str, out: dict[str, Any]) -> None:
    model, example = torchvision_models.build(name)
    randomise_constants_(model)
    meta = torchvision_models.models().get_model_weights(name).DEFAULT.meta
    began = time.perf_counter()
    traced = trace(model, example)
    out["trace_seconds"] = round(time.perf_counter() - began, 2)
    with torch.no_grad():
        out["trace_difference"] = float((traced(example) - model(example)).abs().max())
    counted = profile(traced)
    # The metadata counts at the size of its weights' transforms, which for some is not that of the architecture.
    size = torchvision_models.models().get_model_weights(name).DEFAULT.transforms().crop_size[0]
    published = counted if size == example.shape[-1] else profile(torchvision_models.sized(name, model, size), torch.zeros(2, 3, size, size))
    out |= {"params": published.params, "params_published": meta["num_params"], "gmacs": published.macs / 1e9,
            "gmacs_published": meta["_ops"], "size_published": size}
    del model
    out |= halved(traced, example)


if __name__ == "__main__":
    main(row, torchvision_models.names())
