"""A small U-Net [ronneberger2015unet] of the residual blocks of diffusion models [ho2020ddpm].

Maps an image to one of the same size: the noise in it, a segmentation, a restored image. The time step of a diffusion model
comes in as further input channels (`lilliput.data.Diffusion`), where the paper adds an embedding of it inside every block:
so the network has one input, and every edge of it can be quantized. No attention and no dropout, unlike the paper.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError
from lilliput.zoo.layers import scaled

_GROUPS = 8


class Block(nn.Module):
    """`skip(x) + conv(silu(norm(conv(silu(norm(x))))))`, the skip a 1x1 convolution where the channels change."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(_GROUPS, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(_GROUPS, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(N, inputs, H, W) -> (N, outputs, H, W)`."""
        out = self.conv1(F.silu(self.norm1(x)))
        out = self.conv2(F.silu(self.norm2(out)))
        total: Tensor = self.skip(x) + out
        return total


class UNet(nn.Module):
    """Stem; per level a block and a halving; the way back up beside what was kept of the way down; norm, head."""

    def __init__(self, num_classes: int, in_chans: int, channels: list[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, channels[0], 3, padding=1)
        levels = list(pairwise(channels))
        self.down = nn.ModuleList(Block(a, a) for a, _ in levels)
        self.downsample = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in levels)
        self.middle = Block(channels[-1], channels[-1])
        self.upsample = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in reversed(levels))
        self.up = nn.ModuleList(Block(2 * a, a) for a, _ in reversed(levels))
        self.norm = nn.GroupNorm(_GROUPS, channels[0])
        self.head = nn.Conv2d(channels[0], num_classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, H, W) -> (N, num_classes, H, W)`; H and W are multiples of `2^depth`."""
        x = self.stem(x)
        kept = []
        for block, downsample in zip(self.down, self.downsample, strict=True):
            kept.append(block(x))
            x = downsample(kept[-1])
        x = self.middle(x)
        for upsample, block in zip(self.upsample, self.up, strict=True):
            x = upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = block(torch.cat([x, kept.pop()], 1))
        maps: Tensor = self.head(F.silu(self.norm(x)))
        return maps


def unet(num_classes: int = 1, in_chans: int = 3, width: float = 1.0, depth: int = 2) -> nn.Module:
    """A U-Net with `num_classes` maps of the input's size, 32 channels doubled at each of `depth` halvings.

    The bottleneck sees `2^depth` pixels of the input as one [ronneberger2015unet].

    Raises `PreconditionError` without maps or halvings.
    """
    if num_classes < 1 or depth < 1:
        raise PreconditionError("a U-Net needs at least one output map and one halving, "
                                f"not num_classes={num_classes}, depth={depth}")
    return UNet(num_classes, in_chans, [scaled(32 * 2**level, width) for level in range(depth + 1)])
