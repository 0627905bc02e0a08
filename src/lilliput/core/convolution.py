"""Convolutions of low-bit weights over images `(N, H, W, C)`: signs against signs, and bytes against 4-, 2- and 1-bit weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lilliput import _native
from lilliput.core.errors import PreconditionError
from lilliput.core.kernels import LowWeights, octets, result, run, workspace
from lilliput.core.signs import LARGEST, Instructions, Signs, chosen


@dataclass(frozen=True, kw_only=True)
class Window:
    """How the kernel moves: steps `(vertical, horizontal)`, spacing of its taps, and what lies around the image.

    `padding` is (top, left, bottom, right) in pixels. `fill` is the value of a padded pixel: for bytes any byte, which should
    be the zero point; for signs 0, which no bit can hold and a correction of the counts makes exact, or -1, as in
    implementations of XNOR-Net that leave the bits of the padding clear.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    fill: int = 0

    def over(self, images: tuple[int, ...], kernel: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, int]]:
        """The library's description of this window over images `(N, H, W, C)`, and height and width of the output.

        Raises `PreconditionError` where a size is not positive, above 65,535, or the kernel does not fit into the padded image.
        """
        described = (*images, *kernel, *self.stride, *self.dilation, *self.padding)
        if len(described) != 14 or min(described) < 0:
            raise PreconditionError(f"images {images} are not (N, H, W, C), or {self!r} with kernel {kernel} has a negative size")
        status, height, width = _native.window_output(described)
        if status != _native.OK:
            raise PreconditionError(f"a kernel of {kernel} under {self!r} has no place in images {images}: every size but padding "
                                    "and batch is at least 1, none is above 65,535, and the kernel fits into the padded image")
        return described, (height, width)


def convolve_binary(images: Signs, weights: Signs, window: Window = Window(), *,
                    instructions: Instructions | None = None) -> NDArray[np.int32]:
    """Convolution of signs `(N, H, W, C)` with weights `(O, kernel height, kernel width, C)`, to `(N, H', W', O)`.

    The sum over the taps within the image of `K_t - 2 popcount(x xor w)`, `K_t` the channels of a tap; padded taps add
    `window.fill` times the sum of their weights. Raises `PreconditionError` for shapes that do not fit and other fills.
    """
    if len(images.shape) != 4 or len(weights.shape) != 4 or images.columns != weights.columns:
        raise PreconditionError(f"signs {images.shape} do not meet weights {weights.shape}: pass (N, H, W, C) and (O, h, w, C)")
    if window.fill not in (0, -1):
        raise PreconditionError(f"the padding of signs is 0 or -1, not {window.fill}")
    path, n, kernel = chosen(instructions), weights.shape[0], (weights.shape[1], weights.shape[2])
    described, place = window.over(images.shape, kernel)
    if weights.columns * kernel[0] * kernel[1] > LARGEST:
        raise PreconditionError(f"{weights.shape[1:]} weights in one sum are more than {LARGEST}: split the channels and add")
    scheme = (n, window.fill == -1)
    work = workspace(_native.convolve_binary_workspace(path, described, *scheme))
    c = result((images.shape[0], *place, n), None)
    status = _native.convolve_binary(path, described, images.flat, weights.flat, scheme, c.reshape(-1), work)
    if status == _native.BAD_CODE:
        raise PreconditionError(f"unused bits of the last words, from column {images.columns} on, are set: use pack_signs")
    run(status)
    return c


def convolve_low(images: NDArray[np.int8] | NDArray[np.uint8], weights: LowWeights, kernel: tuple[int, int],
                 window: Window = Window(), *, instructions: Instructions | None = None) -> NDArray[np.int32]:
    """Convolution of bytes `(N, H, W, C)` with packed weights `(O, kernel height x kernel width x C)`, to `(N, H', W', O)`.

    A row of the weights is in the order height, width, channel. Raises `PreconditionError` for shapes and types that do not fit.
    """
    path, values = chosen(instructions), octets(images)
    described, place = window.over(images.shape, kernel)
    if (wanted := kernel[0] * kernel[1] * images.shape[-1]) != weights.columns:
        raise PreconditionError(f"a kernel {kernel} over {images.shape[-1]} channels has rows of {wanted} weights, but "
                                f"{weights.columns} were packed: pack them as (O, {wanted})")
    if not np.iinfo(images.dtype).min <= window.fill <= np.iinfo(images.dtype).max:
        raise PreconditionError(f"the padding {window.fill} is no {images.dtype}")
    size = _native.convolve_low_workspace(path, described, weights.rows, weights.bits)
    c = result((images.shape[0], *place, weights.rows), None)
    run(_native.convolve_low(path, described, (values, images.dtype == np.int8, window.fill & 255),
                             (weights.panels, weights.rows, weights.bits), c.reshape(-1), workspace(size)))
    return c
