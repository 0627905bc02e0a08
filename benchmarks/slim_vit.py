"""A small vision transformer on Fashion-MNIST without the feed-forward layers and heads that it needs least: latency and accuracy.

    python -m benchmarks.slim_vit --json benchmarks/results/slim_vit.json [SEED ...]

The network is `vit` of `benchmarks.networks28`, 28 x 28 pixels in 49 patches. First whole feed-forward layers go, by how little the loss
rises without each, then heads by first-order Taylor importance; a short fine-tuning follows. Latency is that of the ONNX files in ONNX
Runtime, one thread, batch one, the two networks taking turns. Shares and fine-tuning were chosen on the validation split; the test split
is for the table. The bar is a latency at most 0.8 of the original's at less than one point of accuracy (the method of wang2022mobilevits).
"""

from __future__ import annotations

from typing import Any

from benchmarks.networks28 import original
from benchmarks.results import main
from benchmarks.timing import session, turns
from lilliput import data, prune
from lilliput.core import Budget, chain
from lilliput.data import Data
from lilliput.graph import Traced, profile
from lilliput.graph.branches import Residuals
from lilliput.prune.allocation import global_threshold
from lilliput.train import AdamW, Cosine, Fit, evaluate

FEED_FORWARDS, HEADS = Budget(macs=0.82), Budget(macs=0.9)
FINE_TUNE = Fit(epochs=4, optimizer=AdamW(lr=5e-4), schedule=Cosine(warmup=0.1))
ROUNDS = 400


def slim(network: Traced, images: Data, fine_tune: Fit = FINE_TUNE) -> Traced:
    """The network without feed-forward layers, then without heads, trained on."""
    step = chain(
        prune.Prune(method="feed-forward layers", budget=FEED_FORWARDS, criterion=prune.RemovalLoss(), unit=prune.Branches(exclude=("*.attn",))),
        prune.Prune(method="heads", budget=HEADS, criterion=prune.Taylor(), unit=prune.Channels(exclude=("patch_embed", "*.fc1"), per_layer=False),
                    allocation=global_threshold, recover=prune.FineTune(fit=fine_tune)))
    small = step(network, images).model
    assert isinstance(small, Traced)
    return small.eval()


def ratio(network: Traced, small: Traced, images: Data, rounds: int = ROUNDS) -> dict[str, Any]:
    """Milliseconds of both, and how much of the original's time the small one takes, with an interval of 95%."""
    compared = turns(session(small, images), session(network, images), images, rounds)
    taken = compared.ratio("small", "original")
    return {"ms": {name: round(1e3 * compared[name].p50, 4) for name in compared.samples}, "ratio": round(taken.median, 4), "low": round(taken.low, 4),
            "high": round(taken.high, 4)}


def row(case: str) -> dict[str, Any]:
    """Figures of one seed."""
    network, images = original("vit", int(case)).eval(), data.load("fashion_mnist")
    small = slim(network, images)
    before, after = evaluate(network, images.test), evaluate(small, images.test)
    return {"seed": int(case), "accuracy_before": before, "accuracy": after, "drop": round(before - after, 2), "val": evaluate(small, images.val),
            "macs_share": round(profile(small).macs / profile(network).macs, 4), "branches": [b.name for b in Residuals(small).found],
            **ratio(network, small, images)}


if __name__ == "__main__":
    main(row, ["0", "1", "2"], threads=1)
