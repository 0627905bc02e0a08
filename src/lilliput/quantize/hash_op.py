"""The operator of codes that nobody stores: `lilliput::hashed`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.core.xxhash import xxh32_numbers


@torch.library.custom_op("lilliput::hashed", mutates_args=())
def hashed(like: Tensor, start: int, counts: list[int], buckets: list[int], seed: int) -> Tensor:
    """Codes of positions `start`, `start + 1`..., one segment after the other: `base_s + xxh32(position, seed) mod buckets[s]`.

    Segment `s` has `counts[s]` positions, and `base_s` counts the buckets of the segments before it. int32, `(sum(counts),)`,
    on the device of `like`, whose values do not matter. Raises `PreconditionError` for segments without buckets.
    """
    return _codes(start, tuple(counts), tuple(buckets), seed).to(like.device, copy=True)


@hashed.register_fake
def _(like: Tensor, start: int, counts: list[int], buckets: list[int], seed: int) -> Tensor:  # noqa: ARG001
    return like.new_empty((sum(counts),), dtype=torch.int32)


HASHED = torch.ops.lilliput.hashed.default


# One step of training asks for the same codes again and again.
@lru_cache(maxsize=256)
def _codes(start: int, counts: tuple[int, ...], buckets: tuple[int, ...], seed: int) -> Tensor:
    if len(counts) != len(buckets) or min(buckets, default=1) < 1 or min(counts, default=0) < 0:
        raise PreconditionError(f"every segment has one bucket at least: counts are {list(counts)}, buckets {list(buckets)}")
    limits = np.repeat(np.array(buckets, np.int64), counts)
    bases = np.repeat(np.cumsum([0, *buckets[:-1]]), counts)
    found = xxh32_numbers(start, sum(counts), seed).astype(np.int64) % limits + bases
    return torch.from_numpy(found.astype(np.int32))
