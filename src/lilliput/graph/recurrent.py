"""Recurrent layers as what they compute: steps of products, sums, sigmoids and tanhs, with the same weights at every step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from lilliput.core.errors import PreconditionError
from lilliput.graph.fold import drop_unused_tensors_
from lilliput.graph.shapes import fake_values
from lilliput.graph.trace import Traced

aten = torch.ops.aten
_META = "lilliput_edge"
RECURRENT_WEIGHTS = ("weight_ih", "weight_hh", "weight_hr")
"""How torch names the weights of a recurrent module, of which it has several."""
_States = tuple[fx.Node, ...]


def edge_of(node: fx.Node) -> str | None:
    """The name that a value within a recurrent cell has at every time step, such as `rnn.l0.state`; None for other values."""
    name = node.meta.get(_META)
    return name if isinstance(name, str) else None


def is_recurrent(node: fx.Node) -> bool:
    """Whether the node is a whole recurrent layer or cell."""
    return node.target in _LAYERS or node.target in _CELLS


def unroll_(traced: Traced) -> None:
    """Replace LSTM, GRU and plain recurrent layers and cells, in place, by operators on every time step; outputs stay the same.

    The product with the inputs is taken over all steps at once. Values of one cell that differ only in their time step have the
    same `edge_of`, the states before the first step included. Dropout between layers stays.

    Raises `PreconditionError` where time steps lie along the dimension of the samples.
    """
    nodes = [node for node in traced.graph.nodes if is_recurrent(node)]
    if not nodes:
        return
    values = fake_values(traced, traced.example)
    for node in nodes:
        with traced.graph.inserting_before(node):
            if node.target in _LAYERS:
                _check_steps(traced, node, values)
            results = _layer(node, values) if node.target in _LAYERS else _CELLS[node.target](node)
        _replace(node, results)
    traced.graph.eliminate_dead_code()
    drop_unused_tensors_(traced)
    traced.graph.lint()
    traced.recompile()


def _check_steps(traced: Traced, node: fx.Node, values: dict[fx.Node, Any]) -> None:
    """Torch traces a recurrent layer over the dimension of the samples, but for the number of them in the example alone."""
    if not traced.dynamic_batch and _time(node) == 0 and values[node.args[0]].shape[0] == traced.example[0].shape[0]:  # type: ignore[index]
        raise PreconditionError(f"the time steps of {node.name} lie along the dimension of the samples: give the network inputs of shape "
                                "(samples, steps, features), and batch_first=True or a transpose in front of the layer")


def _replace(node: fx.Node, results: Sequence[fx.Node]) -> None:
    """Give the readers of a node its results."""
    graph = node.graph
    if len(node.target._schema.returns) == 1:  # type: ignore[union-attr]
        node.replace_all_uses_with(results[0])
    for user in list(node.users):
        user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index]
        graph.erase_node(user)
    graph.erase_node(node)


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One cell: its name, the weight and bias of the states, and of an LSTM whose state is projected that weight."""

    graph: fx.Graph
    name: str
    weight: fx.Node
    bias: fx.Node | None
    projection: fx.Node | None = None

    def edge(self, role: str, target: Callable[..., Any], *args: Any) -> fx.Node:
        """A call whose result is the same edge at every time step."""
        node = self.graph.call_function(target, args)
        node.meta[_META] = f"{self.name}.{role}" if self.name else role
        return node

    def parts(self, node: fx.Node, count: int) -> list[fx.Node]:
        """Equal parts along the features."""
        chunks = self.graph.call_function(aten.chunk.default, (node, count, -1))
        return [self.graph.call_function(operator.getitem, (chunks, i)) for i in range(count)]

    def first(self, role: str, state: fx.Node) -> fx.Node:
        """A state on the edge of that role; one that comes from elsewhere is copied there."""
        return state if edge_of(state) == (f"{self.name}.{role}" if self.name else role) else self.edge(role, aten.clone.default, state)

    def product(self, state: fx.Node) -> fx.Node:
        """The state's part of the gates."""
        return self.edge("recurrent", aten.linear.default, state, self.weight, self.bias)


def _lstm(cell: _Cell, inputs: fx.Node, states: _States) -> _States:
    """`i, f, g, o` from the gates; `c' = f c + i g`, `h' = o tanh(c')`, projected where there is a projection."""
    state, memory = cell.first("state", states[0]), cell.first("memory", states[1])
    i, f, g, o = cell.parts(cell.edge("gates", aten.add.Tensor, inputs, cell.product(state)), 4)
    kept = cell.edge("kept", aten.mul.Tensor, cell.edge("forget_gate", aten.sigmoid.default, f), memory)
    new = cell.edge("new", aten.mul.Tensor, cell.edge("input_gate", aten.sigmoid.default, i), cell.edge("candidate", aten.tanh.default, g))
    memory = cell.edge("memory", aten.add.Tensor, kept, new)
    squashed = cell.edge("squashed", aten.tanh.default, memory)
    gate = cell.edge("output_gate", aten.sigmoid.default, o)
    if cell.projection is None:
        return cell.edge("state", aten.mul.Tensor, gate, squashed), memory
    return cell.edge("state", aten.linear.default, cell.edge("hidden", aten.mul.Tensor, gate, squashed), cell.projection), memory


