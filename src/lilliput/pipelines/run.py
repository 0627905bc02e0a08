"""The run folder: recipe, seeds, versions, data hash, figures, and every model on the way; whole after a kill at any point.

    NAME/manifest.json      recipe, versions, environment, data digest, status
    NAME/metrics.jsonl      one line per variant; a step counts as done when its line is here and its files verify
    NAME/report.json        `core.Report`
    NAME/kernels.json       what the last variant's layers became on this machine, and its times over threads
    NAME/models/            0-original.pt2, 0-original.onnx, 1-prune.fpgm.pt2, ...
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lilliput.core import CorruptFileError, LilliputError, PreconditionError, Report, UnknownNameError
from lilliput.core.atomic import write_text

if TYPE_CHECKING:
    from torch import nn

_FULL = {errno.ENOSPC, errno.EDQUOT}
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network of a run: what made it, its figures, its files (relative to the folder) and their SHA-256."""

    step: int
    method: str
    label: str
    metrics: Mapping[str, float]
    model: str
    onnx: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """A run folder that exists."""

    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """What was asked, of what, where and with which versions."""
        value = self._json("manifest.json")
        if not isinstance(value, dict) or not isinstance(value.get("recipe"), dict) or value.get("status") not in ("done", "running"):
            raise self._damaged("manifest.json", "it lacks recipe or status")
        return value

    @property
    def done(self) -> bool:
        """Whether every step ran and was measured."""
        return bool(self.manifest["status"] == "done")

    def variants(self) -> tuple[Variant, ...]:
        """The variants that were finished, the original first; raises `CorruptFileError` for lines that are none."""
        rows = []
        for number, line in enumerate(self._text("metrics.jsonl").splitlines(), start=1):
            try:
                rows.append(_variant(json.loads(line)))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise self._damaged("metrics.jsonl", f"line {number}: {error}") from error
        if [row.step for row in rows] != list(range(len(rows))):
            raise self._damaged("metrics.jsonl", "its steps are not 0, 1, 2, ...")
        return tuple(rows)

    def report(self) -> Report:
        """What the steps reported, one entry for each; the original has none."""
        try:
            return Report.from_json(self._text("report.json"))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged("report.json", str(error)) from error

    def variant(self, which: int | str = -1) -> Variant:
        """A variant by its position, its label or its method."""
        rows = self.variants()
        if not rows:
            raise PreconditionError(f"{self.folder} has no finished variant yet; resume it: lilliput compress {self.folder}")
        if isinstance(which, int):
            if not -len(rows) <= which < len(rows):
                raise PreconditionError(f"{self.folder} has variants 0 to {len(rows) - 1}, not {which}")
            return rows[which]
        found = [row for row in rows if which in (row.label, row.method, str(row.step))]
        if not found:
            raise UnknownNameError("variant", which, [row.label for row in rows])
        return found[-1]

    def load(self, which: int | str = -1) -> nn.Module:
        """The network of a variant, in evaluation mode, without its class definition; its hash is checked first."""
        row = self.variant(which)
        path = self.file(row, "model")
        if not self.verifies(row, "model"):
            raise CorruptFileError(f"{path} is missing or not the file that the run wrote; "
                                   f"replay the run: lilliput compress {self.folder / 'manifest.json'}")
        return read_network(path)

    def file(self, row: Variant, kind: str) -> Path:
        """The path of a variant's `model` or `onnx` file."""
        return self.folder / str(getattr(row, kind))

    def verifies(self, row: Variant, *kinds: str) -> bool:
        """Whether the files of a variant exist with the hashes that were recorded."""
        return all(row.sha256.get(kind) == sha256(self.file(row, kind)) for kind in kinds or ("model", "onnx"))

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest."""
        write_text(self.folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")

    def write(self, rows: tuple[Variant, ...], report: Report) -> None:
        """Record the finished variants; the metrics last, since they are what makes a step count as done."""
        write_text(self.folder / "report.json", report.to_json())
        write_text(self.folder / "metrics.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in rows))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing this run; the system frees the lock when the process ends, however it ends."""
        import fcntl

        with open(self.folder / ".lock", "a", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise PreconditionError(f"another process is writing {self.folder}; wait for it, or choose another --out") from error
            yield

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Turn a full disk into an error that says what is saved and how to go on."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            full = getattr(error, "errno", None) in _FULL or shutil.disk_usage(self.folder).free < 1 << 20
            if not full:
                raise
            saved = ", ".join(row.label for row in self.variants()) or "nothing yet"
            raise LilliputError(f"the disk of {self.folder} is full; saved: {saved}. "
                                f"Free some space, then resume: lilliput compress {self.folder}") from error

    def _text(self, name: str) -> str:
        path = self.folder / name
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise self._damaged(name, "it is too large")
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if name == "metrics.jsonl" and (self.folder / "manifest.json").exists():
                return ""
            raise PreconditionError(f"{self.folder} is no run folder: it has no {name}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged(name, str(error)) from error

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self._text(name))
        except (ValueError, RecursionError) as error:
            raise self._damaged(name, str(error)) from error

    def _damaged(self, name: str, reason: str) -> CorruptFileError:
        return CorruptFileError(f"{self.folder / name} is damaged ({reason}); restore it, or delete the folder and run the recipe again")


def sha256(path: Path) -> str | None:
    """The SHA-256 of a file, `None` where there is none."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def read_network(path: Path) -> nn.Module:
    """A `.pt2`, quantized or not, in evaluation mode."""
    import lilliput.quantize  # noqa: F401  the operator of simulated quantization must exist before a file may name it
    from lilliput.graph import saving

    return saving.load(path).eval()


def load(run: str | Path | Run, variant: int | str = -1) -> nn.Module:
    """The network of a run, by default its last; needs no class definition. Raises a `LilliputError` for damaged runs."""
    return (run if isinstance(run, Run) else Run(Path(run))).load(variant)


def _variant(value: Any) -> Variant:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    row = Variant(**value)
    for kind in (row.model, row.onnx):
        if not isinstance(kind, str) or Path(kind).is_absolute() or ".." in Path(kind).parts:
            raise ValueError(f"{kind!r} is not a path inside the folder")
    if not isinstance(row.step, int) or not isinstance(row.sha256, dict):
        raise ValueError("step or sha256 has the wrong type")
    if not isinstance(row.metrics, dict) or not all(isinstance(v, int | float) for v in row.metrics.values()):
        raise ValueError("metrics are not numbers")
    return row
