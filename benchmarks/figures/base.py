"""What a figure is: its bar, and how it is read from the rows of a result file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Rows = dict[str, dict[str, Any]]
Cell = tuple[str, str, bool]
"""What was measured, what the peer reached, whether the bar is met."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table; `cell` reads it from the rows of `benchmarks/results/FILE.json`, or of the folder that holds a file to a row."""

    name: str
    bar: str
    file: str
    cell: Callable[[Rows], Cell]
