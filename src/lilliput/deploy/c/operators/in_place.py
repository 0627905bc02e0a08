"""Convolutions that leave their output where their input was, through a little scratch memory. (lin2020mcunet)"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from lilliput.deploy.c.operators.base import Buffer, Call
from lilliput.deploy.c.operators.convolution import Convolution


def _scratch(step: Convolution, size: int) -> Buffer:
    return Buffer(name=f"{step.output.name}.scratch", shape=(size,), scale=1.0, zero=0)


def _members(step: Convolution) -> dict[str, Any]:
    return {f.name: getattr(step, f.name) for f in fields(Convolution) if f.name != "scratch"}


@dataclass(frozen=True, kw_only=True, eq=False)
class InPlaceDepthwise(Convolution):
    """A depthwise convolution of stride 1 and equal size over its own input, four channels at a time.

    TinyEngine keeps whole planes of `H W` bytes aside. Here only the rows are kept that a window covers, with their padding:
    `4 ((kernel_h - 1) dilation_h + 1) (W + (kernel_w - 1) dilation_w)` bytes.
    """

    in_place: ClassVar[int | None] = 0
    sub_byte: ClassVar[bool] = False

    @staticmethod
    def fits(step: Convolution) -> bool:
        """Whether a convolution can be computed so."""
        same = step.window.size(*step.image[:2]) == step.image[:2] and step.inputs[0].size == step.output.size
        return step.depthwise and same and step.window.stride == (1, 1) and min(step.window.pads) >= 0

    @classmethod
    def of(cls, step: Convolution) -> InPlaceDepthwise:
        """The same convolution, in place."""
        rows, margin = ((k - 1) * d for k, d in zip(step.window.kernel, step.window.dilation, strict=True))
        return cls(**_members(step), scratch=_scratch(step, 4 * (rows + 1) * (step.image[1] + margin)))

    def calls(self) -> tuple[Call, ...]:
        """`lp_depthwise_in_place_s8`."""
        (call,) = super().calls()
        return (replace(call, kernel="depthwise_in_place_s8", reads=(), scratch=True),)

    def lag(self, index: int) -> int | None:
        """The output has the input's place or none of it."""
        del index
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class InPlacePointwise(Convolution):
    """A 1 x 1 convolution that puts two pixels together in scratch memory, so that its output may begin where its input does."""

    sub_byte: ClassVar[bool] = False

    @staticmethod
    def fits(step: Convolution) -> bool:
        """Whether a convolution can be computed so, and has a use for it."""
        return step.pointwise and step.image[0] * step.image[1] > 1

    @classmethod
    def of(cls, step: Convolution) -> InPlacePointwise:
        """The same convolution, in place."""
        return cls(**_members(step), scratch=_scratch(step, 2 * step.weights.shape[0]))

    def calls(self) -> tuple[Call, ...]:
        """`lp_pointwise_in_place_s8`."""
        (call,) = super().calls()
        return (replace(call, kernel="pointwise_in_place_s8", scratch=True, requires=("pointwise_s8",)),)

    def lag(self, index: int) -> int | None:
        """What the output has more than the input: 0 for as many channels."""
        del index
        return max(self.output.size - self.inputs[0].size, 0)

    @property
    def grain(self) -> int:
        """All that is read at once is read before it is written, on every target."""
        return 0
