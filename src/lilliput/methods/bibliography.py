"""A small parser for our own refs.bib: `@kind{key, field = {value}, ...}`, braces balanced, and nothing else of BibTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

from lilliput.core.errors import CorruptFileError

_FILE = Path(__file__).parent / "refs.bib"
_OPENING = re.compile(r"\s*@(\w+)\s*\{\s*([^\s,{}]+)\s*,")
_FIELD = re.compile(r"\s*(\w+)\s*=\s*\{")
_COMMA = re.compile(r"\s*,")
_CLOSING = re.compile(r"\s*\}")
_BRACE = re.compile(r"[{}]")
_VENUES = ("booktitle", "journal", "school", "howpublished")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One entry of refs.bib; `fields` holds everything between its braces."""

    key: str
    kind: str
    fields: Mapping[str, str] = field(hash=False)

    @property
    def authors(self) -> tuple[str, ...]:
        """Authors as `Last, First`; `others` where the list is cut short."""
        return tuple(name.strip() for name in self.fields.get("author", "").split(" and ") if name.strip())

    @property
    def year(self) -> int:
        """Year of publication."""
        return int(self.fields["year"])

    @property
    def title(self) -> str:
        """The title, empty where it is not known for sure."""
        return self.fields.get("title", "")

    @property
    def venue(self) -> str:
        """Where it was published, empty where that is not known for sure."""
        return next((self.fields[name] for name in _VENUES if name in self.fields), "")

    @property
    def short(self) -> str:
        """Author and year, such as `Sun et al. 2024`."""
        last = [name.split(",")[0].strip("{}") for name in self.authors]
        names = f"{last[0]} et al." if len(last) > 2 or "others" in last else " and ".join(last)
        return f"{names} {self.year}"


@cache
def bibliography() -> Mapping[str, Reference]:
    """Every entry of refs.bib by key."""
    return MappingProxyType(parse(_FILE.read_text(encoding="utf-8"), str(_FILE)))


def parse(text: str, source: str = "refs.bib") -> dict[str, Reference]:
    """Parse entries one after the other; raises `CorruptFileError` with the line of whatever is not one.

    >>> parse("@misc{a2020b, author = {A, B}, year = {2020},}")["a2020b"].short
    'A 2020'
    """
    found: dict[str, Reference] = {}
    position = 0
    while text[position:].strip():
        opening = _OPENING.match(text, position)
        if opening is None:
            raise _error(text, position, source, "expected @kind{key,")
        kind, key = opening.groups()
        fields, end = _fields(text, opening.end(), source)
        if key in found:
            raise _error(text, position, source, f"the key {key} is there already")
        if not fields.get("author") or not fields.get("year", "").isdecimal():
            raise _error(text, position, source, f"{key} needs author and year")
        found[key] = Reference(key=key, kind=kind.lower(), fields=MappingProxyType(fields))
        position = end
    return found


def _fields(text: str, position: int, source: str) -> tuple[dict[str, str], int]:
    """Fields from `position` to the brace that closes the entry, and where that ends."""
    fields: dict[str, str] = {}
    while True:
        closing = _CLOSING.match(text, position)
        if closing is not None:
            return fields, closing.end()
        opening = _FIELD.match(text, position)
        if opening is None or opening.group(1).lower() in fields:
            raise _error(text, position, source, "expected another field = {value}, or }")
        end = _balanced(text, opening.end(), source)
        fields[opening.group(1).lower()] = " ".join(text[opening.end() : end].split())
        separator = _COMMA.match(text, end + 1)
        position = separator.end() if separator else end + 1
        if separator is None and _CLOSING.match(text, position) is None:
            raise _error(text, position, source, "expected , or }")


def _balanced(text: str, start: int, source: str) -> int:
    """Position of the brace that closes the one before `start`."""
    depth = 1
    for match in _BRACE.finditer(text, start):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            return match.start()
    raise _error(text, start, source, "a brace is never closed")


def _error(text: str, position: int, source: str, message: str) -> CorruptFileError:
    return CorruptFileError(f"{source}:{text.count(chr(10), 0, position) + 1}: {message}")
