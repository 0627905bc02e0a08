"""xxHash of many keys: published vectors, and the algorithm written out for one key."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.core import PreconditionError
from lilliput.core.xxhash import PRIMES, xxh32, xxh32_numbers

P1, P2, P3, P4, P5 = PRIMES
MASK = 2**32 - 1


def keys(*texts):
    return np.array([list(text) for text in texts], np.uint8).reshape(len(texts), -1)


@pytest.mark.parametrize(("text", "seed", "wanted"), [
    (b"", 0, 0x02CC5D05), (b"", 0x9E3779B1, 0x36B78AE7), (b"a", 0, 0x550D7456), (b"abc", 0, 0x32D153FF),
    (b"Nobody inspects the spammish repetition", 0, 0xE2293B2F),
])
def test_published_vectors(text, seed, wanted):
    assert xxh32(keys(text, text), seed).tolist() == [wanted] * 2


def reference(data, seed):
    """The specification, byte for byte, in Python's own integers."""
    def rotated(x, r):
        return ((x << r) | (x >> (32 - r))) & MASK

    at = 0
    if len(data) >= 16:
        lanes = [(seed + P1 + P2) & MASK, (seed + P2) & MASK, seed, (seed - P1) & MASK]
        while at + 16 <= len(data):
            for lane in range(4):
                word = int.from_bytes(data[at: at + 4], "little")
                lanes[lane] = rotated((lanes[lane] + word * P2) & MASK, 13) * P1 & MASK
                at += 4
        h = sum(rotated(lane, r) for lane, r in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
    else:
        h = (seed + P5) & MASK
    h = (h + len(data)) & MASK
    while at + 4 <= len(data):
        h = rotated((h + int.from_bytes(data[at: at + 4], "little") * P3) & MASK, 17) * P4 & MASK
        at += 4
    for byte in data[at:]:
        h = rotated((h + byte * P5) & MASK, 11) * P1 & MASK
    h = (h ^ (h >> 15)) * P2 & MASK
    h = (h ^ (h >> 13)) * P3 & MASK
    return h ^ (h >> 16)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40).flatmap(lambda n: st.lists(st.binary(min_size=n, max_size=n), min_size=1, max_size=4)), st.integers(0, MASK))
def test_every_key_is_hashed_as_the_specification_says(texts, seed):
    assert xxh32(keys(*texts), seed).tolist() == [reference(text, seed) for text in texts]


def test_numbers_are_keys_of_four_bytes():
    wanted = [reference(int(n).to_bytes(4, "little"), 7) for n in range(65_530, 65_545)]
    assert xxh32_numbers(65_530, 15, 7).tolist() == wanted
    assert xxh32_numbers(5, 0).tolist() == []


def test_buckets_are_filled_evenly():
    counts = np.bincount(xxh32_numbers(0, 64_000) % 64, minlength=64)
    # A thousand to each bucket, give or take six standard deviations.
    assert np.abs(counts - 1000).max() < 6 * 1000**0.5


@pytest.mark.parametrize("call", [lambda: xxh32(np.zeros(3, np.uint8)), lambda: xxh32(np.zeros((1, 4), np.int64)),
                                  lambda: xxh32(np.zeros((1, 4), np.uint8), -1), lambda: xxh32_numbers(2**32 - 2, 3)])
def test_what_cannot_be_hashed_is_refused(call):
    with pytest.raises(PreconditionError):
        call()
