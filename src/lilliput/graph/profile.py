"""Profile: parameters, multiply-accumulates, memory traffic and peak activation memory, per layer."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError
from lilliput.graph.arithmetic import macs
from lilliput.graph.rules.base import op_name, tensors
from lilliput.graph.shapes import fake_values
from lilliput.graph.tables import table_of
from lilliput.graph.trace import Traced, as_inputs, trace

_ARITHMETIC = {"relu", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "add", "mul", "sub", "div", "softmax",
               "batch_norm", "layer_norm", "group_norm", "rms_norm", "avg_pool2d", "adaptive_avg_pool2d", "max_pool2d", "mean"}
# Operators whose first result is the output, and the others states.
_SEVERAL = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell"}


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """One operator, for one sample.

    `params` counts the tensors it is the first to use, `macs` multiply-accumulates, `flops` two per MAC and one per
    element of other arithmetic, `access` the elements read and written (Ma 2018: `HW(Cin+Cout) + k^2 Cin Cout` for a
    convolution), `activation_bytes` the size of its result.
    """

    layer: str
    op: str
    output: tuple[int, ...]
    params: int
    macs: int
    flops: int
    access: int
    activation_bytes: int


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Layers in execution order, and totals for one sample."""

    layers: tuple[LayerProfile, ...]
    params: int
    macs: int
    flops: int
    access: int
    peak_memory: int
    weight_bytes: int

    def totals(self) -> dict[str, int]:
        """The totals as a dictionary."""
        return {k: v for k, v in asdict(self).items() if k != "layers"}


def profile(model: nn.Module, example: Tensor | tuple[Tensor, ...] | None = None) -> Profile:
    """Profile a network for one sample of the shapes in `example`; a traced network knows its own.

    Nothing is computed: shapes are propagated on fake tensors. `peak_memory` is the largest number of bytes of
    activations alive at once when operators run in graph order, views sharing memory, weights aside.
    """
    if example is None and not isinstance(model, Traced):
        raise PreconditionError("profile needs an example input for a network that is not traced: pass example=")
    traced = trace(model, example) if example is not None else model
    assert isinstance(traced, Traced)
    inputs = as_inputs(example) if example is not None else traced.example
    samples = 1
    if traced.dynamic_batch:
        inputs = tuple(torch.zeros_like(x[:1]) if x.ndim else x for x in inputs)
    else:
        inputs = traced.example
        samples = max(1, inputs[0].shape[0])
    values = fake_values(traced, inputs)
    layers = tuple(_layers(traced, values, samples))
    parameters = list(traced.parameters())
    return Profile(
        layers=layers,
        params=sum(p.numel() for p in parameters),
        macs=sum(row.macs for row in layers),
        flops=sum(row.flops for row in layers),
        access=sum(row.access for row in layers),
        peak_memory=_peak(traced, values) // samples,
        weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
    )


def _layers(traced: Traced, values: dict[fx.Node, Any], samples: int) -> list[LayerProfile]:
    seen: set[int] = set()
    rows = []
    for node in traced.graph.nodes:
        value = values.get(node)
        if node.op != "call_function":
            continue
        if op_name(node) in _SEVERAL:
            value = value[0] if isinstance(value, list | tuple) else value
            values = {**values, node: value}
        if not isinstance(value, Tensor):
            continue
        weights = [w for n in tensors(node.args) if (w := weight_source(n)) is not None]
        params = 0
        for weight in weights:
            tensor = traced.tensor(str(weight.target))
            if isinstance(tensor, nn.Parameter) and id(tensor) not in seen:
                seen.add(id(tensor))
                params += tensor.numel()
        rows.append(_row(node, value, values, weights, params, samples))
    return rows


def _row(node: fx.Node, value: Tensor, values: dict[fx.Node, Any], weights: list[fx.Node], params: int,
         samples: int) -> LayerProfile:
    def shape(n: Any) -> tuple[int, ...]:
        return tuple(int(s) for s in values[n].shape)

    # What is computed from stored tensors alone (a weight from its codes) is computed once, not for every sample.
    count = 0 if weight_source(node) is not None else macs(node, shape) // samples
    elements = math.prod(shape(node)) // samples
    operands = [n for n in tensors(node.args) if isinstance(values.get(n), Tensor)]
    read = sum(math.prod(shape(n)) // (1 if weight_source(n) is not None else samples) for n in operands)
    moves = bool(count) or op_name(node) in _ARITHMETIC
    name = str(weights[0].target).rpartition(".")[0] if weights else ""
    return LayerProfile(
        layer=name or node.name, op=op_name(node), output=tuple(shape(node)[1:]), params=params, macs=count,
        flops=2 * count if count else (elements if op_name(node) in _ARITHMETIC else 0),
        access=read + elements if moves else 0, activation_bytes=elements * value.element_size(),
    )


def weight_source(node: fx.Node) -> fx.Node | None:
    """The `get_attr` node behind a value that is computed from a stored tensor alone (a quantized weight, a transpose).

    Of a weight that is looked up in a table, the table.
    """
    table = table_of(node)
    if table is not None:
        return table
    while node.op in ("call_module", "call_function"):
        sources = tensors(node.args)
        if len(sources) != 1:
            return None
        node = sources[0]
    return node if node.op == "get_attr" else None


def _peak(traced: Traced, values: dict[fx.Node, Any]) -> int:
    """Largest sum of live storages; a storage lives from its first value to the last use of any value in it."""
    order = {node: position for position, node in enumerate(traced.graph.nodes)}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    size: dict[int, int] = {}
    for node, position in order.items():
        if node.op == "get_attr" or weight_source(node) is not None:
            continue
        value = values.get(node)
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, Tensor):
                key = part.untyped_storage()._cdata
                first.setdefault(key, position)
                size[key] = part.untyped_storage().nbytes()
                last[key] = max(last.get(key, position), *(order[user] for user in node.users), position)
    changes = [0] * (len(order) + 1)
    for key, start in first.items():
        changes[start] += size[key]
        changes[last[key] + 1] -= size[key]
    return max(itertools.accumulate(changes))
