"""Integer or float kernel for every layer by measurement, and scaling over threads: int8 ResNet-18 and MobileNetV2 at 224 x 224.

    python -m benchmarks.kernels --json benchmarks/results/kernels.json [MODEL ...]

The networks of `benchmarks.int8` (`quantize.minmax`, 512 calibration images), in ONNX Runtime, batch one. `chosen`: the layers that
`kernels.choose` gave float kernels on one thread, the time of the best mixture against all integers as it was judged, whether it was
written, and, since the best of several is picked by that very timing, the written file against the original timed afresh. `all_float`:
the fp32 export against the original, for scale. `scaling`: speed-up of each number of threads over one, with its interval. `fused`: how
many operators became how many kernels, and the five slowest.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import networks224
from benchmarks.results import main
from lilliput import quantize
from lilliput.deploy import kernels
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph import latency
from lilliput.graph.latency import Timing

_SAMPLES, _ROUNDS = 512, 100


def row(name: str) -> dict[str, Any]:
    """What was gained on this machine."""
    full = networks224.full_data()
    model, example = networks224.network(name, full), full.example()
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "int8.onnx", Path(folder) / "chosen.onnx"
        plain = export(model, Path(folder) / "float.onnx", example)
        export(quantize.minmax(samples=_SAMPLES)(model, full).model, before, example)
        fused = kernels.fusions(before)
        choice = kernels.choose(before, after, rounds=_ROUNDS)
        sample = next(full.test.batches(1))[0].numpy()
        sessions = {"before": Session(before), "after": Session(after), "float": Session(plain)}
        again = latency.compare({key: (lambda s=s: s(sample)) for key, s in sessions.items()}, rounds=_ROUNDS, warmup=5)
        scaled = kernels.scaling(before, rounds=_ROUNDS)
    return {"model": name, "ms": {key: round(1e3 * again[key].median, 3) for key in sessions},
            "chosen": {"layers": len(choice.layers), "float": sum(row.floats for row in choice.layers), "kept": choice.kept,
                       "judged": _interval(choice.ratio), "again": _interval(again.ratio("after", "before")),
                       "bytes": [choice.size_before, choice.size_after]},
            "all_float": _interval(again.ratio("float", "before")),
            "scaling": {str(row.threads): _interval(row.speedup) for row in scaled},
            "fused": {"operators": sum(len(k.nodes) for k in fused.kernels), "kernels": len(fused.kernels),
                      "slowest": [[k.layer, k.op, round(100 * k.share, 1)] for k in fused.slowest()[:5]]}}


def _interval(timing: Timing) -> list[float]:
    return [round(value, 4) for value in (timing.median, timing.low, timing.high)]


if __name__ == "__main__":
    main(row, networks224.NAMES, threads=1)
