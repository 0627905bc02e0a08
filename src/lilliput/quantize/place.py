"""Placement: a quantizer on every edge that carries floating point."""

from __future__ import annotations

import torch
from torch import fx, nn

from lilliput.core.errors import PreconditionError
from lilliput.core.patterns import matching
from lilliput.graph.fold import drop_unused_tensors_, foldable
from lilliput.graph.recurrent import edge_of
from lilliput.graph.shapes import fake_values
from lilliput.graph.tables import LOOKUP, decoding, table_of
from lilliput.graph.trace import Traced
from lilliput.quantize.bits import Bits, Uniform
from lilliput.quantize.grids import Grid
from lilliput.quantize.lower import is_float
from lilliput.quantize.operators import (
    CLAMPS,
    LAYERS,
    TRANSPOSED,
    is_mutating,
    is_norm,
    is_transparent,
    is_zero,
    joins,
    keeps_grid,
    layer_name,
    source_of,
)
from lilliput.quantize.quantizer import BiasQuantizer, Quantizer, SameQuantizer
from lilliput.quantize.scheme import Scheme

HOME = "quantizers"
BATCH_NORM = torch.ops.aten.batch_norm.default


def place_(traced: Traced, scheme: Scheme) -> list[str]:
    """Insert quantizers in place, uncalibrated; returns notes on what stays in floating point, and why.

    A quantizer stands after the input, after every operator that computes, and after a clamp instead of before it where the clamp
    alone reads that operator. After an operator that only moves values stands the quantizer of its input again. Weights and
    constants have one each, whoever reads them; so has each value of a recurrent cell, for all time steps. Biases lie on the
    accumulator's grid.

    Raises `UnknownNameError` if a pattern in `exclude` matches nothing, `PreconditionError` on a network without layers.
    """
    placement = _Placement(traced, scheme)
    placement.run()
    traced.graph.eliminate_dead_code()
    drop_unused_tensors_(traced)  # the other names of shared tensors
    traced.graph.lint()
    traced.recompile()
    return placement.notes


