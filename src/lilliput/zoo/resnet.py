"""Residual networks for ImageNet [he2016resnet], with torchvision's structure and parameter names, so its weights load.

As there, ResNet-50 strides in the 3x3 convolution of a bottleneck; the paper strides in the first 1x1.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.zoo.layers import head, initialise_


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _projection(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, inputs, H, W) -> (N, planes, H / stride, W / stride)`."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1 down to `planes`, 3x3, 1x1 up to four times as many, beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = _projection(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, inputs, H, W) -> (N, 4 planes, H / stride, W / stride)`."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _stack(block: type[BasicBlock] | type[Bottleneck], inputs: int, planes: int, depth: int, stride: int) -> nn.Sequential:
    rest = (block(planes * block.expansion, planes, 1) for _ in range(depth - 1))
    return nn.Sequential(block(inputs, planes, stride), *rest)


class ResNet(nn.Module):
    """Stem, four stacks, global average, linear. `small_input`: a 3x3 stem of stride 1 and no pooling."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, int, int, int], num_classes: int, in_chans: int,
        small_input: bool,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, 64, 3, 1, 1, bias=False) if small_input else nn.Conv2d(in_chans, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small_input else nn.MaxPool2d(3, 2, 1)
        wide = block.expansion
        self.layer1 = _stack(block, 64, 64, depths[0], 1)
        self.layer2 = _stack(block, 64 * wide, 128, depths[1], 2)
        self.layer3 = _stack(block, 128 * wide, 256, depths[2], 2)
        self.layer4 = _stack(block, 256 * wide, 512, depths[3], 2)
        self.fc = head(512 * wide, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, H, W) -> (N, num_classes)`."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        scores: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


def resnet18(num_classes: int = 1000, in_chans: int = 3, small_input: bool = False) -> nn.Module:
    """ResNet-18: basic blocks, 2-2-2-2 [he2016resnet]."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_chans, small_input)


def resnet50(num_classes: int = 1000, in_chans: int = 3, small_input: bool = False) -> nn.Module:
    """ResNet-50: bottlenecks, 3-4-6-3 [he2016resnet]."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_chans, small_input)
