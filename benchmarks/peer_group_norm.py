"""torch-pruning's group norm on one of the zoo's networks, in a process of its own.

    .venv-peers/bin/python -m benchmarks.peer_group_norm ARCHITECTURE WIDTH LEFT WEIGHTS OUT

As its benchmark for small images does it: coupled channels of all layers are ranked together and pruned in 400 small steps, until the share
`LEFT` of the MACs is reached. `OUT` receives the smaller network as an exported program.
"""

from __future__ import annotations

import json
import sys

import torch
import torch_pruning as tp

from lilliput import zoo

_STEPS = 400


def main(architecture: str, width: float, left: float, weights: str, out: str) -> None:
    torch.set_num_threads(1)
    options = {} if width == 1 else {"width": width}
    model = zoo.create(architecture, num_classes=10, in_chans=1, options=options).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    example = torch.zeros(2, 1, 28, 28)
    last = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
    pruner = tp.pruner.GroupNormPruner(model, example, importance=tp.importance.GroupMagnitudeImportance(p=2), global_pruning=True,
                                       pruning_ratio=1.0, iterative_steps=_STEPS, ignored_layers=[last])
    before, _ = tp.utils.count_ops_and_params(model, example)
    now = before
    while now > left * before and pruner.current_step < _STEPS:
        pruner.step()
        now, _ = tp.utils.count_ops_and_params(model, example)
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model, (example,), dynamic_shapes=({0: batch},)), out)
    print(json.dumps({"version": tp.__version__, "macs": now / before}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5])
