"""Residual networks for small images: three stacks of 16, 32 and 64 channels [he2016resnet, section 4.2].

ResNet-20 and ResNet-56 differ from the paper in their shortcuts, which project (1x1 convolution and batch
norm) where the paper pads with zero channels, so that every channel can be pruned. ResNet-8 is the image
classifier of MLPerf Tiny [banbury2021mlperf]; there convolutions also have biases and the shortcut no
batch norm.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.zoo.layers import head, initialise_, scaled


class Block(nn.Module):
    """`relu(x + bn(conv3(relu(bn(conv3(x))))))`, with a projection of `x` where its shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)`."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


def _stack(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


class CifarResNet(nn.Module):
    """Stem, three stacks of `blocks` blocks each, global average, linear."""

    def __init__(self, blocks: int, num_classes: int, in_chans: int, width: float) -> None:
        super().__init__()
        channels = [scaled(c, width) for c in (16, 32, 64)]
        self.conv1 = nn.Conv2d(in_chans, channels[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.layer1 = _stack(channels[0], channels[0], blocks, 1)
        self.layer2 = _stack(channels[0], channels[1], blocks, 2)
        self.layer3 = _stack(channels[1], channels[2], blocks, 2)
        self.fc = head(channels[-1], num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, H, W) -> (N, num_classes)`."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


def resnet8(num_classes: int = 10, in_chans: int = 3, width: float = 1.0) -> nn.Module:
    """ResNet-8 of MLPerf Tiny: one block in each stack [banbury2021mlperf]."""
    return CifarResNet(1, num_classes, in_chans, width)


def resnet20(num_classes: int = 10, in_chans: int = 3, width: float = 1.0) -> nn.Module:
    """ResNet-20: three blocks in each stack [he2016resnet]."""
    return CifarResNet(3, num_classes, in_chans, width)


def resnet56(num_classes: int = 10, in_chans: int = 3, width: float = 1.0) -> nn.Module:
    """ResNet-56: nine blocks in each stack [he2016resnet]."""
    return CifarResNet(9, num_classes, in_chans, width)
