"""Gradients on the wire: codes of a few bits and one norm to each bucket, as one block of bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lilliput.core import bits as packing
from lilliput.core.errors import RecipeError
from lilliput.quantize.low_precision.gradient_model import Array

_NORM_BYTES = 4


def signed_levels(magnitudes: Array) -> Tensor:
    """All levels `(levels,)`, ascending, float32: the magnitudes with both signs, and zero once where it is among them."""
    values = torch.from_numpy(magnitudes).float()
    return torch.cat([-values.flip(0)[: len(values) - int(values[0] == 0)], values])


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A vector as `norm * level[code]`: one float32 Euclidean norm for each `bucket` coordinates, one code for each.

    Coordinates are rounded to one of the two levels around them with the chances that make the result unbiased. Codes lie one
    after the other, least significant bit first, the norms after them.
    """

    bits: int = 3
    bucket: int = 8192

    def __post_init__(self) -> None:
        if self.bucket < 1:
            raise RecipeError(f"a bucket has at least one coordinate, not {self.bucket!r}")

    def size(self, count: int) -> int:
        """Bytes of a vector of `count` coordinates: `ceil(bits * count / 8) + 4 ceil(count / bucket)`.

        >>> Codec(bits=3, bucket=8192).size(10_000)
        3758
        """
        return -(-self.bits * count // 8) + _NORM_BYTES * -(-count // self.bucket)

    def buckets(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised coordinates `(buckets, bucket)`, the last row filled up with zeros, and norms `(buckets,)`."""
        rows = F.pad(x.detach().float().flatten(), (0, -x.numel() % self.bucket)).reshape(-1, self.bucket)
        norms = torch.linalg.vector_norm(rows, dim=1)
        return (rows / norms.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).clamp_(-1, 1), norms

    def encode(self, x: Tensor, levels: Tensor) -> Tensor:
        """Bytes `(size(x.numel()),)`, uint8, on the device of `x`."""
        rows, norms = self.buckets(x)
        r = rows.flatten()[: x.numel()].contiguous()
        levels = levels.to(r.device)
        below = (torch.searchsorted(levels, r, right=True) - 1).clamp_(0, len(levels) - 2)
        gap = levels[below + 1] - levels[below]
        codes = below + (torch.rand_like(r) * gap < r - levels[below])
        packed = torch.from_numpy(_pack(codes.to(torch.uint8).cpu().numpy(), self.bits))
        return torch.cat([packed.to(x.device), norms.contiguous().view(torch.uint8)])

    def decode(self, payload: Tensor, count: int, levels: Tensor) -> Tensor:
        """The vector `(count,)`, float32."""
        split = len(payload) - _NORM_BYTES * -(-count // self.bucket)
        codes = torch.from_numpy(_unpack(payload[:split].cpu().numpy(), self.bits, count)).to(payload.device)
        norms = payload[split:].clone().view(torch.float32)
        return levels.to(payload.device)[codes.long()] * norms.repeat_interleave(self.bucket)[:count]

    def statistics(self, x: Tensor) -> Tensor:
        """Rows `(mean, deviation, norm)` of the normalised coordinates of each bucket, `(buckets, 3)`, the filling left out."""
        rows, norms = self.buckets(x)
        counts = torch.full_like(norms, self.bucket)
        counts[-1] = x.numel() - self.bucket * (len(norms) - 1)
        mean = rows.sum(1) / counts
        return torch.stack([mean, (rows.square().sum(1) / counts - mean.square()).clamp_min(0).sqrt(), norms], 1)


def _pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The layout of `core.bits`, for any width."""
    if bits in packing.WIDTHS:
        return packing.pack(codes, bits)
    planes = (codes[:, None] >> np.arange(bits, dtype=np.uint8)) & np.uint8(1)
    return np.packbits(planes.reshape(-1), bitorder="little")


def _unpack(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    if bits in packing.WIDTHS:
        return packing.unpack(packed, bits, count)
    planes = np.unpackbits(packed, count=bits * count, bitorder="little").reshape(count, bits)
    codes: NDArray[np.uint8] = (planes << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8)
    return codes
