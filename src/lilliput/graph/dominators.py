"""Dominators: through which values everything must pass that another value is computed from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx

from lilliput.graph.trace import Traced


class Dominators:
    """The dominator tree of the values that depend on a network's inputs; constants, sizes and what is made of them are left out.

    `a` dominates `b` where every way from an input to `b` leads through `a`: then `b` is computed from `a` alone.
    """

    def __init__(self, traced: Traced, values: Mapping[fx.Node, Any]) -> None:
        self._place = {node: i for i, node in enumerate(traced.graph.nodes)}
        self._above: dict[fx.Node, fx.Node | None] = {}
        self._depth: dict[fx.Node | None, int] = {None: 0}
        for node in traced.graph.nodes:
            read = self.read(node)
            if node.op == "output" or not _tensors(values.get(node)) or not (read or node.op == "placeholder"):
                continue
            above = read[0] if read else None
            for other in read[1:]:
                above = self.common(above, other)
            self._above[node] = above
            self._depth[node] = self._depth[above] + 1

    def __contains__(self, node: object) -> bool:
        return node in self._above

    def read(self, node: fx.Node) -> list[fx.Node]:
        """The values among what a node reads."""
        return [source for source in node.all_input_nodes if source in self._above]

    def common(self, a: fx.Node | None, b: fx.Node | None) -> fx.Node | None:
        """The last value from which alone both are computed, perhaps one of the two; None where they come from several inputs."""
        while a is not b:
            if self._depth[a] >= self._depth[b]:
                assert a is not None
                a = self._above[a]
            else:
                assert b is not None
                b = self._above[b]
        return a

    def dominates(self, a: fx.Node, b: fx.Node) -> bool:
        """Whether `b` is another value and computed from `a` alone."""
        return a is not b and self.common(a, b) is a

    def between(self, source: fx.Node | None, node: fx.Node) -> list[fx.Node]:
        """The values that `node` is computed by from `source`, in graph order, the latter left out."""
        found: set[fx.Node] = set()
        front = [node]
        while front:
            at = front.pop()
            if at is not source and at not in found:
                found.add(at)
                front.extend(self.read(at))
        return sorted(found, key=self._place.__getitem__)


def _tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value))
