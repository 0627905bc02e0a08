"""Reading a run folder, which may be unfinished, damaged or hostile, into a `RunView`."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from lilliput.core import CorruptFileError, Entry, Report
from lilliput.report.model import COSTS, RunView, Variant

_LARGEST = 64 * 2**20
_PLAUSIBLE = 1e30
_WORDS = ("removed", "reason")  # what a layer's row says in words
_NOTHING = "run the recipe again (`lilliput compress recipe.yaml`)"
_RESUME = "resume the run to write it again, or restore the file from a copy"


def from_run(path: str | os.PathLike[str]) -> RunView:
    """Read the run folder `path`: manifest.json, metrics.jsonl, report.json, and kernels.json where there is one.

    A run that is still going, or was killed, gives what it has: files it did not reach yet may be missing and
    its last line of metrics may be cut. Anything else that cannot be read raises `CorruptFileError`.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CorruptFileError(f"{folder} is not a run folder; pass the folder that `lilliput compress` named")
    manifest = _mapping(_json(folder / "manifest.json", _text(folder / "manifest.json", _NOTHING)), folder / "manifest.json")
    running = manifest.get("status") != "done"
    rows, warnings = _metrics(folder / "metrics.jsonl", running)
    entries = _entries(folder / "report.json", running)
    steps: dict[int, Variant] = {}
    for row in rows:  # a resumed run may measure a step again: the last word counts
        variant = _variant(row, entries, folder / "metrics.jsonl", warnings)
        steps[variant.step] = variant
    data = _object(manifest.get("data"))
    return RunView(
        name=_string(manifest.get("name")) or folder.resolve().name, created=_string(manifest.get("created")),
        lilliput=_string(manifest.get("lilliput")), status="running" if running else "done",
        seed=_string(manifest.get("seed")), versions=_table(manifest.get("versions")),
        environment=_table(manifest.get("environment")), recipe_text=_string(manifest.get("recipe_text")),
        data_name=_string(data.get("name")), data_digest=_string(data.get("digest")),
        sizes={k: int(v) for k, v in numbers(data.get("sizes")).items()},
        variants=tuple(steps[key] for key in sorted(steps)), warnings=tuple(warnings), kernels=kernels(folder / "kernels.json"),
    )


def numbers(value: object) -> dict[str, float]:
    """The plausible numbers of a mapping (finite, at most 1e30 in size); everything else in it is left out."""
    found: dict[str, float] = {}
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            try:
                number = float(item)
            except OverflowError:
                continue
            if math.isfinite(number) and abs(number) <= _PLAUSIBLE:
                found[_unicode(str(key))] = number if abs(number) * _PLAUSIBLE >= 1 else 0.0
    return found


def _text(path: Path, remedy: str) -> str:
    if not path.is_file():
        raise CorruptFileError(f"{path} is missing; {remedy}")
    try:
        if path.stat().st_size > _LARGEST:
            raise CorruptFileError(f"{path} is larger than {_LARGEST >> 20} MiB, so it is not what a run writes; {_RESUME}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{path} cannot be read ({error}); {_RESUME}") from error


