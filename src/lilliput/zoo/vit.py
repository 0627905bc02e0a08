"""A small vision transformer [dosovitskiy2021vit] for images of 28 or 32 pixels.

Differs from the paper: patches of 4 pixels, the mean over tokens in place of a class token [beyer2022plainvit].
Names follow timm (`blocks.0.attn.qkv`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError
from lilliput.zoo.layers import head


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise PreconditionError(f"dim must be a multiple of heads, not {dim} of {heads}")
        self.heads, self.head_dim = heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, tokens, dim) -> (N, tokens, dim)`."""
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        mixed: Tensor = self.proj(out.transpose(1, 2).reshape(batch, tokens, self.heads * self.head_dim))
        return mixed


class Mlp(nn.Module):
    """`fc2(gelu(fc1(x)))` with four times as many hidden units."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., dim) -> (..., dim)`."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to its input."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, tokens, dim) -> (N, tokens, dim)`."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


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
