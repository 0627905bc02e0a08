"""Streams of symbols in chunks that are coded and decoded by themselves, on several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lilliput.coding.coder import Bytes, Coder, checksum
from lilliput.coding.coders import coder_numbered, least
from lilliput.coding.index import Places, Stream
from lilliput.core import CorruptFileError

T = TypeVar("T")
U = TypeVar("U")
# About so many bytes of a chunk are what its lanes' states are small against, and still fit the second cache.
_CHUNK_BYTES = 2**19
_LEAST, _MOST = 16, 23


@dataclass(frozen=True)
class Coded:
    """A stream that stands nowhere yet."""

    coder: int
    count: int
    log_chunk: int
    table: bytes
    chunks: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes of chunks and table."""
        return len(self.table) + sum(map(len, self.chunks))

    def placed(self, places: Places) -> Stream:
        """The stream as the index tells of it."""
        chunks = tuple(places.chunk(len(chunk), checksum(chunk)) for chunk in self.chunks)
        return Stream(self.coder, self.count, self.log_chunk, self.table, chunks)


def on_threads(function: Callable[[T], U], items: Sequence[T], threads: int) -> Iterable[U]:
    """Results in order; the first error is raised."""
    if threads <= 1 or len(items) <= 1:
        return map(function, items)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def encode(symbols: Bytes, candidates: Sequence[Coder], threads: int = 1) -> Coded:
    """Code with the candidate that takes least."""
    coder, table, bits = least(symbols, candidates)
    share = bits / 8 / max(symbols.size, 1)
    log_chunk = min(max(int(np.log2(_CHUNK_BYTES / max(share, 1e-9))), _LEAST), _MOST)
    parts = [symbols[at:at + (1 << log_chunk)] for at in range(0, symbols.size, 1 << log_chunk)]
    chunks = tuple(on_threads(lambda part: coder.encode(part, table), parts, threads))
    return Coded(coder.number, symbols.size, log_chunk, table, chunks)


def decode(stream: Stream, read: Callable[[int, int], Bytes], threads: int = 1) -> Bytes:
    """The symbols; `read(offset, size)` gives bytes of the file. Raises `CorruptFileError`."""
    found = coder_numbered(stream.coder)
    if found is None:
        raise CorruptFileError(f"coder {stream.coder} is unknown: the file was made by a newer program")
    out = np.empty(stream.count, np.uint8)

    def one(number: int) -> None:
        chunk = stream.chunks[number]
        coded = read(chunk.offset, chunk.size)
        if checksum(coded) != chunk.checksum:
            raise CorruptFileError(f"chunk {number} of {len(stream.chunks)} has a wrong checksum: get the file again")
        found[1].decode(coded, stream.table, out[number << stream.log_chunk:(number + 1) << stream.log_chunk])

    for _ in on_threads(one, range(len(stream.chunks)), threads):
        pass
    return out
