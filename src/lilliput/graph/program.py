"""From the JSON of an exported program to a graph, by tables alone: no name in the file is looked up outside of them.

Shape expressions are skipped (evaluating them is what makes `torch.export.load` unsafe): only the sizes of the inputs are
read, and a symbolic one by its integer hint.
"""

from __future__ import annotations

import keyword
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx

from lilliput.graph.archive import DTYPES, Archive, Json

_OPERATOR = re.compile(r"torch\.ops\.(aten|lilliput)\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,4000}")
# Private operators that models use. The rest of the underscored ones take pointers, sizes and formats on trust.
_PRIVATE = re.compile(r"__[a-z]+__|_softmax|_log_softmax|_safe_softmax|_to_copy|_unsafe_view|_scaled_dot_product_\w+|"
                      r"_native_batch_norm_legit\w*|_adaptive_avg_pool[23]d|_assert_tensor_metadata|_assert_scalar|_weight_norm")
_NO_RETURN = {"_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size"}
_REFUSED = {"from_file", "set_", "set", "resize_", "resize_as_", "empty_strided", "as_strided_", "record_stream", "combinations"}
_MAX_INPUT = 2**28
_RETURNS = ("Tensor", "int", "float", "bool", "number", "SymInt", "SymFloat", "SymBool", "Scalar")
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in (
        "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pos", "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "getitem")},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")},
    **{f"torch.{name}": getattr(torch, name) for name in ("sym_max", "sym_min", "sym_float", "sym_int", "sym_not", "sym_ite")},
    "torch._sym_sqrt": torch._sym_sqrt,  # type: ignore[attr-defined]
}
_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
_PLAIN = {"as_int": int, "as_bool": bool, "as_string": str}
_PLAIN_LISTS = {"as_ints": int, "as_bools": bool, "as_strings": str}


