"""APQ-ViT: scales chosen block by block, by the errors that matter to the network's outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import RecipeError
from lilliput.graph.trace import Traced
from lilliput.graph.walk import Walk
from lilliput.quantize.calibrate import calibration_batches, widen_
from lilliput.quantize.grids import Integer, Parameters
from lilliput.quantize.layers import held_quantizer
from lilliput.quantize.operators import is_transparent, name_of
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.rounding.importance import Fisher
from lilliput.quantize.rounding.partition import Partition, blocks
from lilliput.quantize.rounding.problem import Problem, pose
from lilliput.quantize.rounding.reconstruct import Importance
from lilliput.quantize.rounding.search import factors, take_best_
from lilliput.train.progress import Bar


@dataclass(frozen=True, kw_only=True)
class BlockwiseCalibration:
    """A rounding: the scales in a block are the multiples, from `low` to `high`, for which the block's results err least.

    Squared errors of the block's results are weighted by `importance`, and the `eliminated` share of them that is smallest
    counts for nothing: these can hardly be avoided, and would drown the others by their number. One scale after the other,
    weights and activations in the order in which they stand, `rounds` times. Softmaxes take no part: they keep an affine grid
    from zero to the largest value seen, so that the few large weights of attention stay what they are however few bits there
    are (the Matthew effect), at the cost of the many small ones.

    Known here from summaries of the paper: the share that is eliminated, and by what it is chosen, are this project's reading;
    second-order weights are the diagonal of the Fisher matrix, averaged over samples. (ding2022apqvit)
    """

    partition: Partition = blocks
    importance: Importance = field(default_factory=lambda: Fisher(floor=0.0))
    eliminated: float = 0.3
    low: float = 0.5
    high: float = 1.2
    steps: int = 15
    rounds: int = 1
    samples: int = 32

    def __post_init__(self) -> None:
        if not 0 <= self.eliminated < 1:
            raise RecipeError(f"the share of errors to leave out lies in 0 to 1, not {self.eliminated}")

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:
        """Choose scales in place."""
        tried = factors(self.low, self.high, self.steps)
        batches, notes = calibration_batches(reference, data, min(samples, self.samples))
        kept = preserve_softmaxes_(quantized, reference, batches)
        pieces = self.partition(reference)
        mine, theirs = Walk(quantized, batches), Walk(reference, batches)
        changed = total = 0
        with Bar(total=len(pieces)) as bar:
            for index, piece in enumerate(pieces):
                wanted = theirs.through(piece.end)
                problem = pose(mine, piece, wanted, self.importance(theirs, piece.end, data), scales=True)
                found = [] if problem is None else [*problem.weights, *(q for q in problem.scales if q not in kept)]
                for quantizer in found * self.rounds:
                    assert problem is not None
                    changed += take_best_(quantizer, tried, partial(eliminated, problem, self.eliminated)) != 1
                total += len(found) * self.rounds
                bar.update(index + 1, piece.name)
        notes.append(f"{changed} of {total} scales moved in {len(pieces)} blocks; "
                     f"{len(kept)} softmaxes range up to their largest value")
        return notes + widen_(quantized)


def eliminated(problem: Problem, share: float) -> float:
    """Sum of the squared errors of a block's results on all samples, weighted, without the smallest `share` of them."""
    total = 0.0
    with torch.no_grad():
        for i, wanted in enumerate(problem.wanted):
            squares = (problem.result(i) - wanted).square()
            weighted = squares if problem.importance is None else squares * problem.importance
            dropped = int(share * squares.numel())
            if dropped:
                least = squares.flatten().kthvalue(dropped).values
                weighted = torch.where(squares > least, weighted, 0.0)
            total += float(weighted.sum())
    return total


def preserve_softmaxes_(quantized: Traced, reference: Traced, batches: list[Tensor]) -> set[Quantizer]:
    """Give quantizers of softmaxes the range from zero to the largest value, in place; returns them."""
    walk = Walk(reference, batches)
    kept: set[Quantizer] = set()
    for node in quantized.graph.nodes:
        quantizer, source = held_quantizer(quantized, node), node.args[0] if node.args else None
        while isinstance(source, fx.Node) and is_transparent(source):
            source = source.args[0]
        if quantizer is None or quantizer.weight or not isinstance(source, fx.Node) or "softmax" not in name_of(source):
            continue
        if isinstance(quantizer.grid, Integer):
            most = torch.stack([values.amax() for values in walk.through(walk.named[source.name])]).amax()
            found = quantizer.grid.parameters(torch.zeros(()), most)
            quantizer.set(Parameters(*(parameter.to(quantizer.scale.device) for parameter in found)))
            kept.add(quantizer)
    return kept
