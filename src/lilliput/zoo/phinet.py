"""PhiNets: inverted residuals whose expansion falls or grows linearly with depth, so that memory, storage and work scale apart
[paissan2022phinets].

Block `i` of `N` expands its input by `t_zero (1 + (beta - 1) i / N)`; all channels scale with `alpha`. So `t_zero` sets the
largest activations, which are those of the first blocks, `beta` the parameters, which are those of the last ones, and `alpha` all
of it. The stem is a separable convolution of stride 2; squeeze-and-excite and h-swish are in every block but the first, which
expands nothing.

Widths (48 channels from the stem, 24, then 48, doubled at blocks 5 and 7), truncation of channels to whole numbers, squeezing to
a sixth and layers without biases are those of the authors' code, whose 30,917 parameters for `alpha = 0.2` this network has; the
paper's text may differ there. Padding is one pixel all around at the stem too, where the code pads below and right, and the
code's dropout of 5% of the channels of each block is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError
from lilliput.zoo.layers import head, initialise_

_STEM, _FIRST, _SECOND = 48, 24, 48
_DOUBLING = (5, 7)


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Channels into, inside and out of a block; `squeezed` channels of its gate, 0 without one; `expands` where a 1x1 convolution
    widens.
    """

    inputs: int
    hidden: int
    outputs: int
    stride: int
    squeezed: int
    expands: bool

    @property
    def residual(self) -> bool:
        """Whether the shape stays, so that the input is added."""
        return self.stride == 1 and self.inputs == self.outputs


def expansion(t_zero: float, beta: float, block: int, blocks: int) -> float:
    """`t_zero beta i / N + t_zero (N - i) / N`.

    >>> expansion(6, 0.5, 0, 4), expansion(6, 0.5, 2, 4), expansion(6, 0.5, 4, 4)
    (6.0, 4.5, 3.0)
    """
    return t_zero * beta * block / blocks + t_zero * (blocks - block) / blocks


def shapes(alpha: float, beta: float, t_zero: float, blocks: int) -> tuple[BlockShape, ...]:
    """The shapes of the first block and of `blocks` more, of which the first, the third, the fifth and the seventh stride.

    Raises `PreconditionError` where a block would have no channels.
    """
    if not (isinstance(blocks, int) and 3 <= blocks <= 64):
        raise PreconditionError(f"blocks is a whole number from 3 to 64, not {blocks!r}")
    if not (0 < alpha <= 16 and 0 < beta <= 16 and 0 < t_zero <= 64):
        raise PreconditionError(f"alpha and beta lie above 0 and up to 16, t_zero up to 64, not {alpha}, {beta} and {t_zero}")
    stem, inputs, base = int(_STEM * alpha), int(_FIRST * alpha), _SECOND
    found = [BlockShape(inputs=stem, hidden=stem, outputs=inputs, stride=1, squeezed=0, expands=False)]
    for i in range(1, blocks + 1):
        base *= 2 if i in _DOUBLING else 1
        hidden, outputs = int(expansion(t_zero, beta, i, blocks) * inputs), int((_FIRST if i < 3 else base) * alpha)
        found.append(BlockShape(inputs=inputs, hidden=hidden, outputs=outputs, stride=2 if i in (1, 3, *_DOUBLING) else 1,
                                squeezed=max(1, int(hidden / 6)), expands=True))
        inputs = outputs
    if min(min(block.inputs, block.hidden, block.outputs) for block in found) < 1:
        raise PreconditionError(f"alpha={alpha}, beta={beta} and t_zero={t_zero} leave a block without channels; alpha is at least 1/24")
    return tuple(found)


class Gate(nn.Module):
    """Squeeze-and-excite: `x sigmoid(W2 hswish(W1 mean(x)))`."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, squeezed, 1, bias=False), nn.Conv2d(squeezed, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, channels, H, W)` to the same."""
        gate: Tensor = self.excite(F.hardswish(self.squeeze(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return x * gate


class Block(nn.Module):
    """1x1 up, 3x3 depthwise, gate, 1x1 down without activation; a shortcut where the shape stays."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        hidden = shape.hidden
        up = [nn.Conv2d(shape.inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish()] if shape.expands else []
        gate = [Gate(hidden, shape.squeezed)] if shape.squeezed else []
        self.layers = nn.Sequential(
            *up, nn.Conv2d(hidden, hidden, 3, shape.stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish(), *gate,
            nn.Conv2d(hidden, shape.outputs, 1, bias=False), nn.BatchNorm2d(shape.outputs),
        )
        self.residual = shape.residual

    def forward(self, x: Tensor) -> Tensor:
        """`(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)`."""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class PhiNet(nn.Module):
    """Separable stem, blocks, global average, linear."""

    def __init__(self, num_classes: int, in_chans: int, found: tuple[BlockShape, ...]) -> None:
        super().__init__()
        stem = found[0].inputs
        self.stem = nn.Sequential(nn.Conv2d(in_chans, in_chans, 3, 2, 1, groups=in_chans, bias=False),
                                  nn.Conv2d(in_chans, stem, 1, bias=False), nn.BatchNorm2d(stem), nn.Hardswish())
        self.blocks = nn.Sequential(*(Block(shape) for shape in found))
        self.classifier = head(found[-1].outputs, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, H, W) -> (N, num_classes)`."""
        scores: Tensor = self.classifier(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))
        return scores


def phinet(
    num_classes: int = 10, in_chans: int = 3, alpha: float = 0.2, beta: float = 1.0, t_zero: float = 6.0, blocks: int = 7
) -> nn.Module:
    """A PhiNet of width `alpha`, shape `beta` and base expansion `t_zero` [paissan2022phinets]."""
    return PhiNet(num_classes, in_chans, shapes(alpha, beta, t_zero, blocks))
