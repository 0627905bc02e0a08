"""Rates: what integer codes cost to store, their tables included, as an entropy coder would reach it."""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

Counts = NDArray[np.int64]
Array = NDArray[np.float64]


def entropy_bits(counts: ArrayLike) -> Array:
    """Bits of messages with these symbol counts, `(..., symbols)`, each under its own static code: `sum_i n_i log2(n / n_i)`.

    >>> float(entropy_bits([2, 1, 1]))
    6.0
    """
    found = np.asarray(counts, dtype=np.float64)
    total = found.sum(-1)
    return np.asarray(total * np.log2(np.maximum(total, 1)) - (found * np.log2(np.maximum(found, 1))).sum(-1))


def table_bits(counts: ArrayLike) -> Array:
    """Bits that tell a decoder the counts: both ends of their support, then which of the possible splits it is.

    `log2 C(n + K - 1, K - 1)` for `n` symbols over `K` consecutive values, plus `gamma_bits` of either end. With
    `entropy_bits` this is a complete two-part code for a message of known length, which an arithmetic coder reaches within
    a few bits.
    """
    found = np.asarray(counts)
    used, total = found > 0, found.sum(-1)
    first = np.argmax(used, axis=-1)
    width = np.where(total > 0, found.shape[-1] - np.argmax(used[..., ::-1], axis=-1) - first, 1)
    splits = gammaln(total + width) - gammaln(width) - gammaln(total + 1)
    return np.asarray(splits / math.log(2) + gamma_bits(width) + gamma_bits(first))


def gamma_bits(value: ArrayLike) -> Array:
    """Lengths of Elias' gamma codes of `value + 1`: `2 floor(log2(value + 1)) + 1`.

    >>> gamma_bits([0, 6]).tolist()
    [1.0, 5.0]
    """
    return np.asarray(2 * np.floor(np.log2(np.asarray(value, dtype=np.float64) + 1)) + 1)


def symbols_bits(symbols: NDArray[np.integer[Any]]) -> float:
    """Bits of integers of any sign with a table of their own; the least of them is sent in place of zero."""
    if not symbols.size:
        return 0.0
    low = int(symbols.min())
    counts = np.bincount((symbols - low).ravel())
    return float(entropy_bits(counts) + table_bits(counts) + gamma_bits(2 * abs(low)))


def huffman_lengths(counts: ArrayLike) -> Counts:
    """Code lengths of an optimal prefix code, zero for symbols that do not occur; one symbol alone takes one bit.

    >>> huffman_lengths([5, 2, 0, 1, 1]).tolist()
    [1, 2, 0, 3, 3]
    """
    found = np.asarray(counts, dtype=np.int64)
    heap = [(int(n), int(i), [int(i)]) for i, n in enumerate(found) if n]
    lengths = np.zeros(len(found), dtype=np.int64)
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, i, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[left + right] += 1
        heapq.heappush(heap, (a + b, i, left + right))
    return lengths
