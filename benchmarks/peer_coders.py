"""Peers' entropy coders in a process of their own.

    .venv-peers/bin/python -m benchmarks.peer_coders constriction|zstdLEVEL SYMBOLS.npy
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

_SECONDS = 3.0


def least(work: Callable[[], Any]) -> float:
    """Least seconds that it takes."""
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def _constriction(data: Any) -> dict[str, Any]:
    import constriction

    counts = np.bincount(data)
    low = int(np.flatnonzero(counts)[0])
    shares = (counts[low:] / counts.sum()).astype(np.float32)
    shifted = (data.astype(np.int32) - low)

    def model() -> Any:
        return constriction.stream.model.Categorical(np.maximum(shares, 1e-9), perfect=False)

    def encode() -> Any:
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(shifted, model())
        return coder.get_compressed()

    words = encode()
    decoded = constriction.stream.stack.AnsCoder(words).decode(model(), data.size)
    assert np.array_equal(decoded, shifted)
    return {"version": constriction.__version__ if hasattr(constriction, "__version__") else "", "bits": (32 * words.size + 32 * shares.size) / data.size,
            "encode": data.size / least(encode) / 1e6,
            "decode": data.size / least(lambda: constriction.stream.stack.AnsCoder(words).decode(model(), data.size)) / 1e6}


def _zstd(data: Any, level: int) -> dict[str, Any]:
    import zstandard

    packed = (data[::2] | data[1::2] << 4).astype(np.uint8).tobytes() if data.max() < 16 else data.tobytes()

    def decode() -> Any:
        raw = np.frombuffer(zstandard.ZstdDecompressor().decompress(frame), np.uint8)
        if data.max() > 15:
            return raw
        out = np.empty(data.size, np.uint8)
        out[::2], out[1::2] = raw & 15, raw >> 4
        return out

    began = time.perf_counter()
    frame = zstandard.ZstdCompressor(level=level).compress(packed)
    seconds = time.perf_counter() - began
    assert np.array_equal(decode(), data)
    return {"version": zstandard.__version__, "bits": 8 * len(frame) / data.size, "encode": data.size / seconds / 1e6, "decode": data.size / least(decode) / 1e6,
            "decode_packed": data.size / least(lambda: zstandard.ZstdDecompressor().decompress(frame)) / 1e6}


if __name__ == "__main__":
    found = np.load(sys.argv[2])
    print(json.dumps(_constriction(found) if sys.argv[1] == "constriction" else _zstd(found, int(sys.argv[1].removeprefix("zstd")))))
