"""torchvision's models for segmentation and video, and the whole zoo: half of the channels and heads go, compared with the masked network.

    python -m benchmarks.prune_models --json benchmarks/results/prune_models.json [NAME ...]

The 80 classifiers are those of `benchmarks.torchvision80`. Scales, shifts and zeroed constants are random, so that nothing agrees by being
zero or one; `excluded` names what was not resolved and stays whole. One result per model; an interrupted run goes on where it
stopped.
"""

from __future__ import annotations

import gc
import time
import traceback
from typing import Any

import torch
from torch import nn

from benchmarks import torchvision_models
from benchmarks.masked import halved, randomise_constants_
from benchmarks.results import main
from lilliput import zoo
from lilliput.graph import trace


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """An untrained model in evaluation mode, and an example."""
    if name not in zoo.names():
        return torchvision_models.build_other(name)
    torch.manual_seed(0)
    shape = zoo.input_shape(name)
    example = torch.randint(0, 64, (2, *shape)) if zoo.input_dtype(name) == torch.int64 else torch.randn(2, *shape)
    return zoo.create(name, seed=0).eval(), example


def row(name: str) -> dict[str, Any]:
    """Everything measured of one model."""
    out: dict[str, Any] = {"model": name}
    try:
        model, example = build(name)
        randomise_constants_(model)
        began = time.perf_counter()
        traced = trace(model, example)
        out |= {"trace_seconds": round(time.perf_counter() - began, 2), **halved(traced, example)}
    except Exception as error:
        out["error"] = "".join(traceback.format_exception_only(error)).strip()[:500]
    gc.collect()
    return out


if __name__ == "__main__":
    main(row, [*zoo.names(), *torchvision_models.others()])
