"""Walks: a network run stage by stage over the calibration samples, so that each layer is met with the inputs it really gets.

What changes weights layer by layer (a rounding, pruning) goes through the network from input to output, perhaps beside the
original, and changes a layer's weights before anything after it has run. Each network runs once in all, and only what later
operators read is kept.
"""

from __future__ import annotations

from collections import ChainMap, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.graph.shapes import fake_values
from lilliput.graph.trace import Traced

Values = dict[fx.Node, Any]


def evaluate(traced: Traced, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """The result of one node, given those of the nodes that it reads."""
    if node.op == "get_attr":
        return traced.tensor(str(node.target))
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    called: Any = traced.get_submodule(str(node.target)) if node.op == "call_module" else node.target
    return called(*args, **kwargs)


def needed(output: fx.Node, known: Mapping[fx.Node, Any]) -> list[fx.Node]:
    """The nodes, in order, that compute `output` from known values and constants; `output` is the last of them."""
    found: set[fx.Node] = set()
    front = [output]
    while front:
        node = front.pop()
        if node not in found and node not in known:
            found.add(node)
            front.extend(node.all_input_nodes)
    return [node for node in output.graph.nodes if node in found]


def constant_nodes(traced: Traced) -> set[fx.Node]:
    """Nodes whose results depend on parameters alone."""
    out: set[fx.Node] = set()
    for node in traced.graph.nodes:
        read = node.all_input_nodes
        if node.op == "get_attr" or (node.op in ("call_function", "call_module") and read and out.issuperset(read)):
            out.add(node)
    return out


class Walk:
    """A network half run, on every batch: `values[i]` holds what the nodes not yet run will read of batch `i`.

    The graph must not change meanwhile; parameters may, and count from the next node that reads them.
    """

    def __init__(self, traced: Traced, batches: Sequence[Tensor]) -> None:
        self.traced = traced
        self.nodes: list[fx.Node] = list(traced.graph.nodes)
        self.place = {node: i for i, node in enumerate(self.nodes)}
        self.named = {node.name: node for node in self.nodes}
        self.constant = constant_nodes(traced)
        self.values: list[Values] = [{} for _ in batches]
        self._batches, self._done = list(batches), 0
        self._expiring: dict[int, list[fx.Node]] = defaultdict(list)
        for node in self.nodes:
            self._expiring[max([self.place[node] + 1, *(self.place[user] for user in node.users)])].append(node)

    def before(self, node: fx.Node) -> None:
        """Run everything that stands before `node`."""
        self._advance(self.place[node])

    def through(self, node: fx.Node) -> list[Any]:
        """Run everything up to `node`; its result on every batch."""
        self._advance(self.place[node] + 1)
        return [values[node] for values in self.values]

    def _advance(self, stop: int) -> None:
        run = [node for node in self.nodes[self._done: stop] if node not in self.constant and node.op != "output"]
        constants = self.constants({source for node in run for source in node.all_input_nodes if source in self.constant})
        with torch.no_grad():
            for i, values in enumerate(self.values):
                for node in run:
                    given = node.op == "placeholder"
                    values[node] = self._batches[i] if given else evaluate(self.traced, node, ChainMap(values, constants))
                    for old in self._expiring[self.place[node]]:
                        values.pop(old, None)
        self._done = max(self._done, stop)

    def constants(self, wanted: set[fx.Node]) -> Values:
        """Results of nodes that depend on parameters alone, as these are now."""
        values: Values = {}
        with torch.no_grad():
            for node in [n for end in wanted for n in needed(end, {})]:
                if node not in values:
                    values[node] = evaluate(self.traced, node, values)
        return values


def sample_bytes(traced: Traced) -> float:
    """The most bytes that a walk keeps of one sample."""
    nodes = list(traced.graph.nodes)
    place = {node: i for i, node in enumerate(nodes)}
    values, constant = fake_values(traced, traced.example), constant_nodes(traced)
    change = [0.0] * (len(nodes) + 2)
    for node in nodes:
        value = values.get(node)
        if node not in constant and isinstance(value, Tensor):
            size = value.numel() * value.element_size()
            change[place[node]] += size
            change[max([place[node] + 1, *(place[user] for user in node.users)]) + 1] -= size
    most = running = 0.0
    for step in change:
        running += step
        most = max(most, running)
    return most / max(traced.example[0].shape[0], 1)
