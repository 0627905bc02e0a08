"""VGG: 3x3 convolutions one after the other, halved by pooling after each stage [simonyan2015vgg].

As it is used on small images: batch norm behind every convolution, whose biases it makes void, and one linear layer on the
global average where the paper has three of 4,096 units. Names follow torchvision (`features.0`).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError
from lilliput.zoo.layers import head, initialise_, scaled

_CHANNELS = (64, 128, 256, 512, 512)
_HALVED = 2 ** (len(_CHANNELS) - 1)


class VGG(nn.Module):
    """Stages of so many convolutions each, pooling between them, global average, linear."""

    def __init__(self, convolutions: tuple[int, ...], num_classes: int, in_chans: int, width: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = in_chans
        for stage, (channels, count) in enumerate(zip(_CHANNELS, convolutions, strict=True)):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(count):
                outputs = scaled(channels, width)
                layers += [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = head(inputs, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, H, W) -> (N, num_classes)`; raises `PreconditionError` for images of less than 16 pixels a side."""
        if min(x.shape[-2:]) < _HALVED:
            raise PreconditionError(f"VGG halves images four times: they need at least {_HALVED} pixels a side, not {tuple(x.shape[-2:])}")
        scores: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return scores


def vgg11(num_classes: int = 10, in_chans: int = 3, width: float = 1.0) -> nn.Module:
    """VGG-11 for small images: eight convolutions [simonyan2015vgg]."""
    return VGG((1, 1, 2, 2, 2), num_classes, in_chans, width)


def vgg16(num_classes: int = 10, in_chans: int = 3, width: float = 1.0) -> nn.Module:
    """VGG-16 for small images: thirteen convolutions [simonyan2015vgg]."""
    return VGG((2, 2, 3, 3, 3), num_classes, in_chans, width)
