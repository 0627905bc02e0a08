"""Checkpoints: plain tensors and containers, written whole, read without executing anything."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.core.atomic import atomic_path
from lilliput.core.errors import CorruptFileError, PreconditionError

_FORMAT = "lilliput.checkpoint.1"
_FIELDS: dict[str, type] = {"format": str, "recipe": dict, "model": dict, "optimizer": dict, "hooks": dict, "rng": dict,
                            "epoch": int, "batch": int, "step": int, "running": dict, "history": list}


def digest(model: nn.Module) -> str:
    """SHA-256, in hex, over names, types, shapes and bytes of parameters and buffers."""
    out = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            out.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            out.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return out.hexdigest()


def save(path: Path, payload: Mapping[str, Any]) -> None:
    """Write atomically. `PreconditionError` for values that could not be read back safely, naming the place."""
    _check_plain(dict(payload), "checkpoint")
    with atomic_path(path) as temporary:
        torch.save({"format": _FORMAT, **payload}, temporary)


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote; `CorruptFileError` for anything else. Executes nothing from the file."""
    remedy = "delete it to start from the beginning, or restore it from a copy"
    try:
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("compressed members, which no checkpoint has")
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"checksum of {damaged} is wrong")
        payload = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(payload, dict):
            raise ValueError(f"holds a {type(payload).__name__}, not a checkpoint")
        wrong = [name for name, kind in _FIELDS.items() if not isinstance(payload.get(name), kind)]
        if wrong or payload["format"] != _FORMAT:
            raise ValueError(f"not a checkpoint of this version (fields {', '.join(wrong) or 'format'})")
        _check_position(payload)
    except OSError:
        raise
    except Exception as error:
        raise CorruptFileError(f"checkpoint {path} cannot be read: {str(error)[:200]}; {remedy}") from error
    return payload


def _check_position(payload: Mapping[str, Any]) -> None:
    if min(payload["epoch"], payload["batch"], payload["step"]) < 0 or len(payload["history"]) != payload["epoch"]:
        raise ValueError("its position in training makes no sense")
    rows = [payload["running"], *payload["history"]]
    if not all(isinstance(row, dict) and all(isinstance(value, float) for value in row.values()) for row in rows):
        raise ValueError("its history holds something else than numbers")
    if set(payload["running"]) != {"loss", "samples", "seconds"}:
        raise ValueError("its running sums are not complete")


def check_recipe(path: Path, saved: Mapping[str, str], present: Mapping[str, str]) -> None:
    """`PreconditionError` naming what differs between the run that saved and the present one."""
    different = [name for name in present if saved.get(name) != present[name]]
    if different:
        name = different[0]
        raise PreconditionError(
            f"checkpoint {path} belongs to another run: {', '.join(different)} differ ({name} was {str(saved.get(name))[:300]}, is "
            f"{present[name][:300]}); delete the file to start anew, choose another path, or restore the settings")


def _check_plain(value: object, place: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str | int):
                raise PreconditionError(f"{place} has a key of type {type(key).__name__}: use strings or whole numbers")
            _check_plain(item, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_plain(item, f"{place}[{i}]")
    elif value is not None and type(value) not in (bool, int, float, str) and not isinstance(value, Tensor):
        raise PreconditionError(f"{place} is a {type(value).__name__}, which cannot be saved safely: "
                                "use tensors, numbers, strings, lists, tuples and dicts")
