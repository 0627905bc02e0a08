"""Which nodes of a graph the nodes of its optimised form stand for.

A runtime keeps the names of most values it does not fuse away. So an optimised node stands for what lies between its
outputs and what the optimised nodes before it stand for. Where a change of layout renamed an output, the node's own
name (the runtime derives it from a node or value of the original) says where to begin, and what follows there alone
and is computed by nothing else (a residual addition, an activation, a quantization) belongs to it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

_SUFFIX = re.compile(r"(_token_\d+|_nchwc)$")
_LAYOUTS = {"Transpose", "ReorderInput", "ReorderOutput"}
_EPILOGUES = {"Add", "Sum", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Gelu", "Softmax", "QuantizeLinear"}


def tag(index: int) -> str:
    """A node's name by which the optimised graph is traced back to it."""
    return f"lp{index}"


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of a control-flow node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def reads(node: onnx.NodeProto) -> set[str]:
    """The values that a node reads, those of its bodies too."""
    found = {name for name in node.input if name}
    for graph in subgraphs(node):
        for inner in graph.node:
            found |= reads(inner)
    return found


@dataclass(frozen=True)
class Attribution:
    """A graph whose nodes are named by `tag`."""

    graph: onnx.GraphProto

    @cached_property
    def producers(self) -> dict[str, int]:
        """Value to the index of the node that computes it."""
        return {name: index for index, node in enumerate(self.graph.node) for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[int]]:
        """Value to the indices of the nodes that read it."""
        found: dict[str, list[int]] = {}
        for index, node in enumerate(self.graph.node):
            for name in reads(node):
                found.setdefault(name, []).append(index)
        return found

    @cached_property
    def constants(self) -> set[int]:
        """Nodes that compute from stored values alone; the graph is in topological order, as the checker demands."""
        known = {tensor.name for tensor in self.graph.initializer} - {value.name for value in self.graph.input}
        found = set()
        for index, node in enumerate(self.graph.node):
            if node.op_type == "Constant" or (node.input and reads(node) <= known and not any(subgraphs(node))):
                found.add(index)
                known |= set(node.output)
        return found

    def __call__(self, optimised: Sequence[onnx.NodeProto]) -> list[tuple[int, ...]]:
        """For every optimised node, in order, the indices of the nodes it stands for; no node is given twice."""
        begun = [self._begin(node) for node in optimised]
        moves = {i for i, node in enumerate(optimised) if self._moves(node, begun[i][0])}
        anchors = {index for i, (found, _) in enumerate(begun) if i not in moves for index in found}
        claimed: set[int] = set()
        result: list[tuple[int, ...]] = [()] * len(optimised)
        for i in (*(i for i in range(len(optimised)) if i not in moves), *sorted(moves)):
            found, renamed = begun[i]
            if renamed:
                found = [*found, *self._epilogue(found, anchors, claimed)]
            owned = self._behind(found, claimed)
            claimed |= owned
            result[i] = tuple(sorted(owned))
        return result

    def parts(self, optimised: Sequence[onnx.NodeProto], owned: Sequence[tuple[int, ...]]) -> list[int | None]:
        """For every optimised node the one that completes what it computes a part of: operators that the runtime took apart.

        That is the next one on the way to the outputs that stands for anything; None for nodes that do so themselves and for
        changes of layout.
        """
        readers: dict[str, int] = {}
        for i, node in enumerate(optimised):
            for name in reads(node):
                readers.setdefault(name, i)
        result: list[int | None] = [None] * len(optimised)
        for i in reversed(range(len(optimised))):
            if not owned[i] and optimised[i].op_type not in _LAYOUTS:
                after = next((readers[name] for name in optimised[i].output if name in readers), None)
                result[i] = after if after is None or owned[after] else result[after]
        return result

    def _moves(self, node: onnx.NodeProto, found: Sequence[int]) -> bool:
        """Whether the runtime added the node to change a layout; its output may have taken the name of what was fused before it."""
        return node.op_type in _LAYOUTS and all(self.graph.node[index].op_type != node.op_type for index in found)

    def _begin(self, node: onnx.NodeProto) -> tuple[list[int], bool]:
        """The nodes whose outputs an optimised node computes, as far as names say, and whether its outputs were renamed."""
        by_value = [self.producers[name] for name in node.output if name in self.producers]
        if by_value:
            return by_value, False
        name, before = node.name, ""
        while name != before:
            before, name = name, _SUFFIX.sub("", name)
            if name in self.producers:
                return [self.producers[name]], True
        tags = [sorted({int(found) for found in re.findall(r"\blp(\d+)(?!\d)", text.replace("_", " "))}) for text in (name, " ".join(node.output))]
        found = [index for index in [*tags[0][-1:], *tags[1]] if index < len(self.graph.node)]
        return list(dict.fromkeys(found)), True

    def _epilogue(self, found: Sequence[int], anchors: set[int], claimed: set[int]) -> list[int]:
        """What follows on a node's only output, has no kernel of its own and waits for nothing else."""
        outputs = {value.name for value in self.graph.output}
        chain: list[int] = []
        last = found[-1] if found else None
        while last is not None:
            names = [name for name in self.graph.node[last].output if name]
            readers = self.consumers.get(names[0], []) if len(names) == 1 and names[0] not in outputs else []
            last = readers[0] if len(set(readers)) == 1 else None
            if last is None or last in anchors or not self._follows(last, names[0], claimed):
                break
            chain.append(last)
            if self.graph.node[last].op_type == "QuantizeLinear":
                break
        return chain

    def _follows(self, index: int, value: str, claimed: set[int]) -> bool:
        node = self.graph.node[index]
        others = [self.producers[name] for name in reads(node) if name != value and name in self.producers]
        return node.op_type in _EPILOGUES and all(other in claimed or other in self.constants for other in others)

    def _behind(self, found: Sequence[int], claimed: set[int]) -> set[int]:
        """The nodes found and all that they are computed from, up to what is claimed or constant."""
        owned: set[int] = set()
        waiting = [index for index in found if index not in claimed]
        while waiting:
            index = waiting.pop()
            if index in owned:
                continue
            owned.add(index)
            sources = {self.producers[name] for name in reads(self.graph.node[index]) if name in self.producers}
            waiting += [source for source in sources if source not in claimed and source not in self.constants]
        return owned
