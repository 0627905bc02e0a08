from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lilliput.data.order import spread


@dataclass(frozen=True)
class ArraySplit:
    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self):
        return len(self.inputs)

    def batches(self, size, *, seed=None, epoch=0, rank=0, world=1):
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed * 1000 + epoch))
        for part in order.split(size):
            yield self.inputs[part], self.targets[part]

    def head(self, count):
        part = torch.from_numpy(spread(len(self), count))
        return ArraySplit(self.inputs[part], self.targets[part])


@dataclass(frozen=True)
class Arrays:
    train: ArraySplit
    name: str = "arrays"
    num_classes: int = 4
    digest: str = "0"

    @property
    def val(self):
        return self.train

    def example(self, n=2):
        return self.train.inputs[:n]


def arrays(*shape, samples=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Arrays(ArraySplit(torch.randn(samples, *shape, generator=generator), torch.randint(0, 4, (samples,), generator=generator)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        y = F.relu(x + self.norm2(self.depthwise(x)))
        return self.head(F.adaptive_avg_pool2d(torch.cat([x, F.relu6(y)], 1), 1).flatten(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.qkv, self.out, self.head = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(F.gelu(x + self.out(y))[:, 0] * 0.5)


class Preactivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.conv, self.head = nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.Linear(4, 4)

    def forward(self, x):
        return self.head(F.hardswish(self.conv(F.relu(self.norm(x)))).mean((2, 3)))


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.up, self.head = nn.Conv1d(3, 6, 3), nn.ConvTranspose1d(6, 4, 2, stride=2), nn.Linear(4, 4)

    def forward(self, x):
        a, b = self.conv(x).chunk(2, 1)
        return self.head(self.up(torch.cat([torch.sigmoid(a), b], 1)).mean(2))


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv3d(2, 4, 3), nn.Linear(4, 4)

    def forward(self, x):
        return self.head(F.leaky_relu(self.conv(x)).mean((2, 3, 4)))


NETS = {"residual": (Residual, (2, 8, 8)), "attention": (Attention, (5, 8)), "preactivation": (Preactivation, (2, 6, 6)),
        "sequence": (Sequence, (3, 10)), "volume": (Volume, (2, 4, 4, 4))}
