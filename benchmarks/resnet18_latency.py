"""ResNet-18 at 224 x 224 with half the MACs: measured ONNX Runtime latency, one thread, batch one.

    python -m benchmarks.resnet18_latency --json benchmarks/results/resnet18_latency.json

The original and the small networks take turns. Weights are untrained: they decide which channels go, and with the same
share of every layer not how many. `round_to` keeps channels in multiples, within the same budget.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import torchvision_models
from benchmarks.results import main
from lilliput import prune
from lilliput.core import Budget
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph import latency, profile, trace

_MULTIPLES = (1, 4, 8, 16)
_ROUNDS = 80


def row(case: str) -> dict[str, Any]:
    """Latency ratios by multiple of channels."""
    model, example = torchvision_models.build("resnet18")
    traced = trace(model, example)
    macs = profile(traced).macs
    out: dict[str, Any] = {"case": case, "budget": 0.5, "rounds": _ROUNDS}
    sample = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        sessions = {"original": Session(export(traced, Path(folder) / "original.onnx", example))}
        for multiple in _MULTIPLES:
            small = prune.l1_norm(Budget(macs=0.5), unit=prune.Channels(round_to=multiple))(traced, None).model
            name = f"round_to_{multiple}"
            sessions[name] = Session(export(small, Path(folder) / f"{name}.onnx", example))
            out[name] = {"macs_share": round(profile(small, example).macs / macs, 4)}
        compared = latency.compare({name: (lambda s=s: s(sample)) for name, s in sessions.items()}, rounds=_ROUNDS, warmup=5)
    out["original_ms"] = round(1e3 * compared["original"].p50, 2)
    for multiple in _MULTIPLES:
        ratio = compared.ratio(f"round_to_{multiple}", "original")
        out[f"round_to_{multiple}"] |= {"ms": round(1e3 * compared[f"round_to_{multiple}"].p50, 2), "ratio": round(ratio.median, 4),
                                        "low": round(ratio.low, 4), "high": round(ratio.high, 4)}
    return out


if __name__ == "__main__":
    main(row, ["l1_norm"], threads=1)
