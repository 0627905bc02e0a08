"""What several families share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError


def head(features: int, num_classes: int) -> nn.Linear:
    """The last layer of a classifier; raises `PreconditionError` without classes."""
    if num_classes < 1:
        raise PreconditionError(f"a classifier needs at least one class, not num_classes={num_classes}; "
                                "for data without classes take the autoencoder, or a model with one output for each target")
    return nn.Linear(features, num_classes)


def divisible(channels: float, by: int = 8) -> int:
    """The multiple of `by` nearest to `channels`, at least `by`, and never below 90% of `channels` [sandler2018mobilenetv2]."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


def scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, as a multiple of 8; raises `PreconditionError` for a width that is not positive."""
    if not 0 < width <= 16:
        raise PreconditionError(f"the width multiplier must lie in 0 to 16, not {width}")
    return divisible(channels * width)


def initialise_(model: nn.Module) -> None:
    """Draw convolution weights for variance-preserving ReLU layers [he2015delving]; norms start as identity."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values [vaswani2017attention].

    Where it is `causal`, a token attends to itself and to those before it.
    """

    def __init__(self, dim: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise PreconditionError(f"dim must be a multiple of heads, not {dim} of {heads}")
        self.heads, self.head_dim, self.causal = heads, dim // heads, causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, tokens, dim) -> (N, tokens, dim)`."""
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
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

    def __init__(self, dim: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, heads, causal)
        self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, tokens, dim) -> (N, tokens, dim)`."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out
