"""Small networks, one for each way in which channels couple."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.a, self.b = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 16, 5)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        x = x + self.b(F.relu(self.a(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 4).flatten(1))


class Concat(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 10, 1)
        self.bn, self.c, self.fc = nn.BatchNorm2d(16), nn.Conv2d(16, 7, 1), nn.Linear(7, 5)

    def forward(self, x):
        x = torch.cat([self.a(x), self.b(x)], 1)
        first, second = torch.relu(self.bn(x)).split([9, 7], dim=1)
        return self.fc(self.c(torch.cat([second, first], 1)).mean((2, 3)))


class Mobile(nn.Module):
    """Depthwise convolution, squeeze-excite, hard-swish."""

    def __init__(self):
        super().__init__()
        self.expand, self.depth, self.bn = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16)
        self.down, self.up, self.project = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1), nn.Conv2d(16, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.hardswish(self.bn(self.depth(self.expand(x))))
        gate = F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.fc(self.project(x * gate).mean((2, 3)))


class Grouped(nn.Module):
    """Grouped convolutions, many narrow groups and few wide ones, with group norm."""

    def __init__(self):
        super().__init__()
        self.a, self.many, self.norm = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 3, padding=1, groups=8), nn.GroupNorm(4, 24)
        self.few, self.fc = nn.Conv2d(24, 12, 3, padding=1, groups=2), nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(self.few(F.relu(self.norm(self.many(F.relu(self.a(x)))))).mean((2, 3)))


class Shuffle(nn.Module):
    """Channel split and shuffle by view and transpose."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.fc = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(16, 6, 1), nn.Linear(6, 5)

    def forward(self, x):
        left, right = self.a(x).chunk(2, dim=1)
        x = torch.cat([left, F.relu(self.b(right))], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.fc(self.c(x).mean((2, 3)))


class PixelShuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(6, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(F.leaky_relu(self.b(F.pixel_shuffle(self.a(x), 2))).mean((2, 3)))


class Attention(nn.Module):
    """Fused query-key-value, several heads, layer norm, layer scale, position embedding, class token."""

    def __init__(self, dim=24, heads=4, kv_heads=4):
        super().__init__()
        self.heads, self.kv_heads, self.width = heads, kv_heads, dim // heads
        self.patch = nn.Conv2d(3, dim, 4, stride=4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, dim)), nn.Parameter(torch.randn(1, 5, dim))
        self.norm1, self.norm2, self.scale = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.Parameter(torch.rand(dim) + 0.5)
        self.qkv = nn.Linear(dim, (heads + 2 * kv_heads) * self.width)
        self.out, self.up, self.down, self.fc = nn.Linear(dim, dim), nn.Linear(dim, 40), nn.Linear(40, dim), nn.Linear(dim, 5)

    def attend(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(x).split([self.heads * self.width, self.kv_heads * self.width, self.kv_heads * self.width], dim=-1)
        q = q.view(n, t, self.heads, self.width).transpose(1, 2)
        k = k.view(n, t, self.kv_heads, self.width).transpose(1, 2)
        v = v.view(n, t, self.kv_heads, self.width).transpose(1, 2)
        x = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.heads != self.kv_heads)
        return self.out(x.transpose(1, 2).reshape(n, t, -1))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = x + self.scale * self.attend(self.norm1(x))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.fc(x[:, 0])


class ManualAttention(Attention):
    """The same with matrix products, a bias per head and einsum for the values."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 4))
        self.register_buffer("index", torch.arange(25) % 9)

    def attend(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, self.width).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * self.width**-0.5) @ k.transpose(-2, -1) + self.table[self.index].view(t, t, -1).permute(2, 0, 1).unsqueeze(0)
        x = torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)
        return self.out(x.transpose(1, 2).reshape(n, t, -1))


class Gated(nn.Module):
    """Embedding, GLU pair, tied output weights, RMS norm."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(11, 16), nn.RMSNorm(16)
        self.gate, self.up, self.down = nn.Linear(16, 20), nn.Linear(16, 20), nn.Linear(20, 16)
        self.pair, self.back = nn.Linear(16, 24), nn.Linear(12, 16)

    def forward(self, tokens):
        x = self.embed(tokens)
        h = self.norm(x)
        x = x + self.down(F.silu(self.gate(h)) * self.up(h))
        x = x + self.back(F.glu(self.pair(x)))
        return F.linear(x, self.embed.weight)


class Shared(nn.Module):
    """One module called twice, one-dimensional convolutions, transposed convolution, PReLU."""

    def __init__(self):
        super().__init__()
        self.a, self.twice, self.act = nn.Conv1d(4, 10, 3, padding=1), nn.Conv1d(10, 10, 3, padding=1), nn.PReLU(10)
        self.up, self.fc = nn.ConvTranspose1d(10, 6, 2, stride=2), nn.Linear(6, 5)

    def forward(self, x):
        x = self.act(self.a(x))
        return self.fc(self.up(self.twice(F.relu(self.twice(x)))).mean(2))


class Video(nn.Module):
    """Three-dimensional convolution, layer norm over channels last, permute chains."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.mix, self.fc = nn.Conv3d(2, 8, 3, padding=1), nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x):
        x = self.norm(self.a(x).permute(0, 2, 3, 4, 1))
        return self.fc(F.gelu(self.mix(x)).permute(0, 4, 1, 2, 3).mean((2, 3, 4)))


IMAGE = (2, 3, 8, 8)
NETWORKS = {
    "residual": (Residual, IMAGE), "concat": (Concat, IMAGE), "mobile": (Mobile, IMAGE), "grouped": (Grouped, IMAGE),
    "shuffle": (Shuffle, IMAGE), "pixel_shuffle": (PixelShuffle, IMAGE), "attention": (Attention, IMAGE),
    "grouped_query": (lambda: Attention(kv_heads=2), IMAGE), "manual_attention": (ManualAttention, IMAGE),
    "gated": (Gated, None), "shared": (Shared, (2, 4, 8)), "video": (Video, (2, 2, 4, 4, 4)),
}


def build(name):
    """A network in evaluation mode and an example input."""
    torch.manual_seed(0)
    factory, shape = NETWORKS[name]
    return factory().eval(), torch.randn(shape) if shape else torch.randint(0, 11, (2, 6))
