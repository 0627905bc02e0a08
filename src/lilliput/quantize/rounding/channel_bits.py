"""Bits to each channel: output channels of a weight get steps of about one size, and so more bits the wider they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lilliput.graph.trace import Traced
from lilliput.graph.weights import has_own_weight, weight_name, weight_of
from lilliput.quantize.calibrate import widen_
from lilliput.quantize.clipping import Analytic
from lilliput.quantize.grids import Integer, Parameters
from lilliput.quantize.layers import weight_quantizer
from lilliput.quantize.operators import LAYERS
from lilliput.quantize.quantizer import Quantizer
from lilliput.quantize.ranges import Ranges, channel_bounds


def channel_bits(clip: Tensor, bits: int, *, least: int = 2, most: int = 8) -> Tensor:
    """Bits of every channel with `2^bits` levels on average: `M_i = log2(n 2^bits a_i^(2/3) / sum a^(2/3))` for clips `a`.

    (banner2019aciq) Whole numbers: rounded down, then those raised that lose most by it, while the levels last. Departs from
    the paper, which rounds to nearest and may spend more.
    """
    shares = clip.double().clamp(min=1e-30) ** (2 / 3)
    ideal = (shares / shares.sum() * len(clip) * 2.0**bits).log2().clamp(least, most)
    found = ideal.floor()
    room = len(clip) * 2.0**bits - float((2.0**found).sum())
    for channel in (ideal - found).argsort(descending=True).tolist():
        cost = 2.0 ** float(found[channel])
        if float(ideal[channel]) > float(found[channel]) and cost <= room:
            found[channel] += 1
            room -= cost
    return found.long()


@dataclass(frozen=True, kw_only=True)
class ChannelBits:
    """A rounding: every output channel of a weight gets its own number of bits, at most 8, and its own clip.

    Stored are integers of the widest channel's bits, of which narrower channels use the middle. With `spread`, each channel's
    scale is then multiplied by `|w - mean w| / |w' - mean w'|`, so that its values are spread as they were: the part of the
    paper's bias correction that a scale can take in. (banner2019aciq)
    """

    ranges: Ranges = field(default_factory=Analytic)
    spread: bool = True

    def __call__(self, quantized: Traced, reference: Traced, data: Any, samples: int) -> list[str]:  # noqa: ARG002
        """Round in place, without data."""
        total = count = 0
        for node in [n for n in quantized.graph.nodes if n.target in LAYERS]:
            quantizer = weight_quantizer(quantized, node)
            if quantizer is None or not has_own_weight(node) or not isinstance(quantizer.grid, Integer) or quantizer.grid.axis is None:
                continue
            weight = weight_of(quantized, node)
            bits, values = self._round_(quantizer, weight)
            quantized.set_tensor(weight_name(node), values)
            total, count = total + int(bits.sum()) * (weight.numel() // len(bits)), count + weight.numel()
        return [f"weights have {total / max(count, 1):.2f} bits on average, channel by channel", *widen_(quantized)]

    def _round_(self, quantizer: Quantizer, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Set the quantizer's grid and scales; bits of the channels, and the rounded weight."""
        grid = quantizer.grid
        assert isinstance(grid, Integer)
        assert grid.axis is not None
        rows = weight.movedim(grid.axis, 0).flatten(1).float()
        bits = channel_bits(self._limits(weight, grid), grid.bits, most=max(8, grid.bits))
        tops = (1 << (bits - 1)) - 1
        limits = torch.zeros(len(bits))
        for width in sorted({int(b) for b in bits}):
            limits = torch.where(bits == width, self._limits(weight, grid.at(int(width))), limits)
        parameters = grid.at(2).parameters(-limits, limits)  # of two bits: the clip itself is the scale
        scale = (parameters.scale / tops)[:, None]
        codes = (rows / scale).round().clamp(-tops[:, None], tops[:, None])
        if self.spread:
            scale = scale * _spread(rows, codes * scale)[:, None]
        quantizer.regrid(grid.at(int(bits.max())))
        quantizer.set(Parameters(scale.flatten(), torch.zeros_like(quantizer.zero_point), parameters.dead))
        values = (codes * quantizer.scale[:, None]).reshape(weight.movedim(grid.axis, 0).shape).movedim(0, grid.axis)
        return bits, values.contiguous().to(weight.dtype)

    def _limits(self, weight: Tensor, grid: Any) -> Tensor:
        low, high = channel_bounds(self.ranges, weight, grid)
        return torch.maximum(low.abs(), high.abs()).float()


def _spread(rows: Tensor, rounded: Tensor) -> Tensor:
    """`|w - mean w| / |w' - mean w'|` of each row; 1 where the rounded row is constant."""
    before, after = ((r - r.mean(1, keepdim=True)).norm(dim=1) for r in (rows, rounded))
    ratio = before / after.clamp(min=1e-30)
    return torch.where((after > 0) & (ratio < math.inf), ratio, 1.0)
