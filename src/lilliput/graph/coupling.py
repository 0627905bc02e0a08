"""Coupled channels: which slices of which tensors must go together, for any traced network.

Where this differs from a dependency graph over layers (Fang 2023, `fang2023depgraph`): labels are carried by
elements, so concatenation, splitting, reshapes, channel shuffles, window partitions, fused projections and heads
need no case of their own beyond the rule of the operator that moves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from lilliput.graph.labels import Field, varying
from lilliput.graph.rules import RULES, Propagation, op_name, scaled_norms, tensors
from lilliput.graph.rules.movement import arithmetic_on_sizes, passthrough_module
from lilliput.graph.shapes import shapes
from lilliput.graph.trace import Traced, collection_paused

Ints = NDArray[np.int64]
Keep = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Slot:
    """One dimension of one tensor: `unit[i]` is the unit of index `i`, or -1 where it belongs to none of the group.

    `role` is `out` for the dimension along which a layer makes its channels, `in` for a weight's contracted
    dimension, `norm` for a batch norm's scale, `other` for what merely follows (biases, statistics, positions).
    """

    tensor: str
    dim: int
    role: str
    unit: Ints


@dataclass(frozen=True, eq=False)
class Group:
    """Layers whose channels are coupled. `units` slices can be removed, each from every slot at once."""

    name: str
    units: int
    slots: tuple[Slot, ...]
    components: Ints

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that make these channels."""
        return tuple(dict.fromkeys(s.tensor.rpartition(".")[0] or s.tensor for s in self.slots if s.role == "out"))


