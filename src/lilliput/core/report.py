"""What a step did, as data: metrics, per-layer rows, notes, and promises beside measurements."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

Row = dict[str, Any]
_FUNCTION = re.compile(r"<function ([\w.<>]+) at 0x[0-9a-fA-F]+>")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def describe(recipe: object) -> str:
    """`repr` as a record: functions by their name, and no memory addresses, which differ between processes."""
    return _ADDRESS.sub("", _FUNCTION.sub(r"\1", repr(recipe)))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The record of one step.

    `method` is the catalogue id (`prune.fpgm`), `recipe` the `repr` of the step, `metrics` the figures after
    it (`accuracy` in percent, `params`, `macs`, `size` in bytes, `latency` in seconds), `layers` one row per
    layer with at least the key `layer`, `promised` and `measured` the same keys where a budget was given.
    """

    method: str
    recipe: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    layers: tuple[Row, ...] = ()
    promised: dict[str, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """Entries in the order in which the steps ran; reports concatenate with `+`."""

    entries: tuple[Entry, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(self.entries + other.entries)

    def to_json(self) -> str:
        """Serialise losslessly; `from_json` reads it back."""
        return json.dumps([asdict(entry) for entry in self.entries], allow_nan=True)

    @staticmethod
    def from_json(text: str) -> Report:
        """Read what `to_json` wrote; raises `ValueError` or `TypeError` on anything else."""
        return Report(tuple(
            Entry(**{**row, "layers": tuple(row.get("layers", ())), "notes": tuple(row.get("notes", ()))})
            for row in json.loads(text)
        ))
