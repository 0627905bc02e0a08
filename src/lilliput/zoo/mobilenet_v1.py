"""MobileNet: depthwise separable convolutions [howard2017mobilenets].

`width` is the paper's multiplier (channels are rounded to multiples of 8). `small_input` is for images of 28
or 32 pixels: the stem and the first striding block keep the resolution, so that the whole strides by 8.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.zoo.layers import head, initialise_, scaled

# (output channels, stride) of each block.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
           (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1))


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )


class MobileNetV1(nn.Module):
    """Stem, thirteen separable blocks, global average, linear."""

    def __init__(self, num_classes: int, in_chans: int, width: float, small_input: bool) -> None:
        super().__init__()
        channels = [scaled(32, width), *(scaled(c, width) for c, _ in _BLOCKS)]
        strides = [s for _, s in _BLOCKS]
        if small_input:
            strides[1] = 1
        blocks = [_separable(i, o, s) for i, o, s in zip(channels, channels[1:], strides, strict=False)]
        self.features = nn.Sequential(_conv(in_chans, channels[0], 1 if small_input else 2), *blocks)
        self.classifier = head(channels[-1], num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, H, W) -> (N, num_classes)`."""
        scores: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return scores


def mobilenet_v1(num_classes: int = 1000, in_chans: int = 3, width: float = 1.0, small_input: bool = False) -> nn.Module:
    """MobileNet V1 [howard2017mobilenets]."""
    return MobileNetV1(num_classes, in_chans, width, small_input)
