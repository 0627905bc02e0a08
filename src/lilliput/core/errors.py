"""Errors: each names what is wrong, where, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LilliputError(Exception):
    """Base of every error that Lilliput raises on purpose."""


class PreconditionError(LilliputError):
    """A step lacks something it needs (data, activations, a teacher); the message says what to pass."""


class BudgetError(LilliputError):
    """A budget cannot be met; the message says what could."""


class DataError(LilliputError):
    """Data that cannot be used: wrong channel count, NaN, empty split, labels out of range."""


class TraceError(LilliputError):
    """`torch.export` refused the model; the message carries its reason and the line of the model."""


class CorruptFileError(LilliputError):
    """A file is truncated, damaged or unsafe to read; the message says which and why."""


class RecipeError(LilliputError):
    """A recipe or configuration is invalid; the message names line and field."""


class UnknownNameError(LilliputError):
    """A name that does not exist; the nearest existing names are offered."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known[:20])}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")
        self.kind, self.name, self.near = kind, name, near
