"""One piece of the quantized network as a problem of its own: what goes in, what should come out, what may change."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from lilliput.graph.trace import Traced
from lilliput.graph.walk import Values, Walk, evaluate, needed
from lilliput.graph.weights import parameter
from lilliput.quantize.grids import Integer
from lilliput.quantize.layers import held_quantizer
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.rounding.partition import Piece


@dataclass(frozen=True, eq=False)
class Problem:
    """`nodes` compute the piece's result from what is `known` of each batch; it should be `wanted`.

    `weights` are the quantizers to learn with the names of their tensors, `scales` those of activations. Errors are counted
    in units of the mean square of what is wanted and of one channel, times `importance` where there is one.
    """

    traced: Traced
    nodes: list[fx.Node]
    known: list[Values]
    wanted: list[Tensor]
    importance: Tensor | None
    weights: dict[Quantizer, str]
    scales: list[Quantizer]

    @property
    def channels(self) -> int:
        """Channels of the result: the second dimension of images and the last of everything else."""
        shape = self.wanted[0].shape
        return int(shape[1 if len(shape) > 3 else -1])

    def result(self, batch: int) -> Tensor:
        """What the piece computes now."""
        values: Values = {}
        for node in self.nodes:
            values[node] = evaluate(self.traced, node, ChainMap(values, self.known[batch]))
        found: Tensor = values[self.nodes[-1]]
        return found

    def error(self, batch: int) -> Tensor:
        """The sum of squared errors of a batch, weighted."""
        error = (self.result(batch) - self.wanted[batch]).square()
        return (error if self.importance is None else error * self.importance).sum()

    def total(self) -> float:
        """The same on all batches, over the sum of squares of what is wanted."""
        with torch.no_grad():
            return sum(float(self.error(i)) for i in range(len(self.wanted))) / self.power

    @property
    def power(self) -> float:
        """Sum of squares of what is wanted."""
        return max(sum(float(wanted.square().sum()) for wanted in self.wanted), 1e-30)


def pose(walk: Walk, piece: Piece, wanted: list[Tensor], importance: Tensor | None, *, scales: bool) -> Problem | None:
    """Walk through the quantized network up to the piece and pose its problem; None where no weight in it can be learned.

    With `scales`, the result is that of the quantizer after the piece.
    """
    end = walk.named[piece.end.name]
    if piece.start is None:
        walk.before(walk.named[piece.layers[0].name])
    else:
        walk.through(quantized(walk, walk.named[piece.start.name]))
    inside = needed(quantized(walk, end) if scales else end, walk.values[0])
    held = {node: held_quantizer(walk.traced, node) for node in inside}
    integer = {node: quantizer for node, quantizer in held.items() if quantizer is not None and isinstance(quantizer.grid, Integer)}
    read_by_layers = {walk.named[layer.name].args[1] for layer in piece.layers}
    weights = [node for node in integer if node in read_by_layers]
    if not weights:
        return None
    moving = {*weights, *(source for node in weights for source in node.all_input_nodes)}
    for node in inside:
        if node not in walk.constant or not moving.isdisjoint(node.all_input_nodes):
            moving.add(node)
    read = {source for node in moving for source in node.all_input_nodes} - moving
    fixed = walk.constants(read & walk.constant)
    known = [{**fixed, **{node: values[node] for node in read if node in values}} for values in walk.values]
    names = {integer[node]: str(parameter(node)) for node in weights}
    learned = [module for module in integer.values() if scales and not module.weight]
    return Problem(walk.traced, [node for node in inside if node in moving], known, wanted, importance, names, learned)


def quantized(walk: Walk, node: fx.Node) -> fx.Node:
    """The quantizer that stands after a node, or else the node itself."""
    for user in node.users:
        if held_quantizer(walk.traced, user) is not None:
            return user
    return node

