"""torch-pruning in a process of its own: prune a model to half the channels, once cold and some times warm.

    .venv-peers/bin/python -m benchmarks.peer_pruning MODEL REPETITIONS

The model is made outside of the time measured; tracing its dependencies is inside. Magnitudes of whole groups decide.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import torch_pruning as tp

from benchmarks.prune_time import build


def prune(model: Any, example: torch.Tensor) -> float:
    """Seconds that pruning takes."""
    last = next(getattr(model, name) for name in ("heads", "fc", "head") if hasattr(model, name))
    attention = [block.attn for block in getattr(model, "blocks", ())]
    began = time.perf_counter()
    # Of a transformer's fused projections every head must keep its width: channels in multiples of the heads.
    round_to = model.encoder.layers[0].num_heads if hasattr(model, "encoder") else None
    pruner = tp.pruner.MagnitudePruner(model, example, importance=tp.importance.MagnitudeImportance(p=1), pruning_ratio=0.5,
                                       ignored_layers=[getattr(last, "head", last)], round_to=round_to,
                                       num_heads={a.qkv: a.heads for a in attention})
    pruner.step()
    seconds = time.perf_counter() - began
    if hasattr(model, "hidden_dim"):
        model.hidden_dim = model.conv_proj.out_channels
    for a in attention:
        a.head_dim = a.qkv.out_features // (3 * a.heads)
    model(example)
    return seconds


def main() -> None:
    torch.set_num_threads(2)
    seconds, sizes = [], []
    for _ in range(1 + int(sys.argv[2])):
        model, example = build(sys.argv[1])
        before = sum(p.numel() for p in model.parameters())
        seconds.append(prune(model, example))
        sizes.append(sum(p.numel() for p in model.parameters()) / before)
    print(json.dumps({"version": tp.__version__, "cold": seconds[0], "warm": seconds[1:], "params_share": sizes[-1]}))


if __name__ == "__main__":
    main()
