"""Peak memory of static calibration on 64 and on 4,096 samples: ResNet-20 on Fashion-MNIST, the four range rules.

    python -m benchmarks.calibration_memory --json benchmarks/results/calibration_memory.json [METHOD ...]

Each figure is `ru_maxrss` of a process of its own, which loads the data and the network and quantizes it. `before` is the
peak until calibration began, so that growth hidden under torch and the data set would show as well.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

from benchmarks.peers import run

_METHODS = ("minmax", "percentile", "mse", "entropy")
_FEW, _MANY = 64, 4096
_WORKER = "--worker"


def row(method: str) -> dict[str, Any]:
    """Peaks in MiB and their ratio."""
    few, many = (run("calibration_memory", _WORKER, method, str(samples), threads=1) for samples in (_FEW, _MANY))
    return {"method": method, "peak_64": few["peak"], "peak_4096": many["peak"], "ratio": round(many["peak"] / few["peak"], 4),
            "before": few["before"], "growth_64": round(few["peak"] - few["before"], 1),
            "growth_4096": round(many["peak"] - many["before"], 1)}


def _peak() -> float:
    """MiB; Linux counts in KiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _worker(method: str, samples: int) -> None:
    import torch

    from lilliput import data, quantize, zoo
    from lilliput.graph import trace

    torch.set_num_threads(1)
    fashion = data.load("fashion_mnist")
    model = trace(zoo.create("resnet20", num_classes=10, in_chans=1, seed=0), fashion.example())
    step = getattr(quantize, method)(samples=samples)
    before = _peak()
    step(model, fashion)
    print(json.dumps({"before": before, "peak": _peak()}))


if __name__ == "__main__":
    if sys.argv[1:2] == [_WORKER]:
        _worker(sys.argv[2], int(sys.argv[3]))
    else:
        from benchmarks.results import main

        main(row, _METHODS)
