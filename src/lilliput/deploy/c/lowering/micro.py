"""What TensorFlow Lite Micro computes in its own way, for models that come from LiteRT files: functions of one code by its integer arithmetic.

Its LOGISTIC and TANH need nothing here: gemmlowp's fixed point gives the correctly rounded codes. HARD_SWISH computes in 16 bits and
LEAKY_RELU rescales by factors rounded to float32; both are up to one step off the correctly rounded function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lilliput.deploy.c.arithmetic import DoubleRounding, divide_by_power, multiplier_of
from lilliput.deploy.c.lowering.context import Context, Grid
from lilliput.deploy.c.operators import Buffer
from lilliput.deploy.c.operators.base import HIGH, LOW, clip

Array = NDArray[Any]
_CODES = np.arange(LOW, HIGH + 1)
_HALF = 2**15


def codes(context: Context, value: ir.Value, source: Buffer, grid: Grid) -> Array | None:
    """All 256 codes of a value that is a function of one tensor, int64; None where TensorFlow Lite Micro does nothing of its own."""
    node = value.producer()
    rule = _RULES.get(node.op_type) if node is not None and node.inputs[0] in context.placed else None
    found = rule(node, source, grid) if rule is not None and node is not None else None
    return None if found is None else clip(found, grid.low, grid.high)


def _leaky_relu(node: ir.Node, source: Buffer, grid: Grid) -> Array:
    """`M (q - z) + z_out` above zero, `M' (q - z) + z_out` below, both factors computed in float32."""
    alpha = np.float32(node.attributes["alpha"].as_float() if "alpha" in node.attributes else 0.01)
    scale, out = np.float32(source.scale), np.float32(grid.scale)
    x = _CODES - source.zero
    above, below = (DoubleRounding()(x, *multiplier_of(float(factor))) for factor in (scale / out, scale * alpha / out))
    return np.where(x >= 0, above, below) + grid.zero


def _short(factor: float) -> tuple[int, int]:
    """Multiplier of 16 bits and shift."""
    multiplier, shift = multiplier_of(factor)
    return min((multiplier + _HALF) >> 16, _HALF - 1), shift


def _high_multiply(a: Array, b: Array | int) -> Array:
    """`a b / 2^15` with ties up, saturated: gemmlowp's SaturatingRoundingDoublingHighMul of 16 bits."""
    found: Array = np.minimum((np.asarray(a * b, np.int64) + 2**14) >> 15, _HALF - 1)
    return found


def _shift_up(x: Array, bits: int) -> Array:
    found: Array = np.clip(x << bits, -_HALF, _HALF - 1)
    return found


def _hard_swish(node: ir.Node, source: Buffer, grid: Grid) -> Array | None:
    """`x relu6(x + 3) / 6` in 16 bits; None where the output's scale is so fine that TensorFlow Lite Micro refuses."""
    del node
    fine = np.float32(1 / 128) * np.float32(source.scale)
    by, shift = _short(float(fine / np.float32(grid.scale)))
    gate_by, gate_shift = _short(float(fine / (np.float32(3) / np.float32(32768))))
    if shift > 0:
        return None
    x = (_CODES - source.zero) << 7
    gate = _high_multiply(_shift_up(x, gate_shift - 1) if gate_shift > 0 else x, gate_by)
    gate = _shift_up(gate, 1) if gate_shift > 0 else divide_by_power(gate, -gate_shift)
    product = ((gate + _HALF) >> 1) * _high_multiply(x, by)
    towards_zero = np.sign(product) * (np.abs(product) >> 15)
    return divide_by_power(towards_zero, -shift) + grid.zero


_RULES: dict[str, Callable[[ir.Node, Buffer, Grid], Array | None]] = {"LeakyRelu": _leaky_relu, "HardSwish": _hard_swish}
