"""Wall time of pruning ResNet-50, ViT-B/16, ViT-L/16 and a decoder of 24 layers to half the channels, tracing included, beside torch-pruning.

    python -m benchmarks.prune_time --json benchmarks/results/prune_time.json [MODEL ...]

Processes of ours and of torch-pruning take turns, three each, two threads. In each the model is made, then pruned once
(cold: what is imported on first use and caches that fill count) and five times more (warm), a fresh model each time.
`recipe` is the public `prune.l1_norm(Budget(macs=0.5))` with its bisection in place of a fixed half.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import Any

from benchmarks.peers import run
from benchmarks.torchvision_models import build as torchvision_model

_PROCESSES, _WARM = 3, 5
_WORKER = "--worker"
# Layers and widths of GPT-2 medium (302 million weights in the blocks), 128 tokens.
_DECODER = {"dim": 1024, "depth": 24, "heads": 16}


def build(name: str) -> tuple[Any, Any]:
    """An untrained model in evaluation mode, and an example batch of two."""
    if name != "decoder_24":
        return torchvision_model(name)
    import torch

    from lilliput import zoo

    return zoo.create("decoder", num_classes=1000, in_chans=128, options=_DECODER).eval(), torch.randint(1000, (2, 128))


def row(name: str) -> dict[str, Any]:
    """Seconds of ours and theirs."""
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(_PROCESSES):
        ours.append(run("prune_time", _WORKER, name, str(_WARM)))
        theirs.append(run("peer_pruning", name, str(_WARM), peer=True))
    out: dict[str, Any] = {"model": name, "params_share": ours[0]["params_share"], "peer": f"torch-pruning {theirs[0]['version']}",
                           "peer_params_share": theirs[0]["params_share"]}
    for prefix, runs in (("", ours), ("peer_", theirs)):
        out[f"{prefix}cold"] = round(median(r["cold"] for r in runs), 3)
        out[f"{prefix}warm"] = round(median(s for r in runs for s in r["warm"]), 3)
    out["trace"] = round(median(s for r in ours for s in r["trace"]), 3)
    out["recipe"] = round(median(s for r in ours for s in r["recipe"]), 3)
    return out


def _worker(name: str, repetitions: int) -> None:
    import torch

    from lilliput import prune
    from lilliput.core import Budget
    from lilliput.graph import trace
    from lilliput.prune.allocation import uniform

    torch.set_num_threads(2)
    seconds, traces, recipes, share = [], [], [], 0.0
    for _ in range(1 + repetitions):
        model, example = build(name)
        began = time.perf_counter()
        traced = trace(model, example)
        traces.append(time.perf_counter() - began)
        plan = prune.Channels().plan(traced)
        scores = plan.scores(prune.Magnitude(), prune.Stats(), traced)
        small = plan.apply(plan.keep(scores, uniform(scores, 0.5)), traced)
        seconds.append(time.perf_counter() - began)
        small(example)
        share = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())
        del traced, plan, small
        began = time.perf_counter()
        prune.l1_norm(Budget(macs=0.5))(trace(model, example), None)
        recipes.append(time.perf_counter() - began)
    print(json.dumps({"cold": seconds[0], "warm": seconds[1:], "trace": traces[1:], "recipe": recipes[1:], "params_share": share}))


if __name__ == "__main__":
    if sys.argv[1:2] == [_WORKER]:
        _worker(sys.argv[2], int(sys.argv[3]))
    else:
        from benchmarks.results import main

        main(row, ["resnet50", "vit_b_16", "vit_l_16", "decoder_24"])
