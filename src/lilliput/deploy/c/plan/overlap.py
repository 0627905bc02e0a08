"""Which inputs of a step may share memory with its output, and how closely the output may follow them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lilliput.deploy.c.operators import Buffer, Operator

Sharing = Callable[[Operator], Mapping[Buffer, int]]


def apart(step: Operator) -> Mapping[Buffer, int]:
    """No input shares memory with the output."""
    del step
    return {}


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Bytes by which an input has to start behind the output at least, for the inputs that may share memory with it.

    `pixels_at_once`: so many pixels of an output the kernels compute before they read on.
    """

    pixels_at_once: int = 2

    def __call__(self, step: Operator) -> Mapping[Buffer, int]:
        """See `Overlap`."""
        found: dict[Buffer, int | None] = {}
        for index, buffer in enumerate(step.inputs):
            lag = None if index == step.in_place else step.lag(index)
            known = found.get(buffer, 0)
            found[buffer] = None if lag is None or known is None else max(lag + (self.pixels_at_once - 1) * step.grain, known)
        return {buffer: lag for buffer, lag in found.items() if lag is not None and lag < step.output.bytes}
