"""A small vision transformer [dosovitskiy2021vit] for images of 28 or 32 pixels.

Differs from the paper: patches of 4 pixels, the mean over tokens in place of a class token [beyer2022plainvit].
Names follow timm (`blocks.0.attn.qkv`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError
from lilliput.zoo.layers import Block, head


class VisionTransformer(nn.Module):
    """Patches, positions, blocks, norm, mean, linear."""

    def __init__(self, num_classes: int, in_chans: int, grid: int, patch: int, blocks: nn.Sequential, dim: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(in_chans, dim, patch, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid, dim))
        self.blocks = blocks
        self.norm = nn.LayerNorm(dim)
        self.head = head(dim, num_classes)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, H, W) -> (N, num_classes)`."""
        x = self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed
        scores: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return scores


def vit_tiny(
    num_classes: int = 10, in_chans: int = 3, image_size: int = 32, patch: int = 4, dim: int = 128, depth: int = 6, heads: int = 4
) -> nn.Module:
    """A vision transformer of 1.2 million weights by default [dosovitskiy2021vit]; images are `image_size` pixels square.

    Raises `PreconditionError` where patches do not tile the image or heads do not divide `dim`.
    """
    if patch < 1 or image_size < patch or image_size % patch:
        raise PreconditionError(f"patches of {patch} pixels do not tile images of {image_size}; pass image_size or patch to suit")
    blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
    return VisionTransformer(num_classes, in_chans, image_size // patch, patch, blocks, dim)
