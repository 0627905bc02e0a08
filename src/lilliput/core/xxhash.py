"""xxHash, 32 bits, of many keys at once: a fast hash of published constants, so that any decoder can compute it again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import PreconditionError

PRIMES = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
_P1, _P2, _P3, _P4, _P5 = (np.uint32(p) for p in PRIMES)
_MASK = 0xFFFFFFFF
Words = NDArray[np.uint32]


def xxh32(keys: NDArray[np.uint8], seed: int = 0) -> Words:
    """The hash of every row of `keys`, bytes `(n, length)`; `(n,)`, equal to that of the reference implementation.

    >>> [hex(int(h)) for h in xxh32(np.frombuffer(b"abc", np.uint8).reshape(1, 3))]
    ['0x32d153ff']

    Raises `PreconditionError` for keys that are no rows of bytes, or a seed that is no 32-bit number.
    """
    if keys.ndim != 2 or keys.dtype != np.uint8:
        raise PreconditionError(f"keys are rows of bytes, (n, length), not {keys.shape} of {keys.dtype}: view them as bytes")
    if not 0 <= seed <= _MASK:
        raise PreconditionError(f"a seed is a number from 0 to 2^32 - 1, not {seed}")
    count, length = keys.shape
    words = np.ascontiguousarray(keys[:, : length // 4 * 4]).view("<u4").reshape(count, length // 4).astype(np.uint32)
    taken = length // 16 * 4
    h = _stripes(words[:, :taken], seed) if taken else np.full(count, (seed + PRIMES[4]) & _MASK, np.uint32)
    h += np.uint32(length & _MASK)
    for j in range(taken, words.shape[1]):
        h = _rotated(h + words[:, j] * _P3, 17) * _P4
    for j in range(length // 4 * 4, length):
        h = _rotated(h + keys[:, j].astype(np.uint32) * _P5, 11) * _P1
    return _avalanche(h)


def xxh32_numbers(start: int, count: int, seed: int = 0) -> Words:
    """The hashes of the numbers `start` to `start + count - 1`, each a key of four bytes, the least significant first."""
    if not 0 <= start <= start + count <= _MASK:
        raise PreconditionError(f"keys of four bytes hold numbers below 2^32, not {start} and {count} more")
    numbers = np.arange(start, start + count, dtype=np.int64).astype("<u4")
    return xxh32(numbers.view(np.uint8).reshape(count, 4), seed)


def _stripes(words: Words, seed: int) -> Words:
    starts = (seed + PRIMES[0] + PRIMES[1], seed + PRIMES[1], seed, seed - PRIMES[0])
    lanes = [np.full(len(words), start & _MASK, np.uint32) for start in starts]
    for j in range(words.shape[1]):
        lanes[j % 4] = _rotated(lanes[j % 4] + words[:, j] * _P2, 13) * _P1
    return _rotated(lanes[0], 1) + _rotated(lanes[1], 7) + _rotated(lanes[2], 12) + _rotated(lanes[3], 18)


def _rotated(h: Words, bits: int) -> Words:
    out: Words = (h << np.uint32(bits)) | (h >> np.uint32(32 - bits))
    return out


def _avalanche(h: Words) -> Words:
    h = (h ^ (h >> np.uint32(15))) * _P2
    h = (h ^ (h >> np.uint32(13))) * _P3
    out: Words = h ^ (h >> np.uint32(16))
    return out
