"""What a network would cost after a removal, in closed form: no tracing, no shapes, microseconds per question."""

from __future__ import annotations

import math
from collections.abc import Set
from typing import Any

import numpy as np
from torch import fx

from lilliput.graph.arithmetic import macs
from lilliput.graph.coupling import Coupling, Ints, Keep
from lilliput.graph.profile import weight_source
from lilliput.graph.rules import op_name


class Cost:
    """MACs (one sample) and parameters of a traced network as functions of what is kept.

    Both are sums of products of kept extents: every layer's MACs scale with the kept share of each dimension that
    its loops run over.
    """

    def __init__(self, coupling: Coupling) -> None:
        self.coupling = coupling
        batch = coupling.traced.example[0].shape[0] if coupling.traced.example[0].ndim else 1
        counts = [(macs(n, coupling.size_of), n) for n in coupling.traced.graph.nodes]
        self._dims: dict[bytes, tuple[int, Ints]] = {}
        readers: dict[int, set[fx.Node]] = {}
        for n in coupling.traced.graph.find_nodes(op="get_attr"):
            readers.setdefault(id(coupling.traced.tensor(str(n.target))), set()).add(n)
        self._macs = [(count / batch, self._numbers(_loops(coupling, n)), {n}) for count, n in counts if count]
        self._params = [(float(p.numel()), self._numbers(list(coupling.dims.get(name, {}).values())), readers.get(id(p), set()))
                        for name, p in coupling.traced.named_parameters()]

    def _numbers(self, dims: list[Ints]) -> list[int]:
        """Each dimension by its number: a layer's output, its norm and the next layer's input share one."""
        return [self._dims.setdefault(components.tobytes(), (len(self._dims), components))[0] for components in dims]

    def __call__(self, keep: Keep, live: Set[fx.Node] | None = None) -> dict[str, float]:
        """`{"macs", "params"}` of the network that `keep` leaves (one flag per component), or of those of its nodes that are `live`."""
        share = [np.count_nonzero(keep[components]) / len(components) for _, components in self._dims.values()]
        return {name: sum(count * math.prod(share[dim] for dim in dims) for count, dims, nodes in terms if live is None or nodes & live)
                for name, terms in (("macs", self._macs), ("params", self._params))}


def _loops(coupling: Coupling, node: fx.Node) -> list[Ints]:
    """Components along every dimension that a node's loops run over."""
    name = op_name(node)
    if name == "scaled_dot_product_attention":
        # Query-key and value products have the same share unless widths shrink alone, which only one head allows.
        return list(_dims(coupling, node.args[0]).values())
    if name == "einsum":
        return _einsum_loops(coupling, node)
    weights = [w for n in node.all_input_nodes if (w := weight_source(n)) is not None]
    weighted = [w for w in weights if len(coupling.size_of(w)) > 1]
    if weighted:
        return list(coupling.dims.get(coupling.canonical(str(weighted[0].target)), {}).values())
    contracted = _dims(coupling, node.args[0])
    last = len(coupling.size_of(node.args[0])) - 1  # type: ignore[arg-type]
    return [*_dims(coupling, node).values(), *([contracted[last]] if last in contracted else [])]


def _dims(coupling: Coupling, node: Any) -> dict[int, Ints]:
    dims = coupling.node_dims(node)
    assert isinstance(dims, dict)
    return dims


def _einsum_loops(coupling: Coupling, node: fx.Node) -> list[Ints]:
    terms = str(node.args[0]).replace(" ", "").split("->")[0].split(",")
    loops: dict[str, Ints] = {}
    for term, operand in zip(terms, node.args[1], strict=True):  # type: ignore[arg-type]
        loops.update({term[d]: components for d, components in _dims(coupling, operand).items()})
    return list(loops.values())
