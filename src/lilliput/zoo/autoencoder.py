"""The autoencoder for anomaly detection of MLPerf Tiny [banbury2021mlperf]: 640 spectrogram values in and out."""

from __future__ import annotations

from torch import Tensor, nn

_HIDDEN = (128, 128, 128, 128, 8, 128, 128, 128, 128)


class Autoencoder(nn.Module):
    """Linear layers with batch norm and ReLU around a bottleneck of 8, and a linear layer back to the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in zip((inputs, *_HIDDEN), _HIDDEN, strict=False):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(_HIDDEN[-1], outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, inputs) -> (N, outputs)`."""
        out: Tensor = self.layers(x)
        return out


def autoencoder(num_classes: int = 0, in_chans: int = 640) -> nn.Module:
    """Reconstructs its `in_chans` input values; with `num_classes`, that many outputs instead [banbury2021mlperf]."""
    return Autoencoder(in_chans, num_classes or in_chans)
