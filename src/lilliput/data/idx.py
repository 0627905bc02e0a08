"""The idx format of MNIST and its kin: big-endian header, then bytes [lecun1998gradient]."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

from lilliput.data.reading import Bytes, read_exactly, untrusted


def read_idx(path: str | Path, ndim: int) -> Bytes:
    """Read an idx file of `ndim`-dimensional unsigned bytes, gzipped if its name ends in `.gz`.

    Raises `CorruptFileError` for anything else, and `DataError` when there is no such file.
    """
    path = Path(path)
    with untrusted(path), open(path, "rb") as file, gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file as stream:
        magic = read_exactly(stream, 4).tolist()
        if magic != [0, 0, 8, ndim]:
            raise ValueError(f"starts with {magic}; an idx file of {ndim}-dimensional bytes starts with {[0, 0, 8, ndim]}")
        shape = tuple(int(n) for n in read_exactly(stream, 4 * ndim).view(">u4"))
        values = read_exactly(stream, math.prod(shape)).reshape(shape)
        if stream.read(1):
            raise ValueError(f"goes on after the {values.size} bytes its header announces")
        return values
