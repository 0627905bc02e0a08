"""How a window moves over an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a window moves over an image: kernel, stride and dilation as (height, width), padding as (top, left, bottom, right).

    Negative padding leaves rows or columns of the image out.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output."""
        sizes = zip((height, width), self.kernel, self.stride, self.dilation, self.pads[:2], self.pads[2:], strict=True)
        rows, columns = ((n + before + after - (k - 1) * d - 1) // s + 1 for n, k, s, d, before, after in sizes)
        return rows, columns

    def inside(self, height: int, width: int) -> bool:
        """Whether every window covers a part of the image."""
        rows, columns = self.size(height, width)
        axes = zip((rows, columns), (height, width), self.kernel, self.stride, self.dilation, self.pads[:2], strict=True)
        return all((k - 1) * d + 1 > pad and (n - 1) * s - pad < size for n, size, k, s, d, pad in axes)

    def fields(self) -> dict[str, int]:
        """The members that every structure with a window has."""
        return {"kernel_h": self.kernel[0], "kernel_w": self.kernel[1], "stride_h": self.stride[0], "stride_w": self.stride[1],
                "pad_top": self.pads[0], "pad_left": self.pads[1]}

    def patches(self, image: Array, fill: int) -> Array:
        """Windows `(out_h, out_w, kernel_h, kernel_w, C)` of an image `(H, W, C)`, `fill` outside of it."""
        rows, columns = self.size(*image.shape[:2])
        top, left, bottom, right = (max(pad, 0) for pad in self.pads)
        padded = np.pad(image, ((top, bottom), (left, right), (0, 0)), constant_values=fill)
        padded = padded[max(-self.pads[0], 0):, max(-self.pads[1], 0):]
        i = np.arange(rows)[:, None] * self.stride[0] + np.arange(self.kernel[0])[None] * self.dilation[0]
        j = np.arange(columns)[:, None] * self.stride[1] + np.arange(self.kernel[1])[None] * self.dilation[1]
        found: Array = padded[i[:, None, :, None], j[None, :, None, :]]
        return found

    def needed(self, image: tuple[int, int, int]) -> Array:
        """For each pixel `(rows, columns)` of the output the first element of an image `(H, W, C)` that its window or one of a later pixel covers."""
        height, width, depth = image
        rows, columns = self.size(height, width)
        first = np.maximum(np.arange(rows) * self.stride[0] - self.pads[0], 0)
        left = np.maximum(np.arange(columns) * self.stride[1] - self.pads[1], 0)
        needed = (first[:, None] * width + left[None]) * depth
        # Later rows may begin left of this one's window.
        later = np.append(first[1:] * width * depth, height * width * depth)
        found: Array = np.minimum(needed, later[:, None])
        return found

    def lag(self, image: tuple[int, int, int], channels: int) -> int:
        """The least lag of an image `(H, W, C)` behind an output of so many channels that is written pixel after pixel.

        While pixel `p` is written, everything that its window and those of later pixels cover is still there.
        """
        needed = self.needed(image)
        written = (np.arange(needed.size).reshape(needed.shape) + 1) * channels
        return max(int((written - needed).max()), 0)


PIXEL = Window()