def _json(path: Path, text: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {line} of {path}" if line else str(path)
        raise CorruptFileError(f"{where} is not valid JSON ({error}); {_RESUME}") from error


def _mapping(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CorruptFileError(f"{path} holds {type(value).__name__} where an object belongs; {_RESUME}")
    return value


def _metrics(path: Path, running: bool) -> tuple[list[dict[str, Any]], list[str]]:
    if running and not path.exists():
        return [], []
    text = _text(path, _RESUME)
    lines = text.split("\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_mapping(_json(path, line, number), path))
        except CorruptFileError:
            if running and number == len(lines):  # no newline after it: a write was cut short
                return rows, ["The last line of metrics.jsonl is incomplete and was left out: the run was stopped while writing it."]
            raise
    if not rows and not running:
        raise CorruptFileError(f"{path} holds no variant although the run is done; {_RESUME}")
    return rows, []


def _entries(path: Path, running: bool) -> tuple[Entry, ...]:
    if running and not path.exists():
        return ()
    text = _text(path, _RESUME)
    _json(path, text)
    try:
        entries = Report.from_json(text).entries
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFileError(f"{path} is not a report ({error}); {_RESUME}") from error
    return tuple(_clean(entry, path) for entry in entries)


def _clean(entry: Entry, path: Path) -> Entry:
    if not all(isinstance(row, dict) for row in entry.layers):
        raise CorruptFileError(f"{path}: the layers of {entry.method!r} are not objects; {_RESUME}")
    return Entry(
        method=_string(entry.method), recipe=_string(entry.recipe), metrics=numbers(entry.metrics),
        layers=tuple({**numbers(row), **{key: _string(row[key]) for key in _WORDS if key in row}, "layer": _string(row.get("layer", "?"))}
                     for row in entry.layers),
        promised=numbers(entry.promised), measured=numbers(entry.measured),
        notes=tuple(_string(note) for note in entry.notes), seconds=numbers({"seconds": entry.seconds}).get("seconds", 0.0),
    )


def _variant(row: dict[str, Any], entries: tuple[Entry, ...], path: Path, warnings: list[str]) -> Variant:
    step = row.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise CorruptFileError(f"{path}: {step!r} is not the number of a step; {_RESUME}")
    given = row.get("metrics")
    metrics = {key: value for key, value in numbers(given).items() if _possible(key, value)}
    label = _string(row.get("label")) or _string(row.get("method")) or f"step {step}"
    lost = [_unicode(str(key)) for key in given if _unicode(str(key)) not in metrics] if isinstance(given, dict) else []
    if lost:
        warnings.append(f"Step {step}, {label}: {', '.join(lost)} cannot be a measurement and is shown as not measured.")
    return Variant(step=step, label=label, method=_string(row.get("method")), metrics=metrics,
                   model=_string(row.get("model")), onnx=_string(row.get("onnx")),
                   entry=entries[step - 1] if 0 < step <= len(entries) else None)


def _possible(key: str, value: float) -> bool:
    return 0 <= value <= 100 if key in ("accuracy", "val_accuracy") else value >= 0 or key not in COSTS


def kernels(path: Path) -> dict[str, Any]:
    """What the last variant's layers became: `label`, `kernels`, `removed` (how many) and `scaling`; nothing without the file."""
    if not path.exists():
        return {}
    found = _mapping(_json(path, _text(path, _RESUME)), path)
    rows = [{**{key: _string(row.get(key)) for key in ("layer", "op", "domain", "part_of", "sentence")}, **_amounts(row, ("seconds", "share")),
             "ops": [_string(op) for op in _list(row.get("ops"))]} for row in map(_object, _list(found.get("kernels")))]
    threads = [{"threads": int(_amounts(row, ("threads",))["threads"]), **_amounts(row, ("throughput",)),
                **{key: [_amounts(row.get(key), (part,))[part] for part in ("median", "low", "high")] for key in ("latency", "speedup", "efficiency")}}
               for row in map(_object, _list(found.get("scaling")))]
    return {"label": _string(found.get("label")), "kernels": rows, "removed": len(_list(found.get("removed"))), "scaling": threads}


def _amounts(value: object, keys: tuple[str, ...]) -> dict[str, float]:
    """Amounts of a mapping, 0 where they are none."""
    known = numbers(value)
    return {key: max(known.get(key, 0.0), 0.0) for key in keys}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _string(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _unicode(value)
    try:
        return _unicode(json.dumps(value, ensure_ascii=False, default=str))
    except (ValueError, RecursionError):
        return "(unreadable)"


def _unicode(text: str) -> str:
    """JSON can spell lone surrogates, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _table(value: object) -> dict[str, str]:
    return {_unicode(str(key)): _string(item) for key, item in value.items()} if isinstance(value, dict) else {}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
