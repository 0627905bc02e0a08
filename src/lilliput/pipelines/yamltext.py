"""YAML from strangers: bounded in size, depth and count, no aliases, no tags, every value's line remembered."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from lilliput.core.errors import RecipeError

Place = tuple[str | int, ...]

MAX_BYTES, MAX_NODES, MAX_DEPTH = 64 * 1024, 5000, 16
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
# YAML 1.1 reads 1e-3 as text; nobody who writes a learning rate means text.
EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


@dataclass(frozen=True)
class Source:
    """Where a document came from: its name, and the line (from 1) of every key and item in it."""

    name: str = "recipe"
    lines: Mapping[Place, int] = field(default_factory=dict)

    def error(self, place: Place, message: str) -> RecipeError:
        """An error that names file, line and field; the nearest enclosing line where the field has none."""
        known = next((place[:n] for n in range(len(place), -1, -1) if place[:n] in self.lines), None)
        line = f":{self.lines[known]}" if known is not None else ""
        dotted = ".".join(str(part) for part in place)
        return RecipeError(f"{self.name}{line}: {dotted}: {message}" if dotted else f"{self.name}{line}: {message}")


def read_yaml(text: str, name: str = "recipe") -> tuple[Any, Source]:
    """Parse one YAML document into plain values and the lines they stand on.

    Raises `RecipeError` with the line for syntax errors, duplicate keys, aliases, tags and oversized documents.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise RecipeError(f"{name}: larger than {MAX_BYTES // 1024} KiB; this is no recipe")
    try:
        _check_events(text, name)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RecipeError(f"{name}{f':{mark.line + 1}' if mark else ''}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    lines: dict[Place, int] = {(): 1}
    return (None if node is None else _value(node, (), lines, name)), Source(name, lines)


def _check_events(text: str, name: str) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        where = f"{name}:{event.start_mark.line + 1}" if event.start_mark else name
        if isinstance(event, yaml.AliasEvent):
            raise RecipeError(f"{where}: aliases (*{event.anchor}) are not allowed; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise RecipeError(f"{where}: nested deeper than {MAX_DEPTH} levels")
        if count > MAX_NODES:
            raise RecipeError(f"{where}: more than {MAX_NODES} values")


def _value(node: yaml.Node, place: Place, lines: dict[Place, int], name: str) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*place, i), lines, name) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
                raise RecipeError(f"{name}:{key_node.start_mark.line + 1}: a key must be a plain word")
            lines[(*place, key)] = key_node.start_mark.line + 1
            if key in out:
                raise Source(name, lines).error((*place, key), "given twice; remove one")
            out[key] = _value(value_node, (*place, key), lines, name)
        return out
    return _scalar(node, Source(name, {place: node.start_mark.line + 1}), place)


def _scalar(node: yaml.Node, source: Source, place: Place) -> Any:
    if node.tag not in _SCALARS:
        raise source.error(place, f"values of kind {node.tag.rpartition(':')[2]!r} are not allowed; quote it if it is text")
    if node.tag.endswith(":str"):
        plain = isinstance(node, yaml.ScalarNode) and node.style is None and EXPONENT.fullmatch(node.value)
        return _finite(float(node.value), source, place) if plain else node.value
    try:
        value = yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.YAMLError, ValueError, KeyError, OverflowError):
        raise source.error(place, f"cannot read {node.value[:40]!r}; quote it if it is text") from None
    return _finite(value, source, place)


def _finite(value: Any, source: Source, place: Place) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise source.error(place, "must be a finite number")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise source.error(place, "too large a number")
    return value
