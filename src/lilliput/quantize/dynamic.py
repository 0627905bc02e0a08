"""Dynamic quantization: integers for the weights of layers, and a range for their inputs from each batch, or each row of one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError
from lilliput.core.patterns import matching
from lilliput.core.report import Entry, Report, describe
from lilliput.core.step import Result
from lilliput.graph.trace import Traced
from lilliput.quantize.calibrate import constants
from lilliput.quantize.dynamic_op import dynamic_quantize
from lilliput.quantize.grids import Grid, Integer
from lilliput.quantize.measure import layer_rows
from lilliput.quantize.operators import LAYERS, TRANSPOSED, layer_name
from lilliput.quantize.place import HOME
from lilliput.quantize.prepare import Rewrite, lowered
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.ranges import MinMax, Ranges, channel_bounds

aten = torch.ops.aten
_FLOAT = "lilliput_float"


class DynamicQuantizer(nn.Module):
    """Simulated 8-bit quantization of a layer's input, with the range of the batch at hand or of each of its `rows`."""

    def __init__(self, layer: str, *, rows: bool) -> None:
        super().__init__()
        self.layer, self.rows = layer, rows

    def forward(self, x: Tensor) -> Tensor:
        """Quantize `x`."""
        result: Tensor = dynamic_quantize(x, self.rows)
        return result

    def extra_repr(self) -> str:
        """Layer and what has a range of its own."""
        return f"{self.layer!r}, rows={self.rows}"


def keep_float_(node: fx.Node) -> None:
    """Leave a layer in floating point, whoever quantizes the network dynamically."""
    node.meta[_FLOAT] = True


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """A Step: weights become integers, and inputs of layers 8-bit integers whose range is found when the network runs.

    Everything else stays in floating point: biases, norms, additions, and the layers that `exclude` names or a rewrite keeps.
    With `rows`, inputs are symmetric and each row (the vector along the last dimension) has its own range; otherwise affine
    with one to the batch. That range is that of all samples in the batch, so that results depend, a little, on what else is in
    it.
    """

    weights: Grid = field(default_factory=lambda: Integer(axis=0))
    weight_ranges: Ranges = field(default_factory=MinMax)
    rows: bool = False
    rewrites: tuple[Rewrite, ...] = ()
    exclude: tuple[str, ...] = ()
    method: str = "quantize.dynamic"

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """The simulated quantized network, and rows with the loss of each layer's weight; the data serves rewrites alone."""
        started = time.perf_counter()
        traced, notes = lowered(model, data, rewrites=self.rewrites)
        notes += self._place_(traced)
        for quantizer, tensor in constants(traced):
            quantizer.set(quantizer.grid.parameters(*channel_bounds(self.weight_ranges, tensor, quantizer.grid)))
        traced.eval()
        rows = tuple({**row, "activation_bits": 8} for row in layer_rows(traced, data))
        entry = Entry(method=self.method, recipe=describe(self), layers=rows, notes=tuple(notes), seconds=time.perf_counter() - started)
        return Result(traced, Report((entry,)))

    def _place_(self, traced: Traced) -> list[str]:
        """Put quantizers before the weights and inputs of layers, in place; returns notes."""
        layers = [node for node in traced.graph.nodes if node.target in LAYERS]
        left = self._left_out(layers)
        weights: dict[tuple[fx.Node, int | None], fx.Node] = {}
        inputs: dict[tuple[fx.Node, bool], fx.Node] = {}
        for node in layers:
            weight, source, name = node.args[1], node.args[0], layer_name(node)
            if node in left or not isinstance(weight, fx.Node) or not isinstance(source, fx.Node):
                continue
            rows, axis = self.rows and node.target is aten.linear.default, self._axis(node)
            if (weight, axis) not in weights:
                channels = None if axis is None else traced.tensor(str(weight.target)).shape[axis]
                module = Quantizer(self.weights.along(axis), layer=name, weight=True, channels=channels)
                weights[weight, axis] = _after(traced, weight, f"{weight.name}_{len(weights)}", module)
            if (source, rows) not in inputs:
                inputs[source, rows] = _after(traced, source, f"{source.name}_dynamic_{len(inputs)}", DynamicQuantizer(name, rows=rows))
            node.args = (inputs[source, rows], weights[weight, axis], *node.args[2:])
        if not weights:
            raise PreconditionError("the network has no convolution and no linear layer that may be quantized, so there is nothing to do")
        traced.graph.lint()
        traced.recompile()
        return list(dict.fromkeys(left.values()))

    def _left_out(self, layers: list[fx.Node]) -> dict[fx.Node, str]:
        """Layers that stay in floating point, with the reason."""
        names = {node: layer_name(node) for node in layers}
        left: dict[fx.Node, str] = {}
        excluded = matching(self.exclude, names.values())
        left |= {node: f"{names[node]} stays in floating point: excluded" for node in layers if names[node] in excluded}
        for node in layers:
            if node.meta.get(_FLOAT):
                left[node] = f"{names[node]} stays in floating point: a rewrite keeps it so"
            elif not isinstance(node.args[1], fx.Node) or node.args[1].op != "get_attr":
                left[node] = f"{names[node]} stays in floating point: its weight is computed"
        return left

    def _axis(self, node: fx.Node) -> int | None:
        """The dimension of a layer's weight that counts its outputs, where the grid has scales to the channel."""
        if self.weights.axis is None or (node.target in TRANSPOSED and len(node.args) > 6 and node.args[6] != 1):
            return None
        return 1 if node.target in TRANSPOSED else 0


def _after(traced: Traced, node: fx.Node, name: str, module: nn.Module) -> fx.Node:
    target = f"{HOME}.{name}"
    traced.add_submodule(target, module)
    with traced.graph.inserting_after(node):
        return traced.graph.call_module(target, (node,))
