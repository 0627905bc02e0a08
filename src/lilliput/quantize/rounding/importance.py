"""Importance: how much errors in each value inside the network matter to its outputs."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.graph.walk import Values, Walk, evaluate, needed


@dataclass(frozen=True, kw_only=True)
class Fisher:
    """The diagonal of the Fisher information of a piece's result `z`: `E (d L / d z)^2` over the samples, divided by its mean.

    `L` is the negative logarithm of the probability of a class drawn from the network's own prediction; where outputs are not
    scores of the data's classes, of a normal distribution of variance 1 around them. Departs from the paper, which keeps each
    sample's squared gradient of the labels' loss (here a few samples near the decision boundary would then decide everything);
    and `floor` is the share of equal weights that is mixed in. (li2021brecq)
    """

    floor: float = 0.1
    seed: int = 0

    def __call__(self, walk: Walk, end: fx.Node, data: Any) -> Tensor:
        """Weights of mean 1 for the results of `end`, for one sample; the walk stands right behind `end`."""
        generator = torch.Generator().manual_seed(self.seed)
        outputs = [node for node in walk.nodes[-1].all_input_nodes if node not in walk.constant]
        needs = {node for out in outputs for node in needed(out, walk.values[0])}
        rest = [node for node in walk.nodes if node in needs and node not in walk.constant]
        constants = walk.constants({source for node in rest for source in node.all_input_nodes if source in walk.constant})
        total = torch.zeros(())
        for values in walk.values:
            z = values[end].detach().requires_grad_()
            found: Values = {end: z}
            with torch.enable_grad():
                for node in rest:
                    found[node] = evaluate(walk.traced, node, ChainMap(found, values, constants))
                loss = sum((surprise(found[out], int(data.num_classes), generator) for out in outputs if out in found), z.new_zeros(()))
                (slope,) = torch.autograd.grad(loss, z)
            total = total.to(slope) + slope.square().sum(0, keepdim=True)
        return self.floor + (1 - self.floor) * total / total.mean().clamp(min=1e-30)


def surprise(output: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """`-log p(y | output)` for a `y` drawn from `p`, summed; up to a constant where `p` is normal."""
    if classes > 1 and output.shape[-1] == classes:
        logarithms = output.reshape(-1, classes).log_softmax(-1)
        drawn = torch.multinomial(logarithms.detach().exp(), 1, generator=generator)
        return -logarithms.gather(1, drawn).sum()
    return (output * torch.randn(output.shape, generator=generator).to(output)).sum()
