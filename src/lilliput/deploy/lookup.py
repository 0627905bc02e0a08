"""Tables that are looked up with constant codes in an exported graph: packed codes, decoded by standard operators.

The exporter leaves every `embedding` as one node `lilliput.Lookup`. Where its codes are constant and more than the table has
entries, they become initializers `NAME.codes` of `ceil(log2 K)` bits each (for a width that is no power of two, one to each
power in it), and Gather looks up. A table whose entries are all half-precision numbers is stored as such, and so are the factors
that multiply what is looked up. `lilliput::hashed` becomes integer arithmetic.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript
from numpy.typing import NDArray

from lilliput.core.xxhash import PRIMES
from lilliput.deploy.levels import unpack
from lilliput.deploy.qdq import DOMAIN, Array, initializer

_MASK = 2**32 - 1


def _operator(name: str, inputs: dict[str, list[str]], output: list[str],
              attributes: dict[str, onnx.defs.OpSchema.AttrType]) -> onnxscript.values.Op:
    kinds = {**inputs, "output": output}
    schema = onnx.defs.OpSchema(
        name, DOMAIN, 1,
        inputs=[onnx.defs.OpSchema.FormalParameter(key, f"T_{key}") for key in inputs],
        outputs=[onnx.defs.OpSchema.FormalParameter("y", "T_output")],
        type_constraints=[(f"T_{key}", [f"tensor({kind})" for kind in found], "") for key, found in kinds.items()],
        attributes=[onnx.defs.OpSchema.Attribute(key, kind, "") for key, kind in attributes.items()],
    )
    return onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), name, schema)


_FLOATS = ["float", "float16", "bfloat16", "double"]
_LOOKUP = _operator("Lookup", {"table": _FLOATS, "codes": ["int32", "int64"]}, _FLOATS, {})
_INT, _INTS = onnx.defs.OpSchema.AttrType.INT, onnx.defs.OpSchema.AttrType.INTS
_HASHED = _operator("Hashed", {"like": _FLOATS}, ["int32"], {"start": _INT, "counts": _INTS, "buckets": _INTS, "seed": _INT})


def translate(table: ir.Value, codes: ir.Value, padding_idx: int = -1, scale_grad_by_freq: bool = False,  # noqa: ARG001
              sparse: bool = False) -> ir.Value:  # noqa: ARG001
    """What the exporter writes for an embedding: one node that `lower_lookups_` replaces."""
    result: ir.Value = _LOOKUP(table, codes)
    return result


def translate_hashed(like: ir.Value, start: int, counts: list[int], buckets: list[int], seed: int) -> ir.Value:
    """What the exporter writes for `lilliput::hashed`: one node that `lower_lookups_` replaces."""
    result: ir.Value = _HASHED(like, start=start, counts=list(counts), buckets=list(buckets), seed=seed)
    return result


class Builder:
    """Collects nodes; arrays become initializers."""

    def __init__(self, model: ir.Model, name: str) -> None:
        self.model, self.name = model, name
        self.nodes: list[ir.Node] = []

    def __call__(self, op: str, *inputs: ir.Value | Array, **attributes: int | list[int]) -> ir.Value:
        """One operator."""
        values = [x if isinstance(x, ir.Value) else initializer(self.model, f"{self.name}.{op.lower()}", x) for x in inputs]
        given = [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()]
        self.nodes.append(ir.Node("", op, values, given, num_outputs=1, name=f"{self.name}.{op.lower()}_{len(self.nodes)}"))
        return self.nodes[-1].outputs[0]


def lower_lookups_(model: ir.Model) -> None:
    """Replace every lookup, and every hash of positions."""
    hashed = [node for node in model.graph if node.op_type == "Hashed" and node.domain == DOMAIN]
    ends: dict[int, int] = {}
    for node in hashed:
        seed = _ints(node, "seed")[0]
        ends[seed] = max(ends.get(seed, 0), _ints(node, "start")[0] + sum(_ints(node, "counts")))
    hashes: dict[int, ir.Value] = {}
    for node in hashed:
        build = Builder(model, str(node.outputs[0].name))
        seed = _ints(node, "seed")[0]
        if seed not in hashes:
            hashes[seed] = positions_hashed(build, seed, ends[seed])
        _replace(model, node, build, _buckets(build, node, hashes[seed]), ir.DataType.INT32)
    for node in [node for node in model.graph if node.op_type == "Lookup" and node.domain == DOMAIN]:
        table, codes = node.inputs
        assert table is not None
        assert codes is not None
        build = Builder(model, str(codes.name))
        found, shape = ir.convenience.get_const_tensor(codes), table.shape
        entries = shape[0] if shape is not None else 0
        if found is not None and isinstance(entries, int) and found.size > entries > 0:
            codes = packed(build, found.numpy().astype(np.int64), entries)
        _replace(model, node, build, build("Gather", _narrow(build, table), codes, axis=0), table.dtype)
        _narrow_factors(model, build.nodes[-1].outputs[0])


def _replace(model: ir.Model, node: ir.Node, build: Builder, new: ir.Value, kind: ir.DataType | None) -> None:
    model.graph.insert_before(node, build.nodes)
    old = node.outputs[0]
    name, shape = old.name, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name = None
    new.name, new.shape, new.type = name, shape, None if kind is None else ir.TensorType(kind)
    model.graph.remove(node, safe=True)


def _ints(node: ir.Node, name: str) -> list[int]:
    attribute = node.attributes[name]
    return [attribute.as_int()] if attribute.type == ir.AttributeType.INT else [int(v) for v in attribute.as_ints()]


def packed(build: Builder, codes: NDArray[np.int64], entries: int) -> ir.Value:
    """The codes from as few bits as they need; where every column of them has a codebook of its own, without its number."""
    books = codes.shape[-1] if codes.ndim > 1 and entries % codes.shape[-1] == 0 else 1
    first = np.arange(books) * (entries // books)
    if books > 1 and not (codes // (entries // books) == np.arange(books)).all():
        books, first = 1, np.zeros(1, np.int64)
    flat = (codes - first).reshape(-1) if books > 1 else codes.reshape(-1)
    width = max((entries // books - 1).bit_length(), 1)
    total: ir.Value | None = None
    below = 0
    for plane in (16, 8, 4, 2, 1):
        if not width & plane:
            continue
        name = f"{build.name}.from{below}" if below else build.name
        chain = unpack(build.model, name, (flat >> below) & ((1 << plane) - 1), plane)
        build.nodes += chain.nodes
        part = build("Mul", chain.value, np.array(1 << below, np.int32)) if below else chain.value
        total = part if total is None else build("Add", total, part)
        below += plane
    assert total is not None
    total = build("Reshape", total, np.array(codes.shape, np.int64))
    return build("Add", total, first.astype(np.int32)) if books > 1 else total


def _narrow(build: Builder, table: ir.Value) -> ir.Value:
    """The table, as half-precision numbers where it holds no others."""
    found = ir.convenience.get_const_tensor(table)
    if found is None or found.dtype != ir.DataType.FLOAT or found.size < 8:
        return table
    values = found.numpy()
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), values):
        return table
    stored = initializer(build.model, f"{table.name}.half", half)
    return build("Cast", stored, to=int(ir.DataType.FLOAT))


def _narrow_factors(model: ir.Model, found: ir.Value) -> None:
    """Store the constants that multiply the value, or what is made of it alone, as half-precision numbers where they are that."""
    for node, index in list(found.uses()):
        if node.op_type == "Mul":
            build = Builder(model, str(found.name))
            factor = node.inputs[1 - index]
            if factor is not None and (new := _narrow(build, factor)) is not factor:
                model.graph.insert_before(node, build.nodes)
                node.replace_input_with(1 - index, new)
        if node.op_type in ("Mul", "Add", "Reshape"):
            _narrow_factors(model, node.outputs[0])


def positions_hashed(build: Builder, seed: int, count: int) -> ir.Value:
    """xxHash of the numbers from 0 to `count - 1`, as `lilliput.core.xxhash` computes it, in integers of 64 bits."""

    def number(value: int) -> Array:
        return np.array(value, np.int64)

    def low(a: ir.Value) -> ir.Value:
        return build("BitwiseAnd", a, number(_MASK))

    def times(a: ir.Value, prime: int) -> ir.Value:
        # In two halves, so that no product reaches 2^63.
        upper = build("BitwiseAnd", build("Mul", a, number(prime >> 16)), number(0xFFFF))
        return low(build("Add", build("Mul", a, number(prime & 0xFFFF)), build("Mul", upper, number(1 << 16))))

    def mixed(a: ir.Value, shift: int) -> ir.Value:
        return build("BitwiseXor", a, build("Div", a, number(1 << shift)))

    keys = build("Range", number(0), number(count), number(1))
    h = low(build("Add", times(keys, PRIMES[2]), number((seed + PRIMES[4] + 4) & _MASK)))
    h = times(build("Add", low(build("Mul", h, number(1 << 17))), build("Div", h, number(1 << 15))), PRIMES[3])
    h = times(mixed(h, 15), PRIMES[1])
    return mixed(times(mixed(h, 13), PRIMES[2]), 16)


def _buckets(build: Builder, node: ir.Node, hashes: ir.Value) -> ir.Value:
    """The buckets of every segment, one after the other."""
    start, base, parts = _ints(node, "start")[0], 0, []
    for count, buckets in zip(_ints(node, "counts"), _ints(node, "buckets"), strict=True):
        part = build("Slice", hashes, np.array([start], np.int64), np.array([start + count], np.int64))
        part = build("Mod", part, np.array(buckets, np.int64))
        parts.append(build("Add", part, np.array(base, np.int64)) if base else part)
        start, base = start + count, base + buckets
    joined = parts[0] if len(parts) == 1 else build("Concat", *parts, axis=0)
    return build("Cast", joined, to=int(ir.DataType.INT32))
