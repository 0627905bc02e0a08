"""MobileNetV2: inverted residuals with linear bottlenecks [sandler2018mobilenetv2], with torchvision's structure and names.

`width` is the paper's multiplier. `small_input` is for images of 28 or 32 pixels: the stem and the first
striding stage keep the resolution, so that the whole strides by 8.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.zoo.layers import head, initialise_, scaled

# (expansion, output channels, blocks, stride of the first) of each stage.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """1x1 up by `expansion`, 3x3 depthwise, 1x1 down without activation; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        up = [_conv(inputs, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *up, _conv(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """`(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)`."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """Stem, seventeen inverted residuals, 1x1 convolution, global average, dropout, linear."""

    def __init__(self, num_classes: int, in_chans: int, width: float, small_input: bool, dropout: float) -> None:
        super().__init__()
        inputs, last = scaled(32, width), scaled(1280, max(1.0, width))
        layers: list[nn.Module] = [_conv(in_chans, inputs, 3, 1 if small_input else 2)]
        for k, (expansion, channels, blocks, stride) in enumerate(_STAGES):
            outputs = scaled(channels, width)
            for i in range(blocks):
                strides = i == 0 and not (small_input and k == 1)
                layers.append(InvertedResidual(inputs, outputs, stride if strides else 1, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers, _conv(inputs, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), head(last, num_classes))
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, H, W) -> (N, num_classes)`."""
        scores: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return scores


def mobilenet_v2(
    num_classes: int = 1000, in_chans: int = 3, width: float = 1.0, small_input: bool = False, dropout: float = 0.2
) -> nn.Module:
    """MobileNet V2 [sandler2018mobilenetv2]."""
    return MobileNetV2(num_classes, in_chans, width, small_input, dropout)
