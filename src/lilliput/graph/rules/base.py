"""The state that propagation rules share, and the table of rules by operator name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from lilliput.graph.labels import Field, Labels, along, compress, varying
from lilliput.graph.shapes import Shape, Shapes
from lilliput.graph.trace import Traced

_ELEMENTWISE_LIMIT = 1 << 22
# Positions of scale and, where there is one, shift among the arguments of normalisations.
NORMS: dict[str, tuple[int, ...]] = {"batch_norm": (1, 2), "instance_norm": (1, 2), "layer_norm": (2, 3), "group_norm": (2, 3), "rms_norm": (2,)}


@dataclass
class Propagation:
    """Fields of every node of one traced network, while they are being found.

    `vectors` holds the labels of `(tensor name, dimension)` for weights; `whole` holds one label per element for
    tensors that take part in arithmetic themselves (position embeddings, layer scale). `excluded` names what was
    pinned because no rule covers it.
    """

    traced: Traced
    shapes: Shapes
    labels: Labels = field(default_factory=Labels)
    fields: dict[fx.Node, Any] = field(default_factory=dict)
    vectors: dict[tuple[str, int], Field] = field(default_factory=dict)
    whole: dict[str, Field] = field(default_factory=dict)
    producers: dict[fx.Node, tuple[str, int]] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    _tied_names: dict[int, str] = field(default_factory=dict)

    def name(self, node: fx.Node) -> str:
        """Dotted tensor name of a `get_attr` node; tied tensors share the first name."""
        return self.canonical(str(node.target))

    def canonical(self, name: str) -> str:
        """The first name under which a tensor was met."""
        return self._tied_names.setdefault(id(self.traced.tensor(name)), name)

    def shape(self, node: fx.Node) -> Shape:
        """Concrete shape of a node's value."""
        return self.shapes[node]  # type: ignore[no-any-return]

    def vector(self, node: fx.Node, dim: int) -> Field:
        """Labels along one dimension of a weight."""
        key = (self.name(node), dim)
        if key not in self.vectors:
            self.vectors[key] = self.labels.fresh([self.traced.tensor(key[0]).shape[dim]])
        return self.vectors[key]

    def field(self, node: Any) -> Field | None:
        """The field of a node's value; tensors that are used as values get one label per element."""
        if not isinstance(node, fx.Node):
            return None
        if node.op == "get_attr" and node not in self.fields:
            self.fields[node] = self._attribute(node)
        return self.fields.get(node)

    def _attribute(self, node: fx.Node) -> Field | None:
        tensor = self.traced.tensor(str(node.target))
        if not tensor.is_floating_point() or tensor.ndim == 0 or tensor.numel() > _ELEMENTWISE_LIMIT:
            return None
        name = self.name(node)
        if name not in self.whole:
            self.whole[name] = self.labels.fresh(tensor.shape)
        return self.whole[name]

    def pin(self, node: Any, reason: str = "") -> None:
        """Make everything about a node's value unremovable; with a reason, list it as excluded."""
        found = self.field(node)
        for part in found if isinstance(found, list) else [found]:
            if part is not None:
                self.labels.pin(part)
        if reason and isinstance(node, fx.Node):
            self.excluded.setdefault(node.name, reason)

    def pin_along(self, found: Field | None, axes: Sequence[int]) -> Field | None:
        """Pin what varies along `axes`; the field loses those dimensions' variation."""
        if found is None:
            return None
        touched = [a for a in axes if found.shape[a] > 1]
        if not touched:
            return found
        self.labels.pin(found)
        return compress(self.labels.tie_along(found, touched) * 0)

    def channel_vector(self, node: fx.Node, axis: int) -> Field | None:
        """Labels of a value along one axis; variation along other axes is tied away. None: dense, unlabelled."""
        found = self.field(node)
        if found is None:
            return None
        if found.shape[axis] == 1:
            self.labels.pin(found)
            return None
        others = [a for a in varying(found) if a != axis]
        return self.labels.tie_along(found, others).reshape(-1)

    def bind(self, node: Any, dim: int, vector: Field | None) -> None:
        """Tie one dimension of a weight to a vector of labels (None: pin it); absent weights are skipped."""
        if not isinstance(node, fx.Node):
            return
        if node.op != "get_attr":
            self._bind_computed(node, vector)
            return
        own = self.vector(node, dim)
        if vector is None:
            self.labels.pin(own)
        else:
            self.labels.tie(own, vector)

    def _bind_computed(self, node: fx.Node, vector: Field | None) -> None:
        """A bias that the graph computes from stored tensors follows its channels; anything else is pinned."""
        found = self.field(node)
        if vector is not None and found is not None and found.shape == vector.shape:
            self.labels.tie(found, vector)
            return
        self.pin(node, "computed weight")
        if vector is not None:
            self.labels.pin(vector)

    def lay(self, vector: Field, axis: int, ndim: int) -> Field:
        """A vector of labels along one dimension of a value."""
        return along(vector, axis % ndim, ndim)


Rule = Callable[[Propagation, fx.Node], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators, by schema name without overload."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def op_name(node: fx.Node) -> str:
    """Schema name of a node's operator without namespace `aten`, or the Python function's name."""
    if isinstance(node.target, torch._ops.OpOverload):
        namespace, _, name = node.target._schema.name.partition("::")
        return name if namespace == "aten" else f"{namespace}::{name}"
    return getattr(node.target, "__name__", str(node.target))


def scaled_norms(traced: Traced) -> list[tuple[str, fx.Node]]:
    """Batch norms with a scale, after its name, in graph order."""
    return [(str(n.args[1].target), n) for n in traced.graph.nodes
            if n.op == "call_function" and op_name(n) == "batch_norm" and isinstance(n.args[1], fx.Node)]


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An operator's argument, by position or keyword."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def tensors(items: Any) -> list[fx.Node]:
    """The nodes among arguments, lists flattened."""
    found: list[fx.Node] = []
    for item in items:
        if isinstance(item, fx.Node):
            found.append(item)
        elif isinstance(item, (list, tuple)):
            found.extend(tensors(item))
    return found


def is_tensor(value: object) -> bool:
    """Whether a recorded shape belongs to a tensor."""
    return isinstance(value, tuple)


__all__ = ["RULES", "Propagation", "argument", "is_tensor", "op_name", "rule", "tensors"]
