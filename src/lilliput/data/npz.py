"""NumPy archives, without pickle and without trusting what their headers claim."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lilliput.core.errors import DataError
from lilliput.data.arrays import SPLITS
from lilliput.data.reading import read_exactly, untrusted

Array = npt.NDArray[Any]
_VALIDATION = {"valid": "val", "validation": "val"}
# Deflate cannot do better than 1032:1, so a larger claim is a lie.
_MAX_RATIO = 1032


def read_npz(path: str | Path) -> dict[str, Array]:
    """Read every array of numbers in the archive.

    Raises `CorruptFileError` for damage, pickled objects, or sizes that do not add up, before taking their memory.
    """
    path = Path(path)
    with untrusted(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            if member.file_size > _MAX_RATIO * member.compress_size + 1024:
                raise ValueError(f"{member.filename} claims {member.file_size} bytes out of {member.compress_size}")
        arrays = {}
        for member in members:
            if member.filename.endswith(".npy"):
                arrays[member.filename[:-4]] = _read_npy(archive, member)
        return arrays


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"{member.filename} has npy version {version}")
        if dtype.kind not in "buif":
            raise ValueError(f"{member.filename} holds {dtype}, not numbers")
        count = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or count != member.file_size - stream.tell():
            raise ValueError(f"{member.filename} announces shape {shape} of {dtype}, that is {count} bytes, "
                             f"but has {member.file_size - stream.tell()}")
        values = read_exactly(stream, count).view(dtype)
        return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def splits_of(arrays: dict[str, Array], path: Path) -> dict[str, tuple[Array, Array]]:
    """Pair the arrays up: `x` and `y`, or `x_train` and `y_train`, with `_val` and `_test` beside them.

    Raises `DataError` naming the arrays that there are.
    """
    renamed = {}
    for key, value in arrays.items():
        stem, _, split = key.partition("_")
        split = _VALIDATION.get(split, split)
        renamed[f"{stem}_{split}" if split else stem] = value
    if "x" in renamed and "y" in renamed:
        return {"train": (renamed["x"], renamed["y"])}
    pairs = {s: (renamed[f"x_{s}"], renamed[f"y_{s}"]) for s in SPLITS if f"x_{s}" in renamed and f"y_{s}" in renamed}
    lonely = [key for key in renamed if key.partition("_")[2] in SPLITS and key.partition("_")[2] not in pairs]
    if "train" not in pairs or lonely:
        raise DataError(f"{path} has the arrays {sorted(arrays)}; needed are x and y, or x_train and y_train "
                        "(and the same with _val and _test)")
    return pairs
