"""First stages of a program that can be computed patch by patch, and what each patch needs of every image in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

from lilliput.deploy.c.operators import Buffer, Convolution, Normalisation, Operator, Table, Window
from lilliput.deploy.c.operators.elementwise import Binary
from lilliput.deploy.c.operators.pooling import Pool
from lilliput.deploy.c.program import Program

Image = tuple[int, int, int]
Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """The first `count` steps of a program: from its only input to the output of the last of them, which alone is read behind them."""

    program: Program
    count: int
    images: dict[Buffer, Image]

    @property
    def steps(self) -> tuple[Operator, ...]:
        """The steps of the stage."""
        return self.program.steps[:self.count]

    @property
    def source(self) -> Buffer:
        """The input, which lies in memory as a whole."""
        return self.program.inputs[0].buffer

    @property
    def output(self) -> Buffer:
        """The output, which is put together from patches."""
        return self.program.steps[self.count - 1].output

    @cached_property
    def useful(self) -> tuple[Operator, ...]:
        """Steps from which the output follows."""
        needed, found = {self.output}, []
        for step in reversed(self.steps):
            if step.output in needed:
                needed |= set(step.inputs)
                found.append(step)
        return tuple(reversed(found))

    def spans(self, axis: int, span: Span) -> dict[Buffer, Span]:
        """The rows (axis 0) or columns (axis 1) of every image that rows or columns `span` of the output follow from."""
        found = {self.output: span}
        for step in reversed(self.useful):
            for buffer in step.inputs:
                if buffer in self.images:
                    needed = reach(window_of(step), axis, found[step.output], self.images[buffer][axis])
                    known = found.get(buffer, needed)
                    found[buffer] = (min(known[0], needed[0]), max(known[1], needed[1]))
        return found


def window_of(step: Operator) -> Window:
    """The window of a step; that of one that takes each element by itself is one pixel."""
    return step.window if isinstance(step, Convolution | Pool) else Window()


def reach(window: Window, axis: int, span: Span, size: int) -> Span:
    """Rows or columns of an image of that size that a span of outputs reads; one at least."""
    stride, extent = window.stride[axis], (window.kernel[axis] - 1) * window.dilation[axis] + 1
    first = span[0] * stride - window.pads[axis]
    last = (span[1] - 1) * stride - window.pads[axis] + extent
    low = min(max(first, 0), size - 1)
    return low, max(min(last, size), low + 1)


def stages(program: Program) -> Iterator[Stage]:
    """All first stages, the shortest first."""
    if len(program.inputs) != 1 or any(port.buffer is program.inputs[0].buffer for port in program.outputs):
        return
    images: dict[Buffer, Image] = {}
    readers, final = program.readers(), {port.buffer for port in program.outputs}
    open_until = max(readers[program.inputs[0].buffer], default=0)
    for i, step in enumerate(program.steps):
        image = _image(program, step, images)
        if image is None or prod(image) != step.output.size:
            return
        images[step.output] = image
        crossing = {s.output for s in program.steps[:i] if readers[s.output] and max(readers[s.output]) > i}
        inner = {s.output for s in program.steps[:i]}
        if open_until <= i and not crossing and not inner & final:
            yield Stage(program=program, count=i + 1, images=dict(images))


def _image(program: Program, step: Operator, images: dict[Buffer, Image]) -> Image | None:
    """The image that a step gives, if it gives each pixel from a window of its inputs."""
    first = step.inputs[0]
    if isinstance(step, Convolution | Pool):
        if images.setdefault(first, step.image) != step.image or first in program.constants or step.in_place is not None:
            return None
        rows, columns = step.window.size(*step.image[:2])
        return rows, columns, step.weights.shape[0] if isinstance(step, Convolution) else step.image[2]
    if first is program.inputs[0].buffer and len(first.shape) == 3:
        images.setdefault(first, (first.shape[0], first.shape[1], first.shape[2]))
    image = images.get(first)
    if image is None:
        return None
    if isinstance(step, Table) or (isinstance(step, Normalisation) and step.gamma.size == image[2]):
        return image
    if isinstance(step, Binary):
        second = step.inputs[1]
        repeats = second in program.constants and image[2] % second.size == 0
        return image if repeats or images.get(second) == image else None
    return None