class Coupling:
    """The coupled channels of one traced network.

    `groups` are the prunable groups, in graph order; `excluded` maps node names to the reason why what flows
    through them stays whole.
    """

    @collection_paused()
    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self._p = propagate(traced)
        _make_rectangular(self._p)
        self.components: Ints = self._p.labels.components()
        self.excluded: dict[str, str] = dict(self._p.excluded)

    @property
    def count(self) -> int:
        """Number of components, the pinned one (0) included."""
        return int(self.components.max()) + 1

    @cached_property
    def dims(self) -> dict[str, dict[int, Ints]]:
        """Component of each index, per tensor and dimension; tensors that stay whole are absent."""
        found: dict[str, dict[int, Ints]] = {}
        for (name, dim), labels in self._p.vectors.items():
            found.setdefault(name, {})[dim] = self.components[labels]
        for name, labels in self._p.whole.items():
            mapped = self.components[labels]
            for dim in _changing(mapped):
                found.setdefault(name, {})[dim] = _first_along(mapped, dim)
        return {name: dims for name, dims in found.items() if any(c.any() for c in dims.values())}

    def node_dims(self, node: fx.Node) -> dict[int, Ints] | list[dict[int, Ints]]:
        """Component of each index along every labelled dimension of a node's value."""
        found = self._p.fields.get(node)
        if isinstance(found, list):
            return [self._field_dims(f) for f in found]
        return self._field_dims(found)

    def _field_dims(self, found: Field | None) -> dict[int, Ints]:
        if found is None:
            return {}
        mapped = self.components[found]
        return {dim: _first_along(mapped, dim) for dim in _changing(mapped)}

    def canonical(self, name: str) -> str:
        """The name under which a tensor's dimensions are listed: tied tensors share one."""
        return self._p.canonical(name)

    def size_of(self, node: fx.Node) -> Any:
        """Shape of a node's value before anything is removed."""
        return self._p.shapes[node]

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Prunable groups: components linked by a layer that makes channels of both."""
        producers = {key: self.components[self._p.vectors[key]] for key in dict.fromkeys(self._p.producers.values())}
        root = _linked(self.count, [c[c > 0] for c in producers.values()])
        names: dict[int, str] = {}
        for (tensor, _), components in producers.items():
            for r in np.unique(root[components[components > 0]]):
                names.setdefault(int(r), tensor.rpartition(".")[0] or tensor)
        slots: dict[int, list[Slot]] = {r: [] for r in names}
        members = {r: np.flatnonzero(root == r) for r in names}
        position = np.full(self.count, -1, np.int64)
        for component_list in members.values():
            position[component_list] = np.arange(len(component_list))
        for tensor, dims in self.dims.items():
            for dim, components in dims.items():
                role = self._role(tensor, dim, producers)
                for r in np.unique(root[components[components > 0]]):
                    if int(r) in slots:
                        inside = (root[components] == r) & (components > 0)
                        slots[int(r)].append(Slot(tensor, dim, role, np.where(inside, position[components], -1)))
        return tuple(Group(name, len(members[r]), tuple(slots[r]), members[r]) for r, name in names.items())

    def _role(self, tensor: str, dim: int, producers: Mapping[tuple[str, int], Any]) -> str:
        if (tensor, dim) in producers:
            return "out"
        if tensor in self._weights:
            return "in"
        return "norm" if tensor in self._norms else "other"

    @cached_property
    def _weights(self) -> frozenset[str]:
        """Names of weights that make channels."""
        return frozenset(name for name, _ in self._p.producers.values())

    @cached_property
    def _norms(self) -> frozenset[str]:
        """Names of batch-norm scales."""
        return frozenset(self.canonical(name) for name, _ in scaled_norms(self.traced))

    def keep_all(self) -> Keep:
        """A mask over components that keeps everything."""
        return np.ones(self.count, dtype=np.bool_)

    def keep(self, choice: Mapping[str, Keep]) -> Keep:
        """Mask over components from masks over the units of groups, by group name."""
        kept = self.keep_all()
        for group in self.groups:
            if group.name in choice:
                kept[group.components] = choice[group.name]
        return kept


def propagate(traced: Traced) -> Propagation:
    """Carry labels through every node; inputs, outputs and what no rule covers are pinned."""
    p = Propagation(traced, shapes(traced))
    for node in traced.graph.nodes:
        if node.op == "call_function":
            p.fields[node] = _apply_rule(p, node)
        elif node.op == "call_module":
            p.fields[node] = passthrough_module(p, node)
        elif node.op == "output":
            for result in tensors(node.args):
                p.pin(result)
    return p


def _apply_rule(p: Propagation, node: fx.Node) -> Any:
    rule = RULES.get(op_name(node))
    if arithmetic_on_sizes(p, node):
        return None
    if rule is not None:
        return rule(p, node)
    labelled = [n for n in tensors([*node.args, *node.kwargs.values()]) if p.field(n) is not None]
    for operand in labelled:
        p.pin(operand)
    if labelled:
        p.excluded[node.name] = f"no rule for {op_name(node)}"
    return None


def _changing(mapped: Ints) -> list[int]:
    """Dimensions along which components change, or the only labelled one when it holds a single unit."""
    dims = [d for d in range(mapped.ndim) if mapped.shape[d] > 1 and (mapped != mapped.take([0], axis=d)).any()]
    if not dims and mapped.any():
        dims = [max(range(mapped.ndim), key=lambda d: mapped.shape[d])]
    return dims


def _make_rectangular(p: Propagation) -> None:
    """Tie labels until what is left of every tensor is again a full rectangle.

    A field whose components change along two dimensions (a fused projection seen as heads x width, a channel
    shuffle) would lose a ragged set; it keeps the dimension with the most units and is tied along the others.
    """
    candidates = [f for found in p.fields.values() for f in (found if isinstance(found, list) else [found])
                  if f is not None and len(varying(f)) > 1]
    candidates += [f for f in p.whole.values() if len(varying(f)) > 1]
    while True:
        components = p.labels.components()
        ragged = [(f, components[f]) for f in candidates]
        ragged = [(f, mapped) for f, mapped in ragged if len(_changing(mapped)) > 1]
        if not ragged:
            return
        for found, mapped in ragged:
            dims = _changing(mapped)
            best = max(dims, key=lambda d: len(np.unique(_first_along(mapped, d))))
            p.labels.tie_along(found, [d for d in dims if d != best])


def _first_along(mapped: Ints, dim: int) -> Ints:
    return mapped[tuple(slice(None) if d == dim else 0 for d in range(mapped.ndim))]


def _linked(count: int, sets: list[Ints]) -> Ints:
    """Root number of each component, where components of one set are linked."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = np.concatenate([np.repeat(s[:1], len(s)) for s in sets]) if sets else np.empty(0, np.int64)
    cols = np.concatenate(sets) if sets else np.empty(0, np.int64)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, cols)), shape=(count, count))
    roots: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return roots
