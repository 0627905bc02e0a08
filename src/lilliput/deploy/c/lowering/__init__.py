"""From a full-integer QDQ model to a program of integer operators."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.arithmetic import DoubleRounding, Rounding
from lilliput.deploy.c.lowering import elementwise, views
from lilliput.deploy.c.lowering.context import Context, Grid
from lilliput.deploy.c.lowering.graph import constant, describe, label, load, shape_of
from lilliput.deploy.c.lowering.layout import Placed, channels_last, distinct, in_order
from lilliput.deploy.c.lowering.rules import RULES
from lilliput.deploy.c.operators.base import HIGH, LOW
from lilliput.deploy.c.program import Port, Program
from lilliput.deploy.tflite.convert import ARITHMETIC, MICRO

__all__ = ["lower"]
Array = NDArray[Any]
# These change no value, so that they need no quantizer behind them: their codes are those of their input.
_EXACT = frozenset({"MaxPool", "Pad", "Concat", "Relu", "Clip"})


def lower(source: str | PathLike[str] | onnx.ModelProto, *, rounding: Rounding | None = None) -> Program:
    """The program of a QDQ model of this project or another tool: int8 in and out, channels last, a batch of one.

    `source` is an ONNX or a LiteRT file, whichever it is by its content, or a model. Programs from LiteRT files give the codes of
    TensorFlow Lite Micro.

    Raises `PreconditionError` naming the operator, its place and the remedy for what generated code has not, and for every float that is
    left; `CorruptFileError` for damaged files.
    """
    model = load(source)
    context = Context(rounding=rounding or DoubleRounding(), micro=model.metadata_props.get(ARITHMETIC) == MICRO)
    inputs = [value for value in model.graph.inputs if value not in model.graph.initializers.values()]
    ports: dict[ir.Value, Placed] = {}
    for value in inputs:
        _place_codes(context, value, ports)
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            _quantize(context, node, ports)
        elif node.op_type == "DequantizeLinear":
            _dequantize(context, node, ports)
        elif not views.view(context, node):
            _exact(context, node)
    _check_inputs(inputs, ports)
    outputs = tuple(Port(name=str(value.name), buffer=placed.buffer, positions=placed.positions)
                    for value, placed in ((value, _output(context, value)) for value in model.graph.outputs))
    found = tuple(Port(name=str(value.name), buffer=ports[value].buffer, positions=_current(context, ports[value])) for value in inputs)
    used = {buffer for step in context.steps for buffer in step.inputs}
    return Program(inputs=found, outputs=outputs, steps=tuple(context.steps), rounding=context.rounding,
                   constants={buffer: codes for buffer, codes in context.constants.items() if buffer in used})


def _current(context: Context, port: Placed) -> Array:
    """Where an input lies now that its first reader has settled its layout."""
    return next(tensor.positions for value, tensor in context.placed.items() if tensor.buffer is port.buffer and value in context.origins)


def _check_inputs(inputs: list[ir.Value], ports: dict[ir.Value, Placed]) -> None:
    for value in inputs:
        if value not in ports:
            reader = next((node for node, _ in value.uses()), None)
            raise PreconditionError(f"input {value.name} is read as float{' by ' + describe(reader) if reader is not None else ', or by nobody'}: "
                                    f"generated code takes int8; quantize the input too")


def _output(context: Context, value: ir.Value) -> Placed:
    """The codes of an output of the model; dense, since a caller reads all of it."""
    if value not in context.placed:
        node = value.producer()
        raise PreconditionError(f"output {value.name} is computed in float by {describe(node) if node is not None else 'nothing'}: generated code gives "
                                f"int8; quantize the output too")
    placed = context.placed[value]
    flat = placed.positions.reshape(-1)
    if placed.buffer in context.constants or not distinct(flat) or flat.size != placed.buffer.size:
        order = np.argsort(flat, kind="stable")
        buffer = context.dense(placed, flat[order])
        positions = np.empty(flat.size, np.int64)
        positions[order] = np.arange(flat.size)
        return Placed(buffer, positions.reshape(placed.shape))
    return placed


def _input(context: Context, value: ir.Value, grid: Grid, ports: dict[ir.Value, Placed]) -> Placed:
    shape = shape_of(value)
    if value not in ports:
        if shape[0] != 1 and len(shape) > 1:
            raise PreconditionError(f"input {value.name} has a batch of {shape[0]}; generated code takes one sample: export with a batch of one")
        ports[value] = Placed(context.buffer(value.name, shape[1:] or shape, grid), in_order(shape, tuple(range(len(shape)))))
        context.free.add(ports[value].buffer)
    return ports[value]


def _place_codes(context: Context, value: ir.Value, ports: dict[ir.Value, Placed]) -> None:
    """An input of codes that are moved before they are read: its grid is that of the first DequantizeLinear behind the moves."""
    if value.dtype not in (ir.DataType.INT8, ir.DataType.UINT8):
        return
    ahead = [reader for reader, _ in value.uses()]
    for node in ahead:
        if node.op_type == "DequantizeLinear":
            context.origins.add(value)
            context.placed[value] = _input(context, value, Grid.of(node), ports)
            return
        if node.op_type in views.VIEWS:
            ahead += [reader for reader, _ in node.outputs[0].uses()]


def _quantize(context: Context, node: ir.Node, ports: dict[ir.Value, Placed]) -> None:
    """Codes of a value: what computes it becomes a step."""
    value, target = node.inputs[0], node.outputs[0]
    assert value is not None
    grid = Grid.of(node)
    found = constant(value)
    if found is not None:
        codes = np.clip(np.rint(found.astype(np.float64) / grid.scale) + grid.zero, grid.low, grid.high).astype(np.int8)
        context.placed[target] = context.constant(str(value.name), codes, grid, tuple(range(codes.ndim)))
        return
    inner, limited = elementwise.clamps(context, value, grid)
    if inner in context.placed and inner is not value:
        elementwise.rescale(context, context.placed[inner], target, limited, label(node))
    elif value in context.placed:
        elementwise.rescale(context, context.placed[value], target, grid, label(node))
    elif inner.producer() is None:
        given = _input(context, inner, grid, ports)
        if limited == Grid(scale=given.buffer.scale, zero=given.buffer.zero):
            context.origins.add(target)
            context.placed[target] = given
        else:
            _limited_input(context, inner, given, target, limited)
    else:
        _compute(context, inner, target, limited)


def _limited_input(context: Context, value: ir.Value, given: Placed, target: ir.Value, grid: Grid) -> None:
    """An input whose codes are brought within limits, or to another grid; an image has channels last from here on."""
    origin = ir.Value(name=f"{value.name}.given")
    context.origins.add(origin)
    context.placed[origin] = given
    if given.buffer in context.free and len(given.shape) == 4:
        context.dense(given, given.positions.transpose(channels_last(4)))
    elementwise.rescale(context, context.placed[origin], target, grid, str(value.name))


def _compute(context: Context, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    node = value.producer()
    assert node is not None
    # TensorFlow Lite Micro has no tables for sums and products with a constant.
    found = elementwise.function(context, value) if not (context.micro and node.op_type in RULES) else None
    if found is not None:
        elementwise.table(context, value, target, grid, found)
        return
    rule = RULES.get(node.op_type)
    if rule is None:
        raise PreconditionError(f"{describe(node)} has no integer operator in generated code; replace it in the network, or run the model in ONNX "
                                f"Runtime. Known: {', '.join(sorted({*RULES, *views.VIEWS, *elementwise.ELEMENTWISE}))}")
    rule(context, node, value, target, grid)


def _dequantize(context: Context, node: ir.Node, ports: dict[ir.Value, Placed]) -> None:
    codes = node.inputs[0]
    assert codes is not None
    if constant(codes) is not None:
        return
    grid = Grid.of(node)
    if codes not in context.placed:
        if codes.producer() is not None:
            raise PreconditionError(f"{describe(node)} reads codes that no QuantizeLinear gave; generated code reads QDQ models: convert the model's "
                                    f"integer operators")
        if (grid.low, grid.high) != (LOW, HIGH):
            raise PreconditionError(f"input {codes.name} has codes of fewer than 8 bits, and callers write bytes: make it uint8 or int8, and requantize it")
        context.origins.add(codes)
        context.placed[codes] = _input(context, codes, grid, ports)
    tensor = context.placed[codes]
    if not grid.same(tensor.buffer):
        raise PreconditionError(f"{describe(node)} has another scale or zero point than the QuantizeLinear before it; export the model again")
    context.placed[node.outputs[0]] = tensor


def _exact(context: Context, node: ir.Node) -> None:
    """Compute what keeps its input's grid at once, unless quantizers stand behind it."""
    value = node.outputs[0]
    if node.op_type not in _EXACT or (all(reader.op_type in ("QuantizeLinear", "Relu", "Clip") for reader, _ in value.uses()) and value.uses()):
        return
    tensors = [context.placed.get(v) for v in node.inputs if v is not None and constant(v) is None] if node.op_type == "Concat" else [
        context.placed.get(node.inputs[0]) if node.inputs[0] is not None else None]
    first = tensors[0] if tensors else None
    if first is None or any(t is None or (t.buffer.scale, t.buffer.zero) != (first.buffer.scale, first.buffer.zero) for t in tensors):
        return
    grid = Grid(scale=first.buffer.scale, zero=first.buffer.zero)
    if node.op_type in ("Relu", "Clip"):
        inner, limited = elementwise.clamps(context, value, grid)
        elementwise.rescale(context, context.placed[inner], value, limited, label(node))
    else:
        RULES[node.op_type](context, node, value, value, grid)
