"""The binary version of CIFAR-10: records of one label byte and 3072 pixel bytes. No pickle [krizhevsky2009cifar]."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

from lilliput.data.reading import Bytes, read_exactly, untrusted

TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = "test_batch.bin"
_PIXELS = 3 * 32 * 32
_Pair = tuple[Bytes, Bytes]


def read_cifar10(path: str | Path) -> tuple[_Pair, _Pair]:
    """Read `(train, test)`, each `(images (N, 3, 32, 32), labels (N,))`, from the archive or the folder unpacked from it.

    Nothing is extracted. Raises `CorruptFileError` for a damaged archive and `DataError` when there is none.
    """
    path = Path(path)
    with untrusted(path):
        parts = _from_folder(path) if path.is_dir() else _from_archive(path)
        missing = [name for name in (*TRAIN, TEST) if name not in parts]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        return records(np.concatenate([parts[name] for name in TRAIN])), records(parts[TEST])


def records(data: Bytes) -> _Pair:
    """Split records into images `(N, 3, 32, 32)` and labels `(N,)`; raises `ValueError` where they are none."""
    if len(data) == 0 or len(data) % (1 + _PIXELS):
        raise ValueError(f"{len(data)} bytes are no whole number of {1 + _PIXELS}-byte records")
    table = data.reshape(-1, 1 + _PIXELS)
    if table[:, 0].max() > 9:
        raise ValueError(f"label {int(table[:, 0].max())} is not one of 10 classes")
    return np.ascontiguousarray(table[:, 1:]).reshape(-1, 3, 32, 32), table[:, 0].copy()


def _from_folder(path: Path) -> dict[str, Bytes]:
    parts = {}
    for name in (*TRAIN, TEST):
        with open(path / name, "rb") as stream:
            parts[name] = read_exactly(stream, (path / name).stat().st_size)
    return parts


def _from_archive(path: Path) -> dict[str, Bytes]:
    parts: dict[str, Bytes] = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            stream = archive.extractfile(member) if member.isreg() and name in (*TRAIN, TEST) else None
            if stream is not None:
                parts[name] = read_exactly(stream, member.size)
    return parts
