"""Operators that write into memory, replaced by their pure forms."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def functional_(graph: fx.Graph) -> None:
    """Replace in-place operators (`relu_`, `add_`, `x[:, 1:] += y`) by their pure forms.

    A write through slices makes the whole value anew, from the parts beside what is written. Writes through other views stay,
    and so do those that a view which was taken before, and is read after, would see.
    """
    made: dict[fx.Node, tuple[Slices, fx.Node]] = {}
    for node in list(graph.nodes):
        pure = _pure_overload(node)
        source = node.args[0] if node.args else None
        written = isinstance(source, fx.Node) and source.target is aten.slice.Tensor and pure is not None
        if written and _write_slices(node, None if node.target is aten.copy_.default else pure, made):
            continue
        if pure is None or not isinstance(source, fx.Node) or not _unshared(source):
            continue
        if any(_may_alias(user) for user in source.users if user is not node):
            continue
        node.target = pure
        for user in [n for n in source.users if n is not node and node < n]:
            user.replace_input_with(source, node)


Slices = tuple[tuple[int, int, int], ...]
"""Dimension, first and last index of each slice that takes less than everything."""


def _write_slices(node: fx.Node, pure: Any, made: dict[fx.Node, tuple[Slices, fx.Node]]) -> bool:
    """Turn a write into slices of a value into a new value, where that can be; `made` tells what such values were last made from."""
    base, chain = _sliced(node.args[0])
    limits = _limits(chain)
    if limits is None or not _own(base) or _seen_by_others(node, base, chain):
        return False
    if pure is None:
        value: Any = node.args[1]
        if made.get(base) == (limits, value):  # `x[1:] += y` adds in place, and then copies the sum to where it is
            node.replace_all_uses_with(value)
            _forget(node)
            return True
        if not isinstance(value, fx.Node) or not _alike(value, node.args[0]):
            return False
        node.replace_all_uses_with(value)
    else:
        value = node
        node.target = pure
    later = [n for n in base.users if node < n]
    anew = value
    for part, within in zip(reversed([s for s in chain if _limits([s])]), reversed(limits), strict=True):
        anew = _patched(node.graph, node if anew is value else anew, part.args[0], anew, within)
    for user in later:
        user.replace_input_with(base, anew)
    made[anew] = limits, value
    if pure is None:
        _forget(node)
    return True


def _patched(graph: fx.Graph, after: fx.Node, whole: Any, value: fx.Node, limits: tuple[int, int, int]) -> fx.Node:
    """`whole` with `value` in place of the indices within `limits`."""
    dim, start, end = limits
    with graph.inserting_after(after):
        parts = [graph.call_function(aten.slice.Tensor, (whole, dim, 0, start))] if start > 0 else []
    with graph.inserting_after(parts[-1] if parts else after):
        tail = [graph.call_function(aten.slice.Tensor, (whole, dim, end, sys.maxsize))] if end < sys.maxsize else []
    last = (tail or parts or [after])[-1]
    with graph.inserting_after(last):
        return graph.call_function(aten.cat.default, ([*parts, value, *tail], dim))


def _sliced(view: Any) -> tuple[fx.Node, list[fx.Node]]:
    """What a chain of slices begins with, and the slices, first to last."""
    chain: list[fx.Node] = []
    while view.target is aten.slice.Tensor:
        chain.insert(0, view)
        view = view.args[0]
    return view, chain


def _limits(chain: list[fx.Node]) -> Slices | None:
    """Limits of slices that take less than everything; None for steps, and for ends that are counted from behind."""
    found: list[tuple[int, int, int]] = []
    for node in chain:
        arguments: tuple[Any, ...] = (*node.args, *(None,) * (5 - len(node.args)))
        source, dim, start, end, step = arguments
        start, end, dim = start or 0, sys.maxsize if end is None else end, dim or 0
        if step not in (None, 1) or not all(isinstance(v, int) and v >= 0 for v in (start, end)):
            return None
        value = source.meta.get("val")
        size = None if value is None else value.shape[dim]
        end = sys.maxsize if isinstance(size, int) and end >= size else end
        if (start, end) != (0, sys.maxsize):
            found.append((dim, start, end))
    return tuple(found)


def _own(base: fx.Node) -> bool:
    """Whether a value's memory is its own."""
    return base.op == "call_function" and not _may_alias(base)


def _seen_by_others(node: fx.Node, base: fx.Node, chain: list[fx.Node]) -> bool:
    """Whether a view of a value, other than the one that is written through, is from before the write and read after it."""
    front = [n for n in base.users if _may_alias(n) and n < node]
    while front:
        view = front.pop()
        after = [n for n in view.users if node < n]
        if after:
            return True
        front += [n for n in view.users if _may_alias(n) and n < node and n not in chain]
    return False


def _alike(a: fx.Node, b: Any) -> bool:
    """Whether two values are known to have one shape and type, so that a copy of one into the other is the one."""
    one, other = (n.meta.get("val") for n in (a, b))
    return one is not None and other is not None and one.shape == other.shape and one.dtype == other.dtype


def _forget(node: fx.Node) -> None:
    """Take a write away, and the slices that only it read."""
    view = node.args[0]
    node.graph.erase_node(node)
    while isinstance(view, fx.Node) and view.target is aten.slice.Tensor and not view.users:
        node, view = view, view.args[0]
        node.graph.erase_node(node)


def _unshared(node: fx.Node) -> bool:
    """Whether no value but this one can see a change of its memory: it is made anew, or a view nobody shares."""
    while node.op == "call_function" and _may_alias(node):
        base = node.args[0] if node.args else None
        if not isinstance(base, fx.Node) or len(base.users) > 1:
            return False
        node = base
    return node.op == "call_function"


def _pure_overload(node: fx.Node) -> Any:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    namespace, _, name = node.target._schema.name.partition("::")
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    return getattr(packet, node.target._overloadname, None)


def _may_alias(node: fx.Node) -> bool:
    """Whether the node's result may share memory with its input."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return node.op == "call_function"
    name = target._schema.name.partition("::")[2]
    # Composite shape operators (reshape, flatten, contiguous...) alias without their schema saying so.
    composite = name in {"reshape", "flatten", "unflatten", "contiguous", "to", "chunk", "expand_as", "view_as", "dropout",
                         "swapaxes", "movedim", "narrow", "type_as"}
    return composite or (any(r.alias_info is not None for r in target._schema.returns) and not name.endswith("_"))
