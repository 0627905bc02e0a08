"""Codebooks: a weight stored as codes and tables, and decoded in the graph by standard operators.

In the traced network the weight `NAME` becomes `reshape(embedding(NAME_table, NAME_codes))`, so that what trains is the table:
the gradient of an entry is the sum of those of all weights that share it. Codes are stored, or hashes of the weights' positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from lilliput.core.errors import PreconditionError
from lilliput.graph.fold import drop_unused_tensors_, set_parameter_
from lilliput.graph.shapes import forget_shapes
from lilliput.graph.tables import LOOKUP
from lilliput.graph.trace import Traced
from lilliput.quantize.hash_op import HASHED

aten = torch.ops.aten
Make = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Hash:
    """Codes that are hashes of positions (`lilliput::hashed`): nothing of them is stored."""

    start: int
    counts: tuple[int, ...]
    buckets: tuple[int, ...]
    seed: int = 0

    def codes(self, like: Tensor) -> Tensor:
        """The codes, `(sum(counts),)`, int32."""
        found: Tensor = HASHED(like, self.start, list(self.counts), list(self.buckets), self.seed)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A table `(K, d)` and int32 codes of any shape below `K`; block `i` is `table[codes[i]]`.

    With `books` above one the table holds as many codebooks one after the other, and the last dimension of `codes` says which
    is used: `codes[..., b]` lies in `[b K / books, (b + 1) K / books)`. The entry `fixed` stays as it is in training. A `standard` table
    follows from a formula and is the same for every weight: its entries are not counted among the bits of one.
    """

    table: Tensor
    codes: Tensor | Hash
    books: int = 1
    fixed: int | None = None
    standard: bool = False

    @property
    def entries(self) -> int:
        """Entries of one codebook."""
        return len(self.table) // self.books

    @property
    def code_bits(self) -> int:
        """Bits of all codes: `ceil(log2 K)` each, none where they are hashes."""
        return 0 if isinstance(self.codes, Hash) else self.codes.numel() * (self.entries - 1).bit_length()


@dataclass(frozen=True, kw_only=True, eq=False)
class Shared:
    """A weight of `shape` as the sum of `stages`, each giving blocks in the order of the weight's elements.

    `signs` are hashes with two buckets, minus and plus, that multiply the elements. With a `basis`, `(m, m)`, the elements are
    coefficients `(m, count)` and the weight is their transpose times the basis. `scales`, one to each slice along the first
    dimension, multiply the result. `stored` is the type in which tables and scales are kept.
    """

    shape: tuple[int, ...]
    stages: tuple[Stage, ...]
    signs: Hash | None = None
    basis: Tensor | None = None
    scales: Tensor | None = None
    stored: torch.dtype = field(default=torch.float32)

    @property
    def bits(self) -> int:
        """Bits of codes, tables and scales."""
        numbers = sum(stage.table.numel() for stage in self.stages if not stage.standard) + (0 if self.scales is None else self.scales.numel())
        return sum(stage.code_bits for stage in self.stages) + numbers * self.stored.itemsize * 8

    @property
    def bits_per_weight(self) -> float:
        """Bits of codes, tables and scales over the number of weights."""
        return self.bits / math.prod(self.shape)

    def values(self) -> Tensor:
        """The weight."""
        like = self.stages[0].table

        def constant(kind: str, value: Tensor | Hash, *, learns: bool = False) -> Tensor:  # noqa: ARG001
            return value.codes(like) if isinstance(value, Hash) else value

        with torch.no_grad():
            found: Tensor = _decoded(self, lambda target, *arguments: target(*arguments), constant)
        return found


def rounded(table: Tensor, stored: torch.dtype) -> Tensor:
    """The table's nearest values in the type in which it is stored; raises `PreconditionError` where they do not fit."""
    found = table.to(stored).to(table.dtype)
    if not bool(torch.isfinite(found).all()):
        raise PreconditionError(f"a table reaches beyond what {stored} holds: store it as torch.float32")
    return found