class _Placement:
    def __init__(self, traced: Traced, scheme: Scheme) -> None:
        self.traced, self.scheme = traced, scheme
        self.notes: list[str] = []
        self.nodes = list(traced.graph.nodes)
        self.values = fake_values(traced, traced.example)
        self.names = {node: layer_name(node) for node in self.nodes if node.op == "call_function"}
        # Batch norms that stay in training are the tail of the layer before them, and no edge lies between the two.
        self.tails = {node: node.args[0] for node in self.nodes if node.target is BATCH_NORM and foldable(traced, node)}
        self.names |= {tail: self.names[layer] for tail, layer in self.tails.items()}
        layers = list(dict.fromkeys(self.names[node] for node in self.nodes if node.target in LAYERS))
        if not layers:
            raise PreconditionError("the network has no convolution and no linear layer, so there is nothing to quantize")
        allocation = scheme.bits or Uniform(weights=scheme.weights.bits, activations=scheme.activations.bits)
        self.bits: dict[str, Bits] = allocation(layers)
        self.excluded = self._excluded()
        self.aliased = self._aliased()
        self.decoding = {part: node for node in self.nodes if node.target in LAYERS for part in decoding(node.args[1])}
        self.constants: dict[tuple[int, Grid], fx.Node] = {}
        self.narrowed: dict[tuple[fx.Node, int], fx.Node] = {}
        self.readers: dict[object, fx.Node] = {}  # of the name of a weight, a layer that is to be quantized
        for node in self.nodes:
            if node.target in LAYERS and node not in self.excluded and isinstance(node.args[1], fx.Node):
                self.readers.setdefault(node.args[1].target, node)
        self.steps: dict[str, list[fx.Node]] = {}
        for node in self.nodes:
            self.steps.setdefault(edge_of(node) or node.name, []).append(node)
        self.shared: dict[str, Quantizer] = {}
        self.targets: dict[nn.Module, str] = {}

    def run(self) -> None:
        for node in self.nodes:
            if node.op == "placeholder" and is_float(self.values[node]):
                self._after(node)
            elif node in self.decoding:
                self._table(node)
            elif node.op == "call_function":
                if node not in self.excluded and node not in self.aliased:
                    self._parameters(node)
                if is_float(self.values[node]) and node not in self.aliased and not is_transparent(node):
                    self._result(node)

    # Which nodes stay as they are.

    def _excluded(self) -> set[fx.Node]:
        excluded = matching(self.scheme.exclude, self.names.values())
        out = {node for node, name in self.names.items() if name in excluded}
        layers = {node for node in self.nodes if node.target in LAYERS}
        if layers <= out:
            raise PreconditionError("exclude names every layer of the network, so there is nothing to quantize: exclude fewer")
        for name in dict.fromkeys(self.names[node] for node in self.nodes if node in out and node in layers):
            self.notes.append(f"{name} stays in floating point: excluded")
        for node in self.nodes:
            if node.op == "call_function" and (keeps_grid(node) or is_transparent(node) or node.target in CLAMPS):
                source = source_of(node)
                if source in out:
                    out.add(node)
        # An input that only excluded layers read need not be rounded.
        return out | {node for node in self.nodes if node.op == "placeholder" and node.users and set(node.users) <= out}

    def _aliased(self) -> set[fx.Node]:
        """Everything that may share memory with what an in-place operator writes to: a quantizer would cut the tie."""
        out: set[fx.Node] = set()
        for node in self.nodes:
            if node.op == "call_function" and is_mutating(node) and is_float(self.values[node]):
                root, family = node, {node}
                while (source := source_of(root)) is not None and (keeps_grid(root) or is_mutating(root)):
                    root = source
                    family.add(root)
                for later in self.nodes:
                    if later.op == "call_function" and source_of(later) in family and (keeps_grid(later) or is_mutating(later)):
                        family.add(later)
                out |= family
                self.notes.append(f"{node.name} writes in place and stays in floating point, with the tensor that it writes to")
        return out

    # Results.

    def _result(self, node: fx.Node) -> None:
        if edge_of(node) is None and is_zero(node) and all(is_zero(user) for user in node.users):
            return  # the state that a recurrent cell starts from: zeros, which are copied onto the grid of the later ones
        grid = self._kept(node)
        if grid is not None:
            self._insert(node, SameQuantizer(grid))
            return
        if node.target not in CLAMPS:
            users = list(node.users)
            if len(users) == 1 and (users[0] in self.tails or (users[0].target in CLAMPS and not keeps_grid(node))):
                return
        self._after(node)

    def _kept(self, node: fx.Node) -> Quantizer | None:
        """The quantizer on whose grid the node leaves its values, where they come from one."""
        if edge_of(node) is not None or not (keeps_grid(node) or joins(node)):
            return None
        sources = node.all_input_nodes if joins(node) else [source_of(node)]
        grids = {quantizer_of(self.traced, source) for source in sources}
        return grids.pop() if len(grids) == 1 else None

    def _after(self, node: fx.Node) -> None:
        edge = edge_of(node) or node.name
        if edge not in self.shared:
            grid = self.scheme.activations.at(self._activation_bits(self.steps[edge]))
            self.shared[edge] = Quantizer(grid, layer=self._owner(node), weight=False)
        self._insert(node, self.shared[edge])

    def _owner(self, node: fx.Node) -> str:
        """The layer whose result this is: a clamp's is that of the operator before it."""
        source = source_of(node)
        if node.target in CLAMPS and source is not None and source.op == "call_function" and len(source.users) == 1:
            return self.names[source]
        return self.names.get(node, node.name)

    def _activation_bits(self, nodes: list[fx.Node]) -> int:
        """The most bits that a reader asks for; all but layers ask for eight at least, operators for the scheme's where it says so."""
        wanted: list[int] = []
        most = max(8, self.scheme.activations.bits)
        other = most if self.scheme.others is None else self.scheme.others
        seen, front = set(nodes), list(nodes)
        while front:
            for user in front.pop().users:
                if user in self.excluded or user.op != "call_function":
                    wanted.append(most)
                elif user.target in LAYERS:
                    wanted.append(self.bits[self.names[user]].activations)
                elif not keeps_grid(user) and not is_transparent(user):
                    wanted.append(other)
                elif user not in seen:
                    seen.add(user)
                    front.append(user)
        return max(wanted, default=most)

    def _narrow(self, node: fx.Node) -> None:
        """Give a layer that wants fewer bits than its input's other readers a quantizer of its own on that edge."""
        source, bits = node.args[0], self.bits[self.names[node]].activations
        held = quantizer_of(self.traced, source)
        if held is None or held.grid.bits <= bits or not isinstance(source, fx.Node):
            return
        if (source, bits) not in self.narrowed:
            # A layer that runs at every time step has one range for its inputs.
            edge = f"{edge_of(node) or node.name}.input"
            if edge not in self.shared:
                self.shared[edge] = Quantizer(self.scheme.activations.at(bits), layer=f"{self.names[node]}.input", weight=False)
            self.narrowed[source, bits] = self._call(source, self.shared[edge], f"{node.name}_input")
        node.replace_input_with(source, self.narrowed[source, bits])

    def _insert(self, node: fx.Node, module: Quantizer | SameQuantizer) -> None:
        """Put `module` on the edges from `node`, except those between two excluded operators."""
        users = {user for user in node.users
                 if node not in self.excluded or (user not in self.excluded and user.op != "output")}
        if users:
            new = self._call(node, module, node.name)
            node.replace_all_uses_with(new, delete_user_cb=lambda user: user in users)

    def _call(self, node: fx.Node, module: Quantizer | SameQuantizer, name: str) -> fx.Node:
        if module not in self.targets:
            self.targets[module] = f"{HOME}.{name}"
            self.traced.add_submodule(self.targets[module], module)
        with self.traced.graph.inserting_after(node):
            return self.traced.graph.call_module(self.targets[module], (node,))

    # Constants.

    def _parameters(self, node: fx.Node) -> None:
        if node.target in LAYERS:
            self._layer(node)
        elif node in self.tails:
            return
        elif is_norm(node):
            self.notes.append(f"{self.names[node]}: the parameters of {node.target} stay in floating point, its input and result do not")
        else:
            for argument in node.all_input_nodes:
                if argument.op == "get_attr" and is_float(self.values[argument]):
                    # An embedding that is the weight of a layer too is quantized as that.
                    layer = self.readers.get(argument.target)
                    grid = self.scheme.activations.at(max(8, self.scheme.activations.bits)) if layer is None else self._weight_grid(layer)
                    name = str(argument.target) if layer is None else self.names[layer]
                    node.replace_input_with(argument, self._constant(argument, grid, name))

    def _layer(self, node: fx.Node) -> None:
        self._narrow(node)
        weight = node.args[1]
        assert isinstance(weight, fx.Node)
        if weight.op != "get_attr":
            return  # computed weights were quantized where they were computed
        name = self.names[node]
        quantized = self._constant(weight, self._weight_grid(node), name)
        arguments = [node.args[0], quantized, *node.args[2:]]
        node.args = tuple(arguments)
        if not any(layer is node for layer in self.tails.values()):
            self.notes += quantize_bias_(self.traced, node, name)

    def _weight_grid(self, node: fx.Node) -> Grid:
        """The grid of a layer's weight."""
        return self.scheme.weights.at(self.bits[self.names[node]].weights).along(self._axis(node))

    def _table(self, node: fx.Node) -> None:
        """The entries of a table that a weight is looked up in, where the scheme has a grid for them."""
        table, layer = node.args[0], self.decoding[node]
        if node.target is not LOOKUP or not isinstance(table, fx.Node) or layer in self.excluded:
            return
        name = self.names[layer]
        learned = table.op == "get_attr" and isinstance(self.traced.tensor(str(table.target)), nn.Parameter)
        if self.scheme.tables is not None and learned:
            node.args = (self._constant(table, self.scheme.tables.along(None), name), *node.args[1:])
        elif table is table_of(layer.args[1]):
            self.notes.append(f"{name}: the table that the weight is looked up in stays in floating point")

    def _axis(self, node: fx.Node) -> int | None:
        """The dimension of a layer's weight that counts its outputs."""
        if self.scheme.weights.axis is None:
            return None
        if node.target not in TRANSPOSED:
            return 0
        groups = node.args[6] if len(node.args) > 6 else 1
        return 1 if groups == 1 else None

    def _constant(self, node: fx.Node, grid: Grid, layer: str) -> fx.Node:
        """The quantized constant; one quantizer serves all who read the tensor on the same grid, by whatever name."""
        tensor = self.traced.tensor(str(node.target))
        key = (id(tensor), grid)
        if key not in self.constants:
            channels = None if grid.axis is None else tensor.shape[grid.axis]
            module = Quantizer(grid, layer=layer, weight=True, channels=channels)
            self.constants[key] = self._call(node, module, f"{node.name}_{len(self.constants) + 1}")
        return self.constants[key]


