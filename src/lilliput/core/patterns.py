"""Patterns that name layers, as in `exclude`."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from lilliput.core.errors import RecipeError, UnknownNameError


def matching(patterns: Iterable[str], names: Iterable[str], kind: str = "layer in exclude") -> set[str]:
    """The names that match one of the patterns at least (`*` stands for anything, `?` for one letter).

    >>> sorted(matching(("stem", "layer1.*"), ("stem", "layer1.0", "head")))
    ['layer1.0', 'stem']

    Raises `UnknownNameError` for a pattern that matches nothing, `RecipeError` for one string in the place of several patterns.
    """
    check_patterns(patterns)
    known, found = set(names), set()
    for pattern in patterns:
        hit = {name for name in known if fnmatchcase(name, pattern)}
        if not hit:
            raise UnknownNameError(kind, pattern, known)
        found |= hit
    return found


def check_patterns(patterns: object) -> None:
    """Raise `RecipeError` for one string in the place of several patterns, whose letters would be taken for patterns."""
    if isinstance(patterns, str):
        raise RecipeError(f"exclude takes a tuple of patterns: ({patterns!r},)")
