"""Rules for what takes each element by itself: functions of one tensor become tables, sums and products of two become operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.lowering import micro
from lilliput.deploy.c.lowering.context import Context, Grid
from lilliput.deploy.c.lowering.graph import constant, describe, label, real, shape_of
from lilliput.deploy.c.lowering.layout import Placed, copies, distinct
from lilliput.deploy.c.operators import Add, Buffer, Move, Multiply, Table, rescaling
from lilliput.deploy.c.operators.base import HIGH, LOW, clip
from lilliput.deploy.runtime import open_session

Array = NDArray[Any]
Function = Callable[[Array], Array]
ELEMENTWISE = frozenset("Abs Add Ceil Celu Clip Cos Div Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log Max Min Mish Mul Neg "
                        "Pow PRelu Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Swish Tanh ThresholdedRelu".split())
_CLAMPS = frozenset({"Relu", "Clip", "Identity"})


def scalar(value: ir.Value | None) -> Array | None:
    """A constant of one element, quantized ones included, float64."""
    if value is None or (value.shape is not None and any(size != 1 for size in value.shape)):
        return None
    found = real(value)
    return found.reshape(()) if found is not None and found.size == 1 else None


def function(context: Context, value: ir.Value) -> tuple[Placed, Function] | None:
    """The one tensor that a value is an elementwise function of, and that function; None where there are several, or none."""
    leaves: dict[ir.Value, Placed] = {}
    order: list[ir.Node] = []

    def visit(v: ir.Value | None, depth: int = 0) -> bool:
        if v is None or scalar(v) is not None:
            return True
        if v in context.placed:
            leaves[v] = context.placed[v]
            return True
        node = v.producer()
        if node is None or node.op_type not in ELEMENTWISE or depth > 32:
            return False
        if node in order:
            return True
        known = all(visit(i, depth + 1) for i in node.inputs)
        if known:
            order.append(node)
        return known

    if not visit(value) or not leaves:
        return None
    first = next(iter(leaves.values()))
    if any(leaf.buffer is not first.buffer or not np.array_equal(leaf.positions, first.positions) for leaf in leaves.values()):
        return None

    return first, _program(value, list(leaves), order)


def _program(value: ir.Value, leaves: list[ir.Value], order: list[ir.Node]) -> Function:
    """The function that operators compute, in ONNX Runtime."""
    floats = onnx.TensorProto.FLOAT
    constants = {str(v.name): scalar(v) for node in order for v in node.inputs if v is not None and scalar(v) is not None}
    nodes = [onnx.helper.make_node("Identity", ["x"], [str(leaf.name)]) for leaf in leaves] + [ir.to_proto(node) for node in order]
    graph = onnx.helper.make_graph(
        nodes, "function", [onnx.helper.make_tensor_value_info("x", floats, [None])],
        [onnx.helper.make_tensor_value_info(str(value.name), floats, None)],
        [onnx.numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)

    def apply(x: Array) -> Array:
        (found,) = open_session(model.SerializeToString(), 1).run(None, {"x": x.astype(np.float32)})
        return np.asarray(found, np.float64)

    return apply


def clamps(context: Context, value: ir.Value, grid: Grid) -> tuple[ir.Value, Grid]:
    """What stands before a chain of Relu and Clip, and the grid with their limits as codes."""
    node = value.producer()
    while node is not None and value not in context.placed and node.op_type in _CLAMPS:
        low, high = (0.0, np.inf) if node.op_type == "Relu" else (-np.inf, np.inf)
        if node.op_type == "Clip":
            ends = [scalar(v) if v is not None else None for v in (*node.inputs[1:3], None, None)[:2]]
            if any(v is not None and end is None for v, end in zip(node.inputs[1:3], ends, strict=False)):
                raise PreconditionError(f"{describe(node)} has limits that are computed at run time; make them constants")
            low, high = (float(end) if end is not None else other for end, other in zip(ends, (low, high), strict=True))
        least = grid.low if low == -np.inf else max(grid.low, grid.code(low))
        most = grid.high if high == np.inf else min(grid.high, grid.code(high))
        grid = Grid(scale=grid.scale, zero=grid.zero, low=least, high=max(least, most))
        assert node.inputs[0] is not None
        value = node.inputs[0]
        node = value.producer()
    return value, grid


def rescale(context: Context, tensor: Placed, value: ir.Value, grid: Grid, layer: str) -> None:
    """The same values on another grid or within other limits; nothing where they are on it already."""
    if grid.same(tensor.buffer) and (grid.low, grid.high) == (LOW, HIGH):
        context.placed[value] = tensor
        return
    # The last step's own limits may be narrower already; a table costs nothing beside a wrong code.
    out = context.buffer(value.name, tensor.buffer.shape, grid)
    table = clip(rescaling(tensor.buffer, out, context.rounding), grid.low, grid.high)
    context.emit(Table(inputs=(tensor.buffer,), output=out, layer=layer, table=table), value, tensor.positions)


def table(context: Context, value: ir.Value, target: ir.Value, grid: Grid, found: tuple[Placed, Function]) -> None:
    """Any function of one tensor: `round(f((q - z) s) / s_out) + z_out`, ties away from zero, for all 256 codes."""
    tensor, apply = found
    node = value.producer()
    layer = label(node) if node is not None else str(value.name)
    with np.errstate(all="ignore"):
        wanted = apply((np.arange(LOW, HIGH + 1) - tensor.buffer.zero) * tensor.buffer.scale) / grid.scale
    wanted = np.clip(np.nan_to_num(wanted, nan=0.0, posinf=1e6, neginf=-1e6), -1e6, 1e6)
    codes = clip(np.sign(wanted) * np.floor(np.abs(wanted) + 0.5) + grid.zero, grid.low, grid.high).astype(np.int8)
    own = micro.codes(context, value, tensor.buffer, grid) if context.micro else None
    codes = codes if own is None else own.astype(np.int8)
    buffer, positions = tensor.buffer, tensor.positions
    if positions.size == buffer.size and distinct(positions):
        out = context.buffer(value.name, buffer.shape, grid)
        context.emit(Table(inputs=(buffer,), output=out, layer=layer, table=codes), target, positions)
        return
    out = context.buffer(value.name, positions.shape, grid)
    step = Move(inputs=(buffer,), output=out, layer=layer, copies=tuple(copies(0, positions, table=codes)))
    context.emit(step, target, np.arange(positions.size).reshape(positions.shape))


def _operand(context: Context, value: ir.Value | None, node: ir.Node) -> Placed | tuple[Array, Grid]:
    """A placed tensor, or codes of a constant: its own where it has 8 bits, else on the grid that its largest value asks for."""
    if value is not None and value in context.placed:
        return context.placed[value]
    found, source = constant(value), value.producer() if value is not None else None
    if found is None and source is not None and source.op_type == "DequantizeLinear" and constant(source.inputs[0]) is not None:
        codes, scale = (constant(v) for v in source.inputs[:2])
        zero = constant(source.inputs[2]) if len(source.inputs) > 2 else np.zeros((), np.int8)
        assert codes is not None
        if scale is not None and zero is not None and scale.size == 1:
            if codes.dtype in (np.int8, np.uint8):
                down = 128 if codes.dtype == np.uint8 else 0
                return codes.astype(np.int64) - down, Grid(scale=float(scale.reshape(-1)[0]), zero=int(zero.reshape(-1)[0]) - down)
            found = (codes.astype(np.float64) - float(zero.reshape(-1)[0])) * float(scale.reshape(-1)[0])
    if found is None:
        return context.known(value, node)
    peak = float(np.abs(found).max(initial=0.0)) or 1.0
    grid = Grid(scale=float(np.float32(peak / HIGH)), zero=0)
    return np.clip(np.rint(found.astype(np.float64) / grid.scale), -HIGH, HIGH).astype(np.int64), grid


def binary(context: Context, node: ir.Node, value: ir.Value, target: ir.Value, grid: Grid) -> None:
    """Add, Sub and Mul of two tensors, the smaller repeated; a constant one lies in flash."""
    operands, shape = [_operand(context, v, node) for v in node.inputs[:2]], shape_of(value)
    if node.op_type != "Sub" and _elements(operands[0]) < _elements(operands[1]):
        operands.reverse()
    a, b = operands
    if not isinstance(a, Placed) and isinstance(b, Placed):
        a = context.constant(f"{value.name}.constant", np.broadcast_to(a[0], shape), a[1], b.order if len(b.shape) == len(shape) else tuple(range(len(shape))))
    if not isinstance(a, Placed) or a.positions.size != int(np.prod(shape)):
        raise PreconditionError(f"{describe(node)} repeats its first operand, or has constants only; exchange the operands, or expand the first ahead")
    context.free.discard(a.buffer)
    flat = a.positions.reshape(-1)
    order = np.argsort(flat, kind="stable")
    first = context.dense(a, flat[order])
    if isinstance(b, Placed):
        second = _repeated(context, b, np.broadcast_to(b.positions, shape).reshape(-1)[order])
    else:
        codes = np.broadcast_to(b[0], shape).reshape(-1)[order]
        second = context.constant(f"{value.name}.constant", _period(codes), b[1], (0,)).buffer
    out = context.buffer(value.name, first.shape, grid)
    kind = {"Add": Add, "Sub": Add, "Mul": Multiply}[node.op_type]
    extra = {"sign": -1} if node.op_type == "Sub" else {}
    step = kind(inputs=(first, second), output=out, layer=label(node), low=grid.low, high=grid.high, **extra)
    positions = np.empty(out.size, np.int64)
    positions[order] = np.arange(out.size)
    context.emit(step, target, positions.reshape(shape))


def _elements(operand: Placed | tuple[Array, Grid]) -> int:
    return operand.positions.size if isinstance(operand, Placed) else -1


def _period(sequence: Array) -> Array:
    """The shortest prefix that the sequence repeats."""
    for size in range(1, sequence.size // 2 + 1):
        if sequence.size % size == 0 and (sequence.reshape(-1, size) == sequence[:size]).all():
            return sequence[:size]
    return sequence


def _repeated(context: Context, tensor: Placed, positions: Array) -> Buffer:
    """A buffer that, repeated, has the elements at `positions`."""
    return context.dense(tensor, _period(positions))
