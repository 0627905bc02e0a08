"""Networks for signs: a clamp in front of a binary layer would leave it nothing but +1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import fx

from lilliput.graph.trace import Traced
from lilliput.quantize.bits import Allocation
from lilliput.quantize.operators import CLAMPS, LAYERS, keeps_grid, layer_name, source_of


@dataclass(frozen=True, kw_only=True)
class Unclamped:
    """A Rewrite: layers that `bits` gives activations of up to `widest` bits, by default one, read what a clamp (ReLU) in front
    of them read.

    Convolution, batch norm, clamp, convolution becomes convolution, batch norm, sign, convolution, the block order of the papers.
    Other readers of the clamp, such as additions, keep it. Unlike other rewrites this one changes the function; what follows is
    training. (rastegari2016xnor)
    """

    bits: Allocation
    widest: int = 1
    exclude: tuple[str, ...] = ()

    def __call__(self, traced: Traced, data: Any) -> list[str]:  # noqa: ARG002
        """Rewire in place; names the clamps that stay because something else behind a pooling reads them too."""
        layers = [node for node in traced.graph.nodes if node.target in LAYERS]
        bits = self.bits(list(dict.fromkeys(layer_name(node) for node in layers)))
        notes: list[str] = []
        for layer in layers:
            name = layer_name(layer)
            if bits[name].activations <= self.widest and not any(fnmatchcase(name, pattern) for pattern in self.exclude):
                notes += self._rewire(layer, name)
        traced.graph.eliminate_dead_code()
        traced.recompile()
        return notes

    def _rewire(self, layer: fx.Node, name: str) -> list[str]:
        path = [layer, *_movers(layer)]
        clamp = source_of(path[-1])
        if clamp is None or clamp.target not in CLAMPS:
            return []
        if any(len(mover.users) > 1 for mover in path[1:]):
            return [f"{name}: its input is clamped, so that its sign says little; something else reads it too"]
        before = source_of(clamp)
        assert before is not None
        path[-1].replace_input_with(clamp, before)
        return []


def _movers(layer: fx.Node) -> Iterator[fx.Node]:
    """Operators that only move values, from the layer's input upwards."""
    source = source_of(layer)
    while source is not None and source.op == "call_function" and keeps_grid(source):
        yield source
        source = source_of(source)
