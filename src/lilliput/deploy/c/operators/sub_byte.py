"""Operators over buffers of 4 and 2 bits: their kernels unpack some codes, compute on int8, and pack what they write. (capotondi2020cmixnn)

CMix-NN unpacks the windows of two pixels into 16 bits. Here a block of pixels in a row is unpacked into 8, so that any kernel for int8 computes it,
and what neighbouring windows share is unpacked once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from lilliput.deploy.c.operators.base import Array, Buffer, Call, Operator
from lilliput.deploy.c.operators.window import Window

Image = tuple[int, int, int]
# Elements at a time of what takes each element by itself; LP_RUN of lp_run.h.
RUN = 64
# Bytes of a block, where two pixels fit.
_BLOCK = 1024


def members(name: str, buffer: Buffer) -> dict[str, int]:
    """How a buffer's codes lie, for the member of that name."""
    return {f"{name}.bits": buffer.bits, f"{name}.base": buffer.base}


def wrapped(call: Call, step: Operator, *requires: str) -> Call:
    """The call of the kernel that does over sub-byte codes what `call` does over int8; `call` itself where all are of 8 bits."""
    if not step.narrow:
        return call
    names = ("in",) if len(step.inputs) == 1 else ("a", "b")
    how: dict[str, int] = {}
    for name, buffer in zip((*names, "out"), (*step.inputs, step.output), strict=True):
        how |= members(name, buffer)
    return inside(call, how, *requires)


def inside(call: Call, fields: Mapping[str, int], *requires: str) -> Call:
    """The call of `lp_sub_byte_KERNEL`, whose structure holds that of `call` and further fields."""
    name = call.structure
    return replace(call, kernel=f"sub_byte_{call.kernel}", structure=f"sub_byte_{name}",
                   fields={f"{name}.{key}": value for key, value in call.fields.items()} | dict(fields),
                   arrays={f"{name}.{key}": array for key, array in call.arrays.items()},
                   requires=(*call.requires, *requires, "unpack", "pack"))


def columns(window: Window, image: Image, channels: int) -> int:
    """Pixels of a row that are computed at a time: a power of two, 2 at least, that fits a block if it can.

    It does not depend on height and width, so that a part of an image needs no more scratch memory than the whole.
    """
    found = 2
    while sum(sizes(window, (2**15, 2**15, image[2]), channels, 2 * found)) <= _BLOCK:
        found *= 2
    return found


def sizes(window: Window, image: Image, channels: int, count: int) -> tuple[int, int]:
    """Bytes of what `count` pixels of a row need of an image, to a multiple of four, and of their codes."""
    high, wide = (min((n - 1) * s + (k - 1) * d + 1, size) for n, k, s, d, size in
                  zip((1, count), window.kernel, window.stride, window.dilation, image[:2], strict=True))
    return -(-high * wide * image[2] // 4) * 4, count * channels


def block_lag(window: Window, image: Image, source: Buffer, output: Buffer) -> int:
    """The least lag of an image behind an output that is written block after block, each when all has been read that it needs."""
    needed = window.needed(image).reshape(-1)
    channels = output.size // needed.size
    starts = np.unique(block_starts(window, image, channels))[1:].tolist()
    return max([0, *(output.held(start * channels) - source.whole(int(needed[start])) for start in starts)])


def pixel_lag(window: Window, image: Image, source: Buffer, output: Buffer) -> int:
    """The least lag of an image behind an output that is written pixel after pixel."""
    needed = window.needed(image).reshape(-1)
    channels = output.size // needed.size
    return max([0, *(output.held((i + 1) * channels) - source.whole(int(n)) for i, n in enumerate(needed))])


def run_lag(source: Buffer, output: Buffer, period: int) -> int:
    """The least lag of an input behind an output that is written run after run."""
    return max([0, *(output.held(end) - source.whole(end) for end in runs(output.size, period) if end < output.size)])


def runs(count: int, period: int) -> Iterator[int]:
    """Where the runs of an operator of each element end, the second tensor of which repeats after `period`: lp_run of lp_run.h."""
    at = second = 0
    while at < count:
        most = RUN - RUN % period if period < RUN else min(RUN, period - second)
        at += min(most, count - at)
        second = (second + most) % period
        yield at


def block_starts(window: Window, image: Image, channels: int) -> Array:
    """For each pixel of the output the first one of its block, int64 `(rows columns,)`."""
    rows, wide = window.size(*image[:2])
    step = columns(window, image, channels)
    across = np.arange(wide) // step * step
    found: Array = (np.arange(rows)[:, None] * wide + across).reshape(-1)
    return found