def _decoded(shared: Shared, call: Make, constant: Make) -> Any:
    """The weight's computation, on tensors or on nodes: `call` an operator, `constant(kind, value)` a stored tensor or a hash, which may learn."""
    total: Any = None
    for i, stage in enumerate(shared.stages):
        suffix = f"_{i}" if i else ""
        table = constant(f"table{suffix}", stage.table, learns=not stage.standard)
        fixed = () if stage.fixed is None else (stage.fixed,)
        part = call(LOOKUP, table, constant(f"codes{suffix}", stage.codes), *fixed)
        total = part if total is None else call(aten.add.Tensor, total, part)
    if shared.signs is not None:
        both = torch.tensor([[-1.0], [1.0]], dtype=shared.stages[0].table.dtype)
        total = call(aten.mul.Tensor, total, call(LOOKUP, constant("signs", both), constant("sign_codes", shared.signs)))
    if shared.basis is not None:
        coefficients = call(aten.reshape.default, total, [len(shared.basis), -1])
        total = call(aten.matmul.default, call(aten.transpose.int, coefficients, 0, 1), constant("basis", shared.basis))
    total = call(aten.reshape.default, total, list(shared.shape))
    if shared.scales is None:
        return total
    return call(aten.mul.Tensor, total, constant("scales", shared.scales.reshape(-1, *[1] * (len(shared.shape) - 1)), learns=True))


def share_(traced: Traced, name: str, shared: Shared) -> tuple[str, ...]:
    """Store the weight `name` as codes and tables, in place, for all who read it under any name.

    Returns the names of the tensors that are kept as `shared.stored`.
    """
    weight = traced.tensor(name)
    if tuple(weight.shape) != shared.shape:
        raise PreconditionError(f"{name} has shape {tuple(weight.shape)}, and the codebook is one for {shared.shape}")
    tensors = [*traced.named_parameters(remove_duplicate=False), *traced.named_buffers(remove_duplicate=False)]
    names = {key for key, tensor in tensors if tensor is weight}
    readers = [node for node in traced.graph.nodes if node.op == "get_attr" and str(node.target) in names]
    if not readers:
        raise PreconditionError(f"nothing reads {name}, so there is nothing to share: name a weight that the network uses")
    stored = _Stored(traced, name, weight)
    with traced.graph.inserting_before(readers[0]):
        decoded = _decoded(shared, lambda target, *arguments: traced.graph.call_function(target, arguments), stored)
    for node in readers:
        node.replace_all_uses_with(decoded)
        traced.graph.erase_node(node)
    drop_unused_tensors_(traced)
    forget_shapes(traced)
    traced.graph.lint()
    traced.recompile()
    return tuple(stored.tables)


class _Stored:
    """Registers tensors beside the weight and reads them; hashes become calls."""

    def __init__(self, traced: Traced, name: str, weight: Tensor) -> None:
        self.traced, self.name, self.weight = traced, name, weight
        self.tables: list[str] = []
        self._like: fx.Node | None = None

    def __call__(self, kind: str, value: Tensor | Hash, *, learns: bool = False) -> fx.Node:
        graph = self.traced.graph
        if isinstance(value, Hash):
            return graph.call_function(HASHED, (self._like, value.start, list(value.counts), list(value.buckets), value.seed))
        name = f"{self.name}_{kind}"
        if learns:
            self.tables.append(name)
            set_parameter_(self.traced, name, value.detach().to(self.weight), requires_grad=self.weight.requires_grad)
        else:
            owner, _, leaf = name.rpartition(".")
            stored = value.to(self.weight.device, self.weight.dtype if value.is_floating_point() else torch.int32)
            self.traced.get_submodule(owner).register_buffer(leaf, stored.contiguous())
        node = graph.get_attr(name)
        self._like = self._like or node
        return node


def member_counts(traced: Traced) -> dict[str, Tensor]:
    """How many blocks share each entry of every table, `(K,)`, by the table's name."""
    counts: dict[str, Tensor] = {}
    for node in traced.graph.nodes:
        table = node.args[0] if node.target is LOOKUP else None
        while isinstance(table, fx.Node) and table.op == "call_module":
            table = table.args[0]
        if not isinstance(table, fx.Node) or table.op != "get_attr":
            continue
        codes, source = None, node.args[1]
        if source.op == "get_attr":
            codes = traced.tensor(str(source.target))
        elif source.target is HASHED:
            codes = HASHED(traced.tensor(str(table.target)).detach(), *source.args[1:])
        if codes is not None:
            counts[str(table.target)] = torch.bincount(codes.flatten().long(), minlength=len(traced.tensor(str(table.target))))
    return counts
