"""DS-CNN for keyword spotting [zhang2017hello], as in MLPerf Tiny [banbury2021mlperf].

Input is a spectrogram of 49 frames by 10 cepstral coefficients, `(1, 49, 10)`. As in the reference, convolutions
have biases although batch norm follows, and padding is TensorFlow's, which puts the odd row below.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.zoo.layers import head, initialise_, scaled


def _separable(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(),
    )


class DSCNN(nn.Module):
    """A 10x4 convolution of stride 2, four separable blocks, global average, linear; dropout after the first and the last."""

    def __init__(self, num_classes: int, in_chans: int, width: float) -> None:
        super().__init__()
        channels = scaled(64, width)
        self.stem = nn.Sequential(
            nn.ZeroPad2d((1, 1, 4, 5)), nn.Conv2d(in_chans, channels, (10, 4), 2), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Dropout(0.2),
        )
        self.blocks = nn.Sequential(*(_separable(channels) for _ in range(4)), nn.Dropout(0.4))
        self.fc = head(channels, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, 49, 10) -> (N, num_classes)`; other sizes work as well."""
        scores: Tensor = self.fc(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))
        return scores


def ds_cnn(num_classes: int = 12, in_chans: int = 1, width: float = 1.0) -> nn.Module:
    """DS-CNN with 64 channels [zhang2017hello], the keyword spotter of MLPerf Tiny [banbury2021mlperf]."""
    return DSCNN(num_classes, in_chans, width)