def _gru(cell: _Cell, inputs: fx.Node, states: _States) -> _States:
    """`r, z` from the gates; `n = tanh(x_n + r h_n)`, `h' = n + z (h - n)`, as torch computes `(1 - z) n + z h`."""
    state = cell.first("state", states[0])
    xr, xz, xn = cell.parts(inputs, 3)
    hr, hz, hn = cell.parts(cell.product(state), 3)
    reset = cell.edge("reset_gate", aten.sigmoid.default, cell.edge("reset", aten.add.Tensor, xr, hr))
    update = cell.edge("update_gate", aten.sigmoid.default, cell.edge("update", aten.add.Tensor, xz, hz))
    past = cell.edge("past", aten.mul.Tensor, reset, hn)
    new = cell.edge("candidate", aten.tanh.default, cell.edge("new", aten.add.Tensor, xn, past))
    kept = cell.edge("kept", aten.mul.Tensor, update, cell.edge("difference", aten.sub.Tensor, state, new))
    return (cell.edge("state", aten.add.Tensor, new, kept),)


def _plain(activation: Callable[..., Any]) -> Callable[[_Cell, fx.Node, _States], _States]:
    """`h' = activation(x + W h + b)`."""

    def step(cell: _Cell, inputs: fx.Node, states: _States) -> _States:
        product = cell.product(cell.first("state", states[0]))
        return (cell.edge("state", activation, cell.edge("sum", aten.add.Tensor, inputs, product)),)

    return step


_Step = Callable[[_Cell, fx.Node, _States], _States]
_LAYERS: dict[Any, _Step] = {aten.lstm.input: _lstm, aten.gru.input: _gru, aten.rnn_tanh.input: _plain(aten.tanh.default),
                             aten.rnn_relu.input: _plain(aten.relu.default)}


def _cell_name(weight: fx.Node) -> str:
    """`rnn.l0_reverse` for the weight `rnn.weight_hh_l0_reverse`, `cell` for `cell.weight_hh`."""
    owner, _, leaf = str(weight.target if weight.op == "get_attr" else weight.name).rpartition(".")
    part = leaf.removeprefix("weight_hh").removeprefix("_")
    return ".".join(filter(None, (owner, part)))


def _time(node: fx.Node) -> int:
    """The dimension of the inputs that counts time steps."""
    return 1 if node.args[-1] else 0


def _one(step: _Step) -> Callable[[fx.Node], _States]:
    """A single step."""

    def rule(node: fx.Node) -> _States:
        x, state, weight, recurrent, *biases = node.args
        bias, recurrent_bias = (*biases, None, None)[:2]
        assert isinstance(recurrent, fx.Node)
        cell = _Cell(graph=node.graph, name=_cell_name(recurrent), weight=recurrent, bias=recurrent_bias)  # type: ignore[arg-type]
        inputs = cell.edge("inputs", aten.linear.default, x, weight, bias)
        return step(cell, inputs, tuple(state) if isinstance(state, list | tuple) else (state,))  # type: ignore[arg-type]

    return rule


_CELLS: dict[Any, Callable[[fx.Node], _States]] = {
    aten.lstm_cell.default: _one(_lstm), aten.gru_cell.default: _one(_gru),
    aten.rnn_tanh_cell.default: _one(_plain(aten.tanh.default)), aten.rnn_relu_cell.default: _one(_plain(aten.relu.default))}


def _layer(node: fx.Node, values: dict[fx.Node, Any]) -> tuple[fx.Node, ...]:
    """All layers and directions over all time steps: the states of the last layer over time, and the last ones of each layer."""
    x, start, weights, biased, layers, dropout, _, both, _ = node.args
    states: Any = start if isinstance(start, list | tuple) else [start]
    tensors: Any = weights
    assert isinstance(x, fx.Node)
    graph, time, steps = node.graph, _time(node), int(values[x].shape[_time(node)])
    directions = 2 if both else 1
    size = len(tensors) // (layers * directions)  # type: ignore[operator]
    last: list[_States] = []
    for layer in range(layers):  # type: ignore[arg-type]
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            cell, inputs = _part(graph, x, tensors[index * size:(index + 1) * size], biased=bool(biased))
            now = tuple(graph.call_function(aten.select.int, (state, 0, index)) for state in states)
            seen: list[fx.Node] = []
            for t in range(steps)[::-1 if direction else 1]:
                now = _LAYERS[node.target](cell, graph.call_function(aten.select.int, (inputs, time, t)), now)
                seen.append(now[0])
            last.append(now)
            outputs.append(graph.call_function(aten.stack.default, (seen[::-1] if direction else seen, time)))
        x = outputs[0] if len(outputs) == 1 else graph.call_function(aten.cat.default, (outputs, -1))
        if dropout and layer + 1 < layers:  # type: ignore[operator]
            x = graph.call_function(aten.dropout.default, (x, dropout, False))
    return (x, *(graph.call_function(aten.stack.default, (list(column), 0)) for column in zip(*last, strict=True)))


def _part(graph: fx.Graph, x: fx.Node, tensors: Sequence[fx.Node], *, biased: bool) -> tuple[_Cell, fx.Node]:
    """The cell of one layer and direction, and its products with the inputs of all time steps."""
    weight, recurrent, *rest = tensors
    bias, recurrent_bias = (rest[0], rest[1]) if biased else (None, None)
    projection = rest[-1] if len(rest) % 2 else None
    cell = _Cell(graph=graph, name=_cell_name(recurrent), weight=recurrent, bias=recurrent_bias, projection=projection)
    return cell, graph.call_function(aten.linear.default, (x, weight, bias))
