"""A first stage computed patch by patch: ordinary operators on parts of images. (lin2021mcunetv2)

A patch reads its part of the input where it lies, by a window with negative padding. Padding is real at the borders of the image only, so
that every code is the same as without patches. What two patches both need is computed twice.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

from lilliput.deploy.c.operators import Buffer, Convolution, Copy, Move, Operator, Place, Window
from lilliput.deploy.c.operators.pooling import Pool
from lilliput.deploy.c.plan.stage import Image, Span, Stage
from lilliput.deploy.c.program import Program

Region = tuple[Span, Span]


def cuts(size: int, parts: int) -> list[Span]:
    """Equal parts of a length, as equal as can be.

    >>> cuts(7, 3)
    [(0, 2), (2, 5), (5, 7)]
    """
    ends = [round(i * size / parts) for i in range(parts + 1)]
    return list(pairwise(ends))


def in_patches(stage: Stage, rows: int, columns: int) -> Program:
    """The program with a stage computed in `rows x columns` patches, one after the other."""
    output, image = stage.output, stage.images[stage.output]
    under = replace(output, name=f"{output.name}.empty")
    steps: list[Operator] = [Move(inputs=(), output=under, layer=f"{stage.steps[-1].layer}, before its patches", copies=(), fill=output.zero)]
    across = [stage.spans(1, span) for span in cuts(image[1], columns)]
    grid = list(product([stage.spans(0, span) for span in cuts(image[0], rows)], across))
    for number, (down, over) in enumerate(grid):
        regions = {buffer: (down[buffer], over[buffer]) for buffer in down}
        found, patch = _patch(stage, regions, f"patch {number + 1} of {len(grid)}")
        target = output if number == len(grid) - 1 else replace(output, name=f"{output.name}.patch{number + 1}")
        copy = replace(_part(image, regions[output], inwards=True), source=1)
        steps += [*found, Place(inputs=(under, patch), output=target, layer=f"{stage.steps[-1].layer}, patch {number + 1} of {len(grid)}", copies=(copy,))]
        under = target
    return replace(stage.program, steps=(*steps, *stage.program.steps[stage.count:]))


def _patch(stage: Stage, regions: dict[Buffer, Region], name: str) -> tuple[list[Operator], Buffer]:
    """The steps of one patch and the buffer with its part of the output."""
    whole = stage.images[stage.source]
    held = regions | {stage.source: ((0, whole[0]), (0, whole[1]))}
    made = {stage.source: stage.source}
    steps: list[Operator] = []
    for step in stage.useful:
        region = regions[step.output]
        shape = (*_sizes(region), stage.images[step.output][2])
        output = replace(step.output, name=f"{step.output.name}, {name}", shape=shape)
        layer, scratch = f"{step.layer}, {name}", None if step.scratch is None else replace(step.scratch)
        if isinstance(step, Convolution | Pool):
            around = held[step.inputs[0]]
            steps.append(replace(step, output=output, layer=layer, scratch=scratch, inputs=(made[step.inputs[0]],),
                                 window=_within(step.window, region, around), image=(*_sizes(around), step.image[2])))
        else:
            inputs = []
            for buffer in step.inputs:
                if buffer in stage.images and held[buffer] != region:
                    steps.append(_crop(made[buffer], stage.images[buffer][2], region, held[buffer], layer))
                    inputs.append(steps[-1].output)
                else:
                    inputs.append(made.get(buffer, buffer))
            steps.append(replace(step, output=output, layer=layer, scratch=scratch, inputs=tuple(inputs)))
        made[step.output] = output
    return steps, made[stage.output]


def _sizes(region: Region) -> tuple[int, int]:
    return region[0][1] - region[0][0], region[1][1] - region[1][0]


def _within(window: Window, region: Region, around: Region) -> Window:
    """The window that computes a region of the output from the part of the image that is there."""
    before, after = [], []
    for axis, (span, there) in enumerate(zip(region, around, strict=True)):
        first = span[0] * window.stride[axis] - window.pads[axis]
        last = (span[1] - 1) * window.stride[axis] - window.pads[axis] + (window.kernel[axis] - 1) * window.dilation[axis] + 1
        before.append(there[0] - first)
        after.append(last - there[1])
    return replace(window, pads=(before[0], before[1], after[0], after[1]))


def _part(image: Image, region: Region, *, inwards: bool) -> Copy:
    """A region of an image: copied there from a patch of its size, or out of it."""
    (height, width), depth = _sizes(region), image[2]
    inner, outer = (width * depth, depth, 1), (image[1] * depth, depth, 1)
    offset = (region[0][0] * image[1] + region[1][0]) * depth
    if inwards:
        return Copy(source=0, shape=(height, width, depth), strides_in=inner, strides_out=outer, offset_out=offset)
    return Copy(source=0, shape=(height, width, depth), strides_in=outer, strides_out=inner, offset_in=offset)


def _crop(buffer: Buffer, depth: int, region: Region, around: Region, layer: str) -> Move:
    """What an operator without a window needs of a larger part of an image."""
    moved = tuple((span[0] - there[0], span[1] - there[0]) for span, there in zip(region, around, strict=True))
    part = _part((*_sizes(around), depth), (moved[0], moved[1]), inwards=False)
    output = replace(buffer, name=f"{buffer.name}.crop", shape=(*_sizes(region), depth))
    return Move(inputs=(buffer,), output=output, layer=layer, copies=(part,))
