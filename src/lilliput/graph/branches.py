"""Residual branches: additions one summand of which can go, alone, and leave a network behind."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.graph.arithmetic import macs
from lilliput.graph.dominators import Dominators
from lilliput.graph.fold import drop_unused_tensors_
from lilliput.graph.profile import weight_source
from lilliput.graph.rules.base import op_name, tensors
from lilliput.graph.shapes import fake_values, forget_shapes
from lilliput.graph.trace import Traced

_ADDITIONS = ("add", "add_")


@dataclass(frozen=True, kw_only=True)
class Branch:
    """`f` of one addition `x + f(x)`, by the names of nodes: `addition`, `source` (`x`) and `output` (`f(x)`).

    `kept` is the position of the summand that stays. Where that is no `x` but a projection of it, the branch is `projected`. `layers` are
    the layers with weights on the way from source to output; `params` and `macs` (of one sample) what goes when this branch alone does.
    """

    name: str
    addition: str
    source: str
    output: str
    kept: int
    projected: bool
    layers: tuple[str, ...]
    params: int = 0
    macs: int = 0


class Residuals:
    """The residual branches of one network, in graph order, and by name of its node the reason why an addition is none that could be resolved.

    One summand must be computed from the other alone, or from what the other itself adds to (two branches side by side), or both from one
    value and one of them with a single layer or none (a projection, padding, pooling) and the other with more. Additions of constants and
    those without a layer on either side (inside of an activation, of rotary positions) are part of what stands around them and not listed.
    """

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self._values = fake_values(traced, traced.example)
        self._flow = Dominators(traced, self._values)
        self._layers = {node: name for node in traced.graph.nodes if (name := self._layer(node)) is not None}
        self._samples = max(1, traced.example[0].shape[0]) if traced.example[0].ndim else 1
        self.unresolved: dict[str, str] = {}
        shortcuts: dict[fx.Node, fx.Node] = {}
        found = []
        for node in traced.graph.nodes:
            if node.op == "call_function" and op_name(node) in _ADDITIONS and self._sum_of_values(node):
                branch = self._branch(node, shortcuts)
                if isinstance(branch, Branch):
                    shortcuts[node] = node.args[branch.kept]
                    found.append(branch)
                elif branch:
                    self.unresolved[node.name] = branch
        self._nodes = {node.name: node for node in traced.graph.nodes}
        self.found = tuple(self._counted(_named(found)))

    def _layer(self, node: fx.Node) -> str | None:
        """The name of the layer that a node is; None for one without stored weights of its own."""
        if node.op != "call_function" or not macs(node, self._shape):
            return None
        weights = [w for n in tensors(node.args) if (w := weight_source(n)) is not None]
        return str(weights[0].target).rpartition(".")[0] or str(weights[0].target) if weights else None

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(int(s) for s in self._values[node].shape)

    def _sum_of_values(self, node: fx.Node) -> bool:
        value, summands = self._values[node], node.args[:2]
        floats = isinstance(value, Tensor) and value.is_floating_point()
        return floats and len(set(summands)) == 2 and all(summand in self._flow for summand in summands)

    def _branch(self, node: fx.Node, shortcuts: Mapping[fx.Node, fx.Node]) -> Branch | str | None:
        """The branch of an addition, why it has none, or None where it holds no layer."""
        summands: list[Any] = list(node.args[:2])
        ways = {kept: source for kept in (0, 1) if (source := self._inside(summands[kept], summands[1 - kept], shortcuts)) is not None}
        source = self._flow.common(summands[0], summands[1])
        counts = [len(self._between(source, summand)) for summand in summands]
        if len(ways) == 2:
            return "each summand could be the shortcut of the other"
        if not ways:
            if not any(counts):
                return None
            if source is None:
                return "the summands come from different inputs"
            if min(counts) > 1 or counts[0] == counts[1]:
                return "both summands compute as much, and neither is a shortcut"
            ways = {int(counts[1] < counts[0]): source}
        (kept, origin), = ways.items()
        layers = tuple(dict.fromkeys(self._layers[n] for n in self._between(origin, summands[1 - kept])))
        if not layers:
            return None
        if self._shape(summands[kept]) != self._shape(node) or self._values[summands[kept]].dtype != self._values[node].dtype:
            return "the sum is of another shape or type than the shortcut"
        if op_name(node) == "add_" or (kept == 1 and node.kwargs.get("alpha", 1) != 1):
            return "the addition changes its shortcut"
        return Branch(name=node.name, addition=node.name, source=origin.name, output=summands[1 - kept].name, kept=kept,
                      projected=origin not in _stream(summands[kept], shortcuts), layers=layers)

    def _inside(self, shortcut: fx.Node, output: fx.Node, shortcuts: Mapping[fx.Node, fx.Node]) -> fx.Node | None:
        """What of the shortcut's stream the other summand is computed from alone."""
        return next((place for place in _stream(shortcut, shortcuts) if self._flow.dominates(place, output)), None)

    def _between(self, source: fx.Node | None, output: fx.Node) -> list[fx.Node]:
        """The layers on the way from a source, itself left out, to an output."""
        return [node for node in self._flow.between(source, output) if node in self._layers]

    def _counted(self, found: Iterable[Branch]) -> Iterable[Branch]:
        whole = self.cost(())
        for branch in found:
            rest = self.cost((branch,))
            yield replace(branch, params=round(whole["params"] - rest["params"]), macs=round(whole["macs"] - rest["macs"]))

    def live(self, removed: Collection[Branch]) -> frozenset[fx.Node]:
        """The nodes that the outputs still need without these branches."""
        kept = {self._nodes[b.addition]: self._nodes[b.addition].args[b.kept] for b in removed}
        found: set[fx.Node] = set()
        front: list[Any] = [self.traced.graph.output_node()]
        while front:
            node = front.pop()
            if node not in found:
                found.add(node)
                front.extend([kept[node]] if node in kept else node.all_input_nodes)
        return frozenset(found - kept.keys())

    def cost(self, removed: Collection[Branch]) -> dict[str, float]:
        """`{"macs", "params"}` of one sample without these branches."""
        live = self.live(removed)
        read = {id(t): t for n in live if n.op == "get_attr" and isinstance(t := self.traced.tensor(str(n.target)), torch.nn.Parameter)}
        count = sum(macs(n, self._shape) for n in live if n.op == "call_function" and weight_source(n) is None)
        return {"macs": count / self._samples, "params": float(sum(t.numel() for t in read.values()))}


