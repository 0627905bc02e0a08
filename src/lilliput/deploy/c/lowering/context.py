"""The state of a lowering: what each value of the model has become, and the steps so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.arithmetic import DoubleRounding, Rounding
from lilliput.deploy.c.lowering.graph import constant, describe
from lilliput.deploy.c.lowering.layout import Placed, copies, distinct, in_order, is_dense
from lilliput.deploy.c.operators import Buffer, Move, Operator

Array = NDArray[Any]
_LIMITS = {ir.DataType.UINT8: (0, 255), ir.DataType.INT8: (-128, 127), ir.DataType.UINT4: (0, 15), ir.DataType.INT4: (-8, 7), ir.DataType.UINT2: (0, 3),
           ir.DataType.INT2: (-2, 1)}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Codes of an edge: scale and zero point of int8, and the limits that clamping leaves."""

    scale: float
    zero: int
    low: int = -128
    high: int = 127

    @classmethod
    def of(cls, node: ir.Node) -> Grid:
        """The grid of a QuantizeLinear or DequantizeLinear of activations; unsigned codes move down by 128, types of 4 and 2 bits set limits."""
        scale, zero, kind = constant(node.inputs[1]), *_zero(node)
        if scale is None or zero is None:
            raise PreconditionError(f"{describe(node)} has a scale that is computed at run time; quantize the model statically")
        if scale.size != 1:
            raise PreconditionError(f"{describe(node)} has a scale for each channel of an activation; quantize activations by the tensor")
        if kind not in _LIMITS:
            raise PreconditionError(f"{describe(node)} has codes of type {kind.name.lower()}; generated code computes on int8: quantize activations "
                                    f"to 8 bits or fewer")
        step = float(np.float32(scale.reshape(-1)[0]))
        if not (np.isfinite(step) and step > 0):
            raise PreconditionError(f"{describe(node)} has the scale {step}; calibrate the model again")
        low, high = _LIMITS[kind]
        down = 128 if low == 0 else 0
        return cls(scale=step, zero=int(zero.reshape(-1)[0]) - down, low=low - down, high=high - down)

    def code(self, real: float) -> int:
        """The code of a real value, within limits."""
        return int(np.clip(np.rint(real / self.scale) + self.zero, self.low, self.high))

    def same(self, buffer: Buffer) -> bool:
        """Whether a buffer's codes lie on this grid."""
        return buffer.scale == self.scale and buffer.zero == self.zero


def _zero(node: ir.Node) -> tuple[Array | None, ir.DataType]:
    """The zero point, None where it is computed, and the type of the codes: that of the zero point where there is one."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    codes = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    known = (value if value is not None else codes)
    kind = known.dtype if known is not None and known.dtype is not None else ir.DataType.UINT8
    return (np.zeros(()) if value is None else constant(value)), kind


@dataclass(kw_only=True, eq=False)
class Context:
    """What the rules of a lowering share."""

    rounding: Rounding = field(default_factory=DoubleRounding)
    micro: bool = False  # codes as TensorFlow Lite Micro gives them, its detours included
    steps: list[Operator] = field(default_factory=list)
    constants: dict[Buffer, Array] = field(default_factory=dict)
    placed: dict[ir.Value, Placed] = field(default_factory=dict)
    free: set[Buffer] = field(default_factory=set)
    origins: set[ir.Value] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def buffer(self, name: str | None, shape: Sequence[int], grid: Grid) -> Buffer:
        """A new buffer with a name of its own."""
        stem = name or "tensor"
        unique = stem if stem not in self.names else next(f"{stem}_{i}" for i in range(1, len(self.names) + 2) if f"{stem}_{i}" not in self.names)
        self.names.add(unique)
        return Buffer(name=unique, shape=tuple(int(n) for n in shape), scale=grid.scale, zero=grid.zero)

    def known(self, value: ir.Value | None, reader: ir.Node) -> Placed:
        """The codes behind a real value; `PreconditionError` where there are none: a float island."""
        if value is not None and value in self.placed:
            return self.placed[value]
        source = value.producer() if value is not None else None
        name = describe(source) if source is not None else f"the input {value.name if value is not None else ''}"
        raise PreconditionError(f"{describe(reader)} reads {name} before it is quantized: generated code has no float; quantize that edge, or leave "
                                f"both operators to another runtime")

    def dense(self, tensor: Placed, positions: Array, *, name: str | None = None) -> Buffer:
        """A buffer in which the elements at `positions`, in their order, lie one after the other: the same if they already do."""
        buffer = tensor.buffer
        if is_dense(positions, buffer.size):
            return buffer
        if buffer in self.free and positions.size == buffer.size and distinct(positions):
            self._place(buffer, positions)
            return buffer
        grid = Grid(scale=buffer.scale, zero=buffer.zero)
        out = self.buffer(name or f"{buffer.name}.moved", positions.shape, grid)
        self.steps.append(Move(inputs=(buffer,), output=out, layer=out.name, copies=tuple(copies(0, positions))))
        return out

    def rows(self, tensor: Placed, positions: Array) -> tuple[Buffer, Array]:
        """A buffer that is a list of rows, `positions` `(..., n)` of one each, in any order; and where the elements of `positions` lie in it."""
        bases = positions[..., :1]
        if (tensor.buffer not in self.free and positions.size == tensor.buffer.size and bool((positions == bases + np.arange(positions.shape[-1])).all())
                and distinct(bases)):
            return tensor.buffer, positions
        return self.dense(tensor, positions), np.arange(positions.size).reshape(positions.shape)

    def _place(self, buffer: Buffer, positions: Array) -> None:
        """Lay out an input of the program, which nothing has read yet, in the order in which its first reader wants it."""
        moved = np.empty(buffer.size, np.int64)
        moved[positions.reshape(-1)] = np.arange(buffer.size)
        for value, tensor in self.placed.items():
            if tensor.buffer is buffer:
                self.placed[value] = Placed(buffer, moved[tensor.positions])
        self.free.discard(buffer)

    def emit(self, step: Operator, value: ir.Value, positions: Array) -> None:
        """Add a step that computes a value of the model."""
        for buffer in step.inputs:
            self.free.discard(buffer)
        self.steps.append(step)
        self.placed[value] = Placed(step.output, positions)

    def constant(self, name: str, codes: Array, grid: Grid, order: tuple[int, ...]) -> Placed:
        """Codes in flash, with their axes in `order`."""
        out = self.buffer(name, [codes.shape[k] for k in order], grid)
        self.constants[out] = np.ascontiguousarray(codes.transpose(order)).astype(np.int8)
        return Placed(out, in_order(codes.shape, order))
