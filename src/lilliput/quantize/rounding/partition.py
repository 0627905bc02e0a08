"""Partitions: the pieces of a network whose results are reconstructed, layer by layer or block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, fx

from lilliput.graph.shapes import fake_values
from lilliput.graph.trace import Traced
from lilliput.graph.walk import constant_nodes
from lilliput.graph.weights import has_own_weight
from lilliput.quantize.lower import is_float
from lilliput.quantize.operators import CLAMPS, LAYERS, is_mutating, layer_name


@dataclass(frozen=True)
class Piece:
    """A part of the float network: `layers` are quantized so that `end` keeps its values.

    `start` is the one value that the piece reads, None where it is a single layer, which may read several.
    """

    layers: tuple[fx.Node, ...]
    end: fx.Node
    start: fx.Node | None = None

    @property
    def name(self) -> str:
        """The layers' names, or the first and the last."""
        names = [layer_name(layer) for layer in (self.layers[0], self.layers[-1])]
        return " to ".join(dict.fromkeys(names))


class Partition(Protocol):
    """Cuts a float network into pieces, in the order in which they run."""

    def __call__(self, traced: Traced) -> list[Piece]:
        """The pieces; layers that lie in none are not reconstructed."""


def layers(traced: Traced) -> list[Piece]:
    """Every layer by itself, with the clamp that alone reads it. (nagel2020adaround)"""
    out = []
    for node in traced.graph.nodes:
        if node.target in LAYERS and has_own_weight(node):
            reader = next(iter(node.users), None)
            clamped = reader is not None and len(node.users) == 1 and reader.target in CLAMPS
            out.append(Piece((node,), reader if clamped and reader is not None else node))
    return out


def blocks(traced: Traced) -> list[Piece]:
    """What lies between two points through which everything passes: residual blocks, and single layers outside of them.

    Operators after a block that keep its shape and have no layer (activations, norms) belong to it. (li2021brecq)
    """
    values, constant = fake_values(traced, traced.example), constant_nodes(traced)
    carried = {node for node, value in values.items()
               if node not in constant and node.op != "output" and (is_float(value) or isinstance(value, list | tuple))}
    out: list[Piece] = []
    for start, inside in _spans(traced, carried, {node for node in carried if is_float(values[node])}):
        end = inside[-1]
        held = tuple(node for node in inside if node.target in LAYERS and has_own_weight(node))
        if any(is_mutating(node) for node in inside):
            continue
        if held:
            out.append(Piece(held, end, start))
        elif out and out[-1].end is start and _shape(values[start]) == _shape(values[end]):
            out[-1] = Piece(out[-1].layers, end, out[-1].start)
    return out


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _spans(traced: Traced, carried: set[fx.Node], floats: set[fx.Node]) -> Iterator[tuple[fx.Node | None, list[fx.Node]]]:
    """Nodes between neighbouring cuts, with the cut before them; a cut is a float value that is all there is still to be read."""
    place = {node: i for i, node in enumerate(traced.graph.nodes)}
    live: set[fx.Node] = set()
    cut: fx.Node | None = None
    inside: list[fx.Node] = []
    for node in traced.graph.nodes:
        if node not in carried:
            continue
        live = {old for old in live if max((place[user] for user in old.users), default=0) > place[node]} | {node}
        inside.append(node)
        if node in floats and live == {node}:
            if node.op != "placeholder":
                yield cut, inside
            cut, inside = node, []