class ProgramReader:
    """Builds the graph of one serialized program; every refusal names the file."""

    def __init__(self, archive: Archive, program: Json) -> None:
        self._archive = archive
        self._graph_json = self._get(self._get(program, "graph_module", dict), "graph", dict)
        self._signature = self._get(program["graph_module"], "signature", dict)
        self._calls = self._get(program["graph_module"], "module_call_graph", list)
        self._nodes: dict[str, fx.Node] = {}
        self.graph = fx.Graph()
        self.targets: dict[str, str] = {}
        """Names of parameters and buffers, each with its kind."""

    def _refuse(self, reason: str) -> Exception:
        return self._archive.refuse(reason)

    def _get(self, where: Any, key: str, kind: type[Any]) -> Any:
        value = where.get(key) if isinstance(where, dict) else None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._refuse(f"its program has no proper {key!r}")
        return value

    def _union(self, where: Any) -> tuple[str, Any]:
        """The one key and value of a tagged union."""
        filled = [(k, v) for k, v in where.items() if v is not None] if isinstance(where, dict) else []
        if len(filled) != 1:
            raise self._refuse("its program has an argument that is none of the known kinds")
        return filled[0]

    def read(self) -> fx.Graph:
        """The whole graph, with parameters and buffers as `get_attr` nodes."""
        inputs = self._inputs()
        for kind, name, target in inputs:
            if kind != "user_input":
                self._define(name, self.graph.create_node("get_attr", target, name=_attribute_name(target)))
                self.targets[target] = kind
        for kind, name, _ in inputs:
            if kind == "user_input":
                self._define(name, self.graph.placeholder(name))
        for row in self._get(self._graph_json, "nodes", list):
            self._node(row)
        self.graph.output(self._outputs())
        return self.graph

    def inputs(self) -> Iterator[tuple[tuple[int, ...], torch.dtype, bool]]:
        """Shape, type and whether the first dimension is symbolic, of every user input."""
        metas = self._get(self._graph_json, "tensor_values", dict)
        for kind, name, _ in self._inputs():
            if kind == "user_input":
                meta = self._get(metas, name, dict)
                sizes = self._get(meta, "sizes", list)
                dtype = DTYPES.get(self._get(meta, "dtype", int))
                if dtype is None:
                    raise self._refuse(f"input {name!r} has an unknown type")
                shape = tuple(self._size(x) for x in sizes)
                if len(shape) > 16 or math.prod(shape) > _MAX_INPUT:
                    raise self._refuse(f"input {name!r} has {len(shape)} dimensions and {math.prod(shape)} elements")
                yield shape, dtype, bool(sizes) and "as_expr" in sizes[0]

    def _size(self, value: Any) -> int:
        tag, size = self._union(value)
        if tag == "as_expr":
            size = self._union(self._get(size, "hint", dict))[1]
        if type(size) is not int or not 0 <= size < 2**31:
            raise self._refuse("an input has a size that is no number")
        return size

    def _inputs(self) -> list[tuple[str, str, str]]:
        """Kind, name within the graph, and name of the tensor, of every input."""
        out = []
        for row in self._get(self._signature, "input_specs", list):
            kind, spec = self._union(row)
            arg = self._get(spec, "arg", dict)
            if kind == "user_input":
                tag, arg = self._union(arg)
                if tag != "as_tensor":
                    raise self._refuse("it takes an input that is no tensor")
            elif kind not in {"parameter", "buffer", "tensor_constant"}:
                raise self._refuse(f"it contains an object of kind {kind!r}, which is no tensor")
            target = spec.get(f"{kind}_name", "") if kind != "user_input" else ""
            if not isinstance(target, str) or not all(_identifier(part, digits=True) for part in target.split(".") if kind != "user_input"):
                raise self._refuse(f"{target!r} is no name of a tensor")
            out.append((kind, self._name(arg), target))
        return out

    def _name(self, where: Any) -> str:
        name = self._get(where, "name", str)
        if not _NAME.fullmatch(name):
            raise self._refuse(f"{name!r} is no name of a value")
        return str(name)

    def _define(self, name: str, node: fx.Node) -> None:
        if name in self._nodes:
            raise self._refuse(f"{name!r} is defined twice")
        self._nodes[name] = node

    def _value(self, name: Any) -> fx.Node:
        if not isinstance(name, str) or name not in self._nodes:
            raise self._refuse(f"{name!r} is used before it is defined")
        return self._nodes[name]

    def _node(self, row: Any) -> None:
        target_name = self._get(row, "target", str)
        target = self._target(target_name)
        inputs = self._get(row, "inputs", list)
        outputs = self._get(row, "outputs", list)
        args, kwargs = self._arguments(target, inputs)
        name = row.get("name") or next(iter(self._result_names(outputs)), None)
        if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name)):
            raise self._refuse(f"{name!r} is no name of a value")
        node = self.graph.create_node("call_function", target, args, kwargs, name)
        single = len(outputs) == 1 and self._union(outputs[0])[0] in {"as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"}
        for index, result in enumerate(self._result_names(outputs)):
            if not result:
                continue
            taken = node if single else self.graph.create_node("call_function", operator.getitem, (node, index), name=result)
            self._define(result, taken)

    def _result_names(self, outputs: list[Any]) -> list[str]:
        """Names of a node's results; the empty name for one that nobody uses."""
        names: list[str] = []
        for output in outputs:
            tag, value = self._union(output)
            if tag == "as_none":
                names.append("")
            elif tag in {"as_sym_int", "as_sym_float", "as_sym_bool"}:
                names.append(self._name({"name": value.get("as_name") if isinstance(value, dict) else None}))
            elif tag in {"as_tensor", "as_tensors"}:
                names.extend(self._name(item) for item in (value if isinstance(value, list) else [value]))
            else:
                raise self._refuse(f"a node returns {tag!r}")
        return names

    def _target(self, name: str) -> Callable[..., Any]:
        if name in _ARITHMETIC:
            return _ARITHMETIC[name]
        match = _OPERATOR.fullmatch(name)
        if match is None:
            raise self._refuse(f"it calls {name[:100]!r}, which is no tensor operator")
        space, base, overload = match.groups()
        packet = getattr(getattr(torch.ops, space), base, None)
        target = getattr(packet, overload, None) if isinstance(packet, torch._ops.OpOverloadPacket) else None
        if not isinstance(target, torch._ops.OpOverload):
            hint = "; import lilliput.quantize first, which defines it" if space == "lilliput" else " in this version of torch"
            raise self._refuse(f"operator {name!r} does not exist{hint}")
        if not _harmless(target, base):
            raise self._refuse(f"operator {name!r} does more than compute tensors")
        return target

    def _arguments(self, target: Callable[..., Any], inputs: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        known = {a.name for a in target._schema.arguments} if isinstance(target, torch._ops.OpOverload) else set()
        for row in inputs:
            name, value = self._get(row, "name", str), self._argument(self._get(row, "arg", dict))
            if known and name not in known:
                raise self._refuse(f"{target} has no argument {name[:100]!r}")
            if kwargs or row.get("kind") == 2 or (row.get("kind") != 1 and known and args and _keyword_only(target, name)):
                if not _identifier(name) or not known:
                    raise self._refuse(f"{target} has no argument {name[:100]!r}")
                kwargs[name] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def _argument(self, where: Any) -> Any:
        tag, value = self._union(where)
        if tag == "as_none":
            return None
        if tag == "as_tensor":
            return self._value(self._name(value))
        if tag in _PLAIN or tag == "as_float":
            return self._plain(value, _PLAIN.get(tag, float))
        if isinstance(value, list):
            return self._sequence(tag, value)
        if tag in {"as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"}:
            return self._maybe_symbol(value)
        if tag == "as_scalar_type" and type(value) is int and value in DTYPES:
            return DTYPES[value]
        if tag == "as_memory_format" and type(value) is int and value in _MEMORY_FORMATS:
            return _MEMORY_FORMATS[value]
        if tag == "as_layout" and value == 7:
            return torch.strided
        if tag == "as_device" and isinstance(value, dict):
            return torch.device("cpu")
        raise self._refuse(f"an argument of kind {tag[:100]!r} is not supported")

    def _sequence(self, tag: str, items: list[Any]) -> list[Any]:
        if tag in _PLAIN_LISTS or tag == "as_floats":
            return [self._plain(item, _PLAIN_LISTS.get(tag, float)) for item in items]
        if tag == "as_tensors":
            return [self._value(self._name(item)) for item in items]
        if tag in {"as_sym_ints", "as_sym_floats", "as_sym_bools", "as_optional_tensors"}:
            return [self._maybe_symbol(item) for item in items]
        raise self._refuse(f"an argument of kind {tag[:100]!r} is not supported")

    def _maybe_symbol(self, where: Any) -> Any:
        tag, value = self._union(where)
        if tag == "as_name":
            return self._value(value)
        if tag in {"as_tensor", "as_none", "as_int", "as_float", "as_bool"}:
            return self._argument(where)
        raise self._refuse(f"an argument of kind {tag[:100]!r} is not supported")

    def _plain(self, value: Any, kind: type[Any]) -> Any:
        if kind is float and value in ("Infinity", "-Infinity", "NaN"):
            return float(value)
        if kind is float and type(value) in (int, float):
            return float(value)
        if type(value) is not kind or (kind is int and not -(2**63) <= value < 2**63):
            raise self._refuse(f"an argument should be {kind.__name__}, but is {str(value)[:100]!r}")
        return value

    def _outputs(self) -> Any:
        for row in self._get(self._signature, "output_specs", list):
            if self._union(row)[0] != "user_output":
                raise self._refuse("it changes its own buffers or inputs; export it after .eval()")
        leaves = iter([self._argument(output) for output in self._get(self._graph_json, "outputs", list)])
        root: Mapping[str, Any] = next((call for call in self._calls if isinstance(call, dict) and call.get("fqn") == ""), {})
        spec = self._get(self._get(root, "signature", dict), "out_spec", str)
        structure = unflatten(spec, leaves)
        if structure is _NOTHING or next(leaves, _NOTHING) is not _NOTHING:
            raise self._refuse("the structure of its outputs is none of tensor, tuple, list and dictionary")
        return structure


_NOTHING = object()


def unflatten(spec: str, leaves: Iterator[Any]) -> Any:
    """Leaves arranged as a serialized pytree says; `_NOTHING` when it is of no plain kind or needs more leaves."""
    import json

    try:
        parsed = json.loads(spec)
        return _arrange(parsed[1], leaves)
    except (ValueError, LookupError, TypeError, RecursionError, StopIteration):
        return _NOTHING


def _arrange(spec: Any, leaves: Iterator[Any]) -> Any:
    kind, children = spec["type"], spec["children_spec"]
    if kind is None:
        return next(leaves)
    values = [_arrange(child, leaves) for child in children]
    if kind == "builtins.list":
        return values
    if kind == "builtins.tuple":
        return tuple(values)
    if kind in {"builtins.dict", "collections.OrderedDict"}:
        import json

        keys = json.loads(spec["context"]) if isinstance(spec["context"], str) else spec["context"]
        if not all(isinstance(key, (str, int)) for key in keys) or len(keys) != len(values):
            raise TypeError(kind)
        return dict(zip(keys, values, strict=True))
    raise TypeError(kind)


def _identifier(text: str, digits: bool = False) -> bool:
    plain = _NAME.fullmatch(text) is not None and not (text.startswith("__") and text.endswith("__"))
    return (plain and not keyword.iskeyword(text)) or (digits and (text.isdecimal() or plain))


def _keyword_only(target: Any, name: str) -> bool:
    return any(a.name == name and a.kwarg_only for a in target._schema.arguments)


def _harmless(target: torch._ops.OpOverload, base: str) -> bool:
    schema = target._schema
    if base in _REFUSED or (base.startswith("_") and not _PRIVATE.fullmatch(base)):
        return False
    if any(argument.name in {"filename", "path"} for argument in schema.arguments):
        return False
    kinds = {str(result.type).replace("[]", "").removeprefix("List[").removesuffix("]") for result in schema.returns}
    return kinds <= set(_RETURNS) if kinds else base in _NO_RETURN


def _attribute_name(target: str) -> str:
    return target.replace(".", "_")
