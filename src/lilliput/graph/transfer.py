"""Traced networks on their way to another process of the same program.

Torch rebuilds a pickled graph module by tracing its code anew, which fails for exported graphs and would rename nodes;
here the graph goes as a list of its nodes. Not a file format: what is stored is written by other means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

if TYPE_CHECKING:
    from lilliput.graph.trace import Traced

_Row = tuple[str, str, Any, Any, Any]


@dataclass(frozen=True)
class _Operator:
    """An ATen operator, by name."""

    name: str

    def resolve(self) -> Any:
        value: Any = torch.ops
        for part in self.name.split("."):
            value = getattr(value, part)
        return value


def reduce(traced: Traced) -> tuple[Callable[..., Traced], tuple[Any, ...]]:
    """What pickle needs to rebuild a traced network; node metadata stays behind."""
    root = nn.Module()
    for name in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
        getattr(root, name).update(getattr(traced, name))
    root.training = traced.training
    rows = [_row(node) for node in traced.graph.nodes]
    return _rebuild, (root, rows, traced.graph._codegen, dict(traced.meta.get("lilliput", {})))


def _row(node: fx.Node) -> _Row:
    target = _Operator(str(node.target)) if isinstance(node.target, torch._ops.OpOverload) else node.target
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: _Reference(n.name))  # type: ignore[arg-type,return-value]
    return node.name, node.op, target, args, kwargs


@dataclass(frozen=True)
class _Reference:
    """A node, by name."""

    name: str


def _rebuild(root: nn.Module, rows: list[_Row], codegen: Any, meta: dict[str, Any]) -> Traced:
    from lilliput.graph.trace import Traced

    graph, nodes = fx.Graph(), dict[str, fx.Node]()
    for name, op, target, args, kwargs in rows:
        target = target.resolve() if isinstance(target, _Operator) else target
        args, kwargs = fx.node.map_aggregate((args, kwargs), lambda a: nodes[a.name] if isinstance(a, _Reference) else a)
        nodes[name] = graph.create_node(op, target, args, kwargs, name)
    graph.set_codegen(codegen)
    traced = Traced(root, graph)
    for name in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
        # In the order of the original, by which processes match their parameters.
        getattr(traced, name).clear()
        getattr(traced, name).update(getattr(root, name))
    traced.meta["lilliput"] = meta
    traced.training = root.training
    return traced
