"""A small vision transformer on Fashion-MNIST with 40% fewer multiplications, without any training: heads and hidden units by Fisher masks.

    python -m benchmarks.post_training_vit --json benchmarks/results/post_training_vit.json [SEED ...]

The network is `vit` of `benchmarks.networks28`, which is trained on the first run. Masks are searched, rearranged and tuned on 2,048 images
of the training split (Kwon 2022). `val` is for choosing, `test` for the table; both are in per cent, `drop` in points of `test`.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.networks28 import original
from benchmarks.results import main
from lilliput import data, prune
from lilliput.core import Budget
from lilliput.graph import profile
from lilliput.train import evaluate

MACS = 0.6
SAMPLES = 2048
SEEDS = ("0", "1", "2")


def row(seed: str) -> dict[str, Any]:
    """Accuracy before and after, the share of multiplications that is left, and the seconds that pruning took."""
    fashion, dense = data.load("fashion_mnist"), original("vit", int(seed)).eval()
    began = time.perf_counter()
    small = prune.kwon_post_training(Budget(macs=MACS), samples=SAMPLES)(dense, fashion).model.eval()
    seconds = time.perf_counter() - began
    before, after = evaluate(dense, fashion.test), evaluate(small, fashion.test)
    counted, whole = profile(small), profile(dense)
    return {"seed": int(seed), "macs": round(counted.macs / whole.macs, 4), "params": round(counted.params / whole.params, 4),
            "val_dense": evaluate(dense, fashion.val), "val": evaluate(small, fashion.val), "test_dense": before, "test": after,
            "drop": round(before - after, 2), "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main(row, SEEDS, threads=1)
