"""Entropy coders on ten million symbols: bits above the entropy, and symbols a second, everything included that a file's tensor takes.

    python -m benchmarks.coders --json benchmarks/results/coders.json [SOURCE:CODER ...]

Coding counts the symbols, makes the table, codes chunks and takes their checksums; decoding checks the checksums, builds tables from their serialised form, and decodes with every
bound checked. Time is the least of some repetitions, one thread and two; a symbol is a byte, so 10^6 symbols a second are one MB/s.

Sources: `laplacian4`, a Laplacian rounded to 15 levels within four standard deviations; `laplacian8`, rounded to 255 levels by the largest of
all; `zeros`, the first with nine of ten symbols made zero; `bfloat16`, normal weights, whose size is compared with their 16 bits. Peers: constriction's
ANS and nibble-packed zstd (its default level, 3, and 19) in an environment of their own, one thread.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import run
from benchmarks.results import main
from lilliput import coding
from lilliput.coding import streams
from lilliput.coding.coders import CODERS
from lilliput.coding.index import Places

COUNT = 10_000_000
_SECONDS = 8.0
OURS = {"rans": coding.Rans(pairs=False), "rans_pairs": coding.Rans(pairs=True), **{name: CODERS[name] for name in ("huffman", "tunstall", "arithmetic")}}
PEERS = ("constriction", "zstd3", "zstd19")
CASES = [f"{source}:{coder}" for source in ("laplacian4", "laplacian8", "zeros") for coder in (*OURS, *PEERS)
         if not (source == "laplacian8" and coder == "rans_pairs")]


def symbols(source: str) -> NDArray[np.uint8]:
    """The symbols of a source."""
    random = np.random.default_rng(0)
    values = random.laplace(size=COUNT)
    if source == "laplacian8":
        levels = np.round(values * (127 / np.abs(values).max())) + 120
    else:
        levels = np.clip(np.round(values / np.sqrt(2) * (7 / 4)), -7, 7)
    if source == "zeros":
        levels = np.where(random.random(COUNT) < 0.9, 0, np.where(levels == 0, np.sign(values), levels))
    found: NDArray[np.uint8] = (levels + 8).astype(np.uint8)
    return found


def least(work: Callable[[], Any]) -> float:
    """Least seconds that it takes."""
    best, until = np.inf, time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return float(best)


def row(case: str) -> dict[str, Any]:
    """Bits and speeds of one coder."""
    source, _, name = case.partition(":")
    if source == "bfloat16":
        return _floats()
    data = symbols(source)
    bound = coding.entropy(coding.count(data))
    if name in PEERS:
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "symbols.npy", data)
            found = run("peer_coders", name, str(Path(folder) / "symbols.npy"), peer=True, threads=1)
        return {"source": source, "coder": name, "entropy": bound, **found, "above": 100 * (found["bits"] / bound - 1)}
    coder = OURS[name]

    def encode() -> tuple[streams.Coded, Any]:
        coded = streams.encode(data, [coder])
        return coded, coded.placed(Places())

    coded, _ = encode()
    places = Places()
    placed = coded.placed(places)
    whole = np.zeros(places.end, np.uint8)
    for chunk, blob in zip(placed.chunks, coded.chunks, strict=True):
        whole[chunk.offset:chunk.offset + chunk.size] = np.frombuffer(blob, np.uint8)

    def read(offset: int, size: int) -> NDArray[np.uint8]:
        return whole[offset:offset + size]

    assert np.array_equal(streams.decode(placed, read, 2), data)
    bits = 8 * (coded.size + 7 * len(coded.chunks)) / COUNT
    return {"source": source, "coder": name, "entropy": bound, "bits": bits, "above": 100 * (bits / bound - 1),
            "encode": COUNT / least(encode) / 1e6, "decode": COUNT / least(lambda: streams.decode(placed, read)) / 1e6,
            "decode_two": COUNT / least(lambda: streams.decode(placed, read, 2)) / 1e6, "chunks": len(coded.chunks), "table": len(coded.table)}


def _floats() -> dict[str, Any]:
    """Weights of bfloat16 in a file: size and speed in bytes of weights."""
    weights = np.random.default_rng(0).normal(scale=0.02, size=COUNT).astype(ml_dtypes.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.lil"
        size = coding.save({"w": weights}, path, coder="rans")
        with coding.open(path) as file, coding.open(path, threads=2) as two:
            assert file["w"].tobytes() == weights.tobytes()
            return {"source": "bfloat16", "coder": "rans", "share": size / weights.nbytes, "decode": weights.nbytes / least(lambda: file["w"]) / 1e6,
                    "decode_two": weights.nbytes / least(lambda: two["w"]) / 1e6}


if __name__ == "__main__":
    main(row, [*CASES, "bfloat16:rans"], threads=1)
