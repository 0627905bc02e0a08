"""Reading a `.pt2` archive as data: a zip of stored records, JSON and raw tensors; nothing in it is ever executed.

`torch.export.load` unpickles several kinds of record and evaluates shape expressions, so it must not see a file that
somebody else wrote. This reader takes the same format and knows no other record than bytes.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lilliput.core.errors import CorruptFileError

Json = dict[str, Any]

# The numbers are the format's own (torch/_export/serde/schema.py); complex and quantized types have no use here.
DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16, 28: torch.uint16, 29: torch.float8_e4m3fn,
    30: torch.float8_e5m2, 34: torch.uint32, 35: torch.uint64,
}
_STRIDED = 7
_MAX_JSON = 256 * 2**20
_MAX_MEMBERS = 200_000
_MAX_DIMS = 64
_MAX_EXPANDED = 2**20


class Archive:
    """The records of one `.pt2` file, checked when read: sizes against the file's own, contents against their CRC."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except FileNotFoundError:
            raise
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise self.refuse(f"it is no zip archive ({error})") from error
        self._members = self._vet()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def refuse(self, reason: str) -> CorruptFileError:
        """The error for this file: which, why, and what to do."""
        return CorruptFileError(f"{self.path} cannot be read as a .pt2 network: {reason}. "
                                "Copy it again from its source, or save the network again with lilliput.graph.saving.save")

    def _vet(self) -> dict[str, zipfile.ZipInfo]:
        infos, size = self._zip.infolist(), self.path.stat().st_size
        if len(infos) > _MAX_MEMBERS:
            raise self.refuse(f"it has {len(infos)} members")
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            _, slash, name = info.filename.partition("/")
            if not slash or name in members:
                raise self.refuse(f"member {info.filename!r} is out of place or there twice")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
                raise self.refuse(f"member {name!r} is compressed or encrypted, which a .pt2 never is")
            members[name] = info
        if len({info.filename.partition("/")[0] for info in infos}) > 1:
            raise self.refuse("it holds more than one archive")
        if sum(info.file_size for info in infos) > size:
            raise self.refuse("its members claim more bytes than the file has")
        return members

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def record(self, name: str) -> bytes:
        """The bytes of a member, CRC checked."""
        info = self._members.get(name)
        if info is None:
            raise self.refuse(f"record {name!r} is missing")
        try:
            data = self._zip.read(info)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, struct.error, RuntimeError) as error:
            raise self.refuse(f"record {name!r} is damaged ({error})") from error
        if len(data) != info.file_size:
            raise self.refuse(f"record {name!r} is truncated")
        return data

    def text(self, name: str) -> str:
        """A short record as text."""
        try:
            return self.record(name).decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise self.refuse(f"record {name!r} is no text") from error

    def json(self, name: str) -> Json:
        """A record parsed as a JSON object."""
        if name in self._members and self._members[name].file_size > _MAX_JSON:
            raise self.refuse(f"record {name!r} is larger than {_MAX_JSON} bytes")
        try:
            value = json.loads(self.record(name))
        except (ValueError, RecursionError) as error:
            raise self.refuse(f"record {name!r} is no JSON ({error})") from error
        if not isinstance(value, dict):
            raise self.refuse(f"record {name!r} is no JSON object")
        return value

    def tensors(self, folder: str, config: str) -> dict[str, Tensor]:
        """Every tensor that a payload configuration lists, by name; tied ones are one object, as they were when saved."""
        rows = self.json(f"{folder}/{config}").get("config")
        if not isinstance(rows, dict):
            raise self.refuse(f"{config} lists no tensors")
        buffers: dict[tuple[str, torch.dtype], Tensor] = {}
        ties: dict[str, Tensor] = {}
        out: dict[str, Tensor] = {}
        for name, row in rows.items():
            if not isinstance(row, dict) or row.get("use_pickle") is not False or not isinstance(row.get("tensor_meta"), dict):
                raise self.refuse(f"{name!r} is pickled, and unpickling can run any code")
            record = row.get("path_name")
            if not isinstance(record, str):
                raise self.refuse(f"{name!r} names no record")
            meta, parameter = row["tensor_meta"], row.get("is_param") is True
            tie = repr((record, meta, parameter))
            if tie not in ties:
                dtype, sizes, strides, offset = self.layout(meta, name)
                if (record, dtype) not in buffers:
                    buffers[record, dtype] = self._buffer(f"{folder}/{record}", dtype)
                tensor = self._view(buffers[record, dtype], sizes, strides, offset, name)
                trains = meta.get("requires_grad") is True and dtype.is_floating_point
                ties[tie] = torch.nn.Parameter(tensor, requires_grad=trains) if parameter else tensor
            out[name] = ties[tie]
        return out

    def layout(self, meta: Mapping[str, Any], name: str) -> tuple[torch.dtype, list[int], list[int], int]:
        """Type, sizes, strides and offset of a stored tensor, all of them plain numbers."""
        dtype = DTYPES.get(meta.get("dtype")) if type(meta.get("dtype")) is int else None  # type: ignore[arg-type]
        if dtype is None or meta.get("layout") != _STRIDED:
            raise self.refuse(f"{name!r} has an unknown type or layout")
        sizes, strides, offset = meta.get("sizes"), meta.get("strides"), meta.get("storage_offset")
        if not isinstance(sizes, list) or not isinstance(strides, list) or len(sizes) != len(strides) or len(sizes) > _MAX_DIMS:
            raise self.refuse(f"{name!r} has no consistent shape")
        return dtype, [self._count(x, name) for x in sizes], [self._count(x, name) for x in strides], self._count(offset, name)

    def _count(self, value: object, name: str) -> int:
        number = value.get("as_int") if isinstance(value, dict) else None
        if type(number) is not int or not 0 <= number < 2**48:
            raise self.refuse(f"{name!r} has a size that is no plain number")
        return number

    def _buffer(self, record: str, dtype: torch.dtype) -> Tensor:
        data = bytearray(self.record(record))
        if len(data) % dtype.itemsize:
            raise self.refuse(f"record {record!r} is no whole number of {dtype} elements")
        if not data:
            return torch.empty(0, dtype=dtype)
        if dtype is torch.bool and any(data.translate(None, b"\0\1")):
            raise self.refuse(f"record {record!r} holds bytes that are no booleans")
        return torch.frombuffer(data, dtype=dtype)

    def _view(self, buffer: Tensor, sizes: list[int], strides: list[int], offset: int, name: str) -> Tensor:
        count = math.prod(sizes)
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if count and last >= buffer.numel():
            raise self.refuse(f"{name!r} reaches beyond its record: {last + 1} elements needed, {buffer.numel()} there")
        if count > max(buffer.numel(), _MAX_EXPANDED):
            raise self.refuse(f"{name!r} would expand {buffer.numel()} stored elements to {count}")
        try:
            view = torch.as_strided(buffer, sizes, strides, offset) if count else torch.empty(sizes, dtype=buffer.dtype)
            return view.clone(memory_format=torch.preserve_format)
        except RuntimeError as error:
            raise self.refuse(f"{name!r} has an impossible shape ({error})") from error