def without(traced: Traced, branches: Collection[Branch]) -> Traced:
    """A new network whose additions give their shortcut alone, without the tensors that only these branches read.

    It equals the one in which the branches' outputs are multiplied by zero. `traced` may be a copy of the network that they were found in,
    trained or shrunk since: nodes are known by their names.
    """
    out = copy.deepcopy(traced)
    nodes = {node.name: node for node in out.graph.nodes}
    for branch in branches:
        addition = nodes[branch.addition]
        shortcut = addition.args[branch.kept]
        assert isinstance(shortcut, fx.Node)
        addition.replace_all_uses_with(shortcut)
        out.graph.erase_node(addition)
    forget_shapes(out)
    # Attention and dropout draw random numbers, which torch takes for an effect that must stay.
    out.graph.eliminate_dead_code(is_impure_node=_acts)
    drop_unused_tensors_(out)
    out.recompile()
    return out


def _acts(node: fx.Node) -> bool:
    return node.op in ("placeholder", "output") or (isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable)


def inside(traced: Traced, branch: Branch) -> set[fx.Node]:
    """The nodes that compute a branch's output from its source, constants included and the source not."""
    nodes = {node.name: node for node in traced.graph.nodes}
    found: set[fx.Node] = set()
    front = [nodes[branch.output]]
    while front:
        node = front.pop()
        if node not in found and node.name != branch.source:
            found.add(node)
            front.extend(node.all_input_nodes)
    return found


def _stream(node: fx.Node, shortcuts: Mapping[fx.Node, fx.Node]) -> Iterable[fx.Node]:
    """A value, and where it is a sum the shortcut of that, and so on."""
    yield node
    while node in shortcuts:
        node = shortcuts[node]
        yield node


def _named(found: list[Branch]) -> list[Branch]:
    """Branches by what their layers' names begin with, or where that is nothing or does not tell them apart, by their addition."""
    parts = [zip(*(layer.split(".") for layer in branch.layers), strict=False) for branch in found]
    joined = [".".join(place[0] for place in takewhile(lambda place: len(set(place)) == 1, places)) for places in parts]
    taken = Counter(joined)
    return [replace(b, name=name if name and taken[name] == 1 else f"{name}:{b.addition}".lstrip(":")) for b, name in zip(found, joined, strict=True)]