def quantize_bias_(traced: Traced, node: fx.Node, name: str) -> list[str]:
    """Put the bias of a layer on the accumulator's grid, where there is one; returns notes."""
    bias = node.args[2] if len(node.args) > 2 else None
    if not (isinstance(bias, fx.Node) and bias.op == "get_attr"):
        return []
    inputs, weight = quantizer_of(traced, node.args[0]), node.args[1]
    assert isinstance(weight, fx.Node)
    weights = traced.get_submodule(str(weight.target))
    weights = weights.source if isinstance(weights, SameQuantizer) else weights
    if inputs is None or not isinstance(weights, Quantizer):
        return [f"{name}: the bias stays in floating point, since the input does"]
    if not (inputs.integer and weights.integer):
        table = weights if inputs.integer else inputs
        return [f"{name}: the bias stays in floating point, since values on a {type(table.grid).__name__.lower()} grid have no integer accumulator"]
    if weights.grid.axis not in (None, 1 if node.target in TRANSPOSED else 0):
        return [f"{name}: the bias stays in floating point, since the scales of the weight are not those of its outputs"]
    node.args = (*node.args[:2], _quantized_bias(traced, bias, (inputs, weights), f"{HOME}.{node.name}_bias"), *node.args[3:])
    return []


def _quantized_bias(traced: Traced, bias: fx.Node, sources: tuple[Quantizer, Quantizer], target: str) -> fx.Node:
    """The bias on the grid of those sources' products; once, for all layers that have it."""
    for user in bias.users:
        module = traced.get_submodule(str(user.target)) if user.op == "call_module" else None
        if isinstance(module, BiasQuantizer) and module.sources == sources:
            return user
    traced.add_submodule(target, BiasQuantizer(*sources, traced.tensor(str(bias.target)).numel()))
    with traced.graph.inserting_after(bias):
        return traced.graph.call_module(target, (bias,))


def quantizer_of(traced: Traced, node: object) -> Quantizer | None:
    """The quantizer on whose grid the values of `node` lie, if there is one."""
    while isinstance(node, fx.Node) and is_transparent(node):
        node = source_of(node)
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = traced.get_submodule(str(node.target))
    return module if isinstance(module, Quantizer) else module.source if isinstance(module, SameQuantizer) else None
