"""Options of the operators that are read, as tables of the LiteRT schema (`schema.fbs`): each field annotated with its number and type."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Self, get_type_hints

from lilliput.deploy.tflite.flatbuffer import Table


class Padding(IntEnum):
    """Whether a window may hang over the edge of the image."""

    SAME = 0
    VALID = 1


class Activation(IntEnum):
    """What an operator clamps its result to."""

    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3
    TANH = 4
    SIGN_BIT = 5


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of an operator that has none."""

    @classmethod
    def read(cls, table: Table | None) -> Self:
        """From a table; all defaults where there is none."""
        if table is None:
            return cls()
        found = {}
        for name, hint in get_type_hints(cls, include_extras=True).items():
            default, (number, code) = getattr(cls, name), hint.__metadata__
            value = table.number(number, code, int(default) if isinstance(default, IntEnum) else default)
            try:
                found[name] = type(default)(value)
            except ValueError as error:
                raise table.buffer.corrupt(f"{cls.__name__} has the {name} {value}, which is none") from error
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class Conv2DOptions(Options):
    """Of CONV_2D."""

    padding: Annotated[Padding, 0, "b"] = Padding.SAME
    stride_w: Annotated[int, 1, "i"] = 0
    stride_h: Annotated[int, 2, "i"] = 0
    activation: Annotated[Activation, 3, "b"] = Activation.NONE
    dilation_w: Annotated[int, 4, "i"] = 1
    dilation_h: Annotated[int, 5, "i"] = 1


@dataclass(frozen=True, kw_only=True)
class DepthwiseConv2DOptions(Options):
    """Of DEPTHWISE_CONV_2D."""

    padding: Annotated[Padding, 0, "b"] = Padding.SAME
    stride_w: Annotated[int, 1, "i"] = 0
    stride_h: Annotated[int, 2, "i"] = 0
    multiplier: Annotated[int, 3, "i"] = 0
    activation: Annotated[Activation, 4, "b"] = Activation.NONE
    dilation_w: Annotated[int, 5, "i"] = 1
    dilation_h: Annotated[int, 6, "i"] = 1


@dataclass(frozen=True, kw_only=True)
class TransposeConvOptions(Options):
    """Of TRANSPOSE_CONV."""

    padding: Annotated[Padding, 0, "b"] = Padding.SAME
    stride_w: Annotated[int, 1, "i"] = 0
    stride_h: Annotated[int, 2, "i"] = 0
    activation: Annotated[Activation, 3, "b"] = Activation.NONE


@dataclass(frozen=True, kw_only=True)
class Pool2DOptions(Options):
    """Of AVERAGE_POOL_2D and MAX_POOL_2D."""

    padding: Annotated[Padding, 0, "b"] = Padding.SAME
    stride_w: Annotated[int, 1, "i"] = 0
    stride_h: Annotated[int, 2, "i"] = 0
    width: Annotated[int, 3, "i"] = 0
    height: Annotated[int, 4, "i"] = 0
    activation: Annotated[Activation, 5, "b"] = Activation.NONE


@dataclass(frozen=True, kw_only=True)
class FullyConnectedOptions(Options):
    """Of FULLY_CONNECTED; weights in any format but 0 are shuffled."""

    activation: Annotated[Activation, 0, "b"] = Activation.NONE
    weights_format: Annotated[int, 1, "b"] = 0
    keep_num_dims: Annotated[bool, 2, "?"] = False


@dataclass(frozen=True, kw_only=True)
class ArithmeticOptions(Options):
    """Of ADD, SUB and MUL."""

    activation: Annotated[Activation, 0, "b"] = Activation.NONE


@dataclass(frozen=True, kw_only=True)
class ConcatenationOptions(Options):
    """Of CONCATENATION."""

    axis: Annotated[int, 0, "i"] = 0
    activation: Annotated[Activation, 1, "b"] = Activation.NONE


@dataclass(frozen=True, kw_only=True)
class SoftmaxOptions(Options):
    """Of SOFTMAX."""

    beta: Annotated[float, 0, "f"] = 0.0


@dataclass(frozen=True, kw_only=True)
class ReducerOptions(Options):
    """Of MEAN."""

    keep_dims: Annotated[bool, 0, "?"] = False


@dataclass(frozen=True, kw_only=True)
class LeakyReluOptions(Options):
    """Of LEAKY_RELU."""

    alpha: Annotated[float, 0, "f"] = 0.0


@dataclass(frozen=True, kw_only=True)
class GeluOptions(Options):
    """Of GELU."""

    approximate: Annotated[bool, 0, "?"] = False


@dataclass(frozen=True, kw_only=True)
class StridedSliceOptions(Options):
    """Of STRIDED_SLICE: bits say which axes ignore their limits, or what a limit means."""

    begin_mask: Annotated[int, 0, "i"] = 0
    end_mask: Annotated[int, 1, "i"] = 0
    ellipsis_mask: Annotated[int, 2, "i"] = 0
    new_axis_mask: Annotated[int, 3, "i"] = 0
    shrink_axis_mask: Annotated[int, 4, "i"] = 0
    offset: Annotated[bool, 5, "?"] = False


@dataclass(frozen=True, kw_only=True)
class SplitOptions(Options):
    """Of SPLIT."""

    parts: Annotated[int, 0, "i"] = 0


@dataclass(frozen=True, kw_only=True)
class ResizeNearestNeighborOptions(Options):
    """Of RESIZE_NEAREST_NEIGHBOR."""

    align_corners: Annotated[bool, 0, "?"] = False
    half_pixel_centers: Annotated[bool, 1, "?"] = False


@dataclass(frozen=True, kw_only=True)
class BatchMatMulOptions(Options):
    """Of BATCH_MATMUL: which operand is transposed."""

    adj_x: Annotated[bool, 0, "?"] = False
    adj_y: Annotated[bool, 1, "?"] = False


# By operator: the number in the union, and the table. What is not here has no options that matter.
OPTIONS: dict[str, tuple[int, type[Options]]] = {
    "CONV_2D": (1, Conv2DOptions), "DEPTHWISE_CONV_2D": (2, DepthwiseConv2DOptions), "AVERAGE_POOL_2D": (5, Pool2DOptions),
    "MAX_POOL_2D": (5, Pool2DOptions), "FULLY_CONNECTED": (8, FullyConnectedOptions), "SOFTMAX": (9, SoftmaxOptions),
    "CONCATENATION": (10, ConcatenationOptions), "ADD": (11, ArithmeticOptions), "MUL": (21, ArithmeticOptions), "MEAN": (27, ReducerOptions),
    "SUB": (28, ArithmeticOptions), "STRIDED_SLICE": (32, StridedSliceOptions), "SPLIT": (35, SplitOptions), "TRANSPOSE_CONV": (49, TransposeConvOptions),
    "RESIZE_NEAREST_NEIGHBOR": (74, ResizeNearestNeighborOptions), "LEAKY_RELU": (75, LeakyReluOptions), "BATCH_MATMUL": (101, BatchMatMulOptions),
    "GELU": (116, GeluOptions)}
