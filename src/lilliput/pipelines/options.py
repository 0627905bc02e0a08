"""Options as plain values become the typed arguments of a recipe function: dataclasses from mappings, by type hints."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from lilliput.core.errors import LilliputError
from lilliput.pipelines.yamltext import Place, Source

# Parameters that the pipeline fills and no recipe can.
_OURS = {"measure", "checkpoint"}


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean a or b?`, or the list of what is known."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds typed values out of plain ones; `seed` fills every field of that name which the recipe leaves open."""

    source: Source
    seed: int = 0

    def arguments(self, function: Callable[..., Any], options: Mapping[str, Any], place: Place,
                  supplied: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments for `function`; `supplied` fills parameters of those names that the options leave open.

        Options that are no parameter but a field of one that takes a `Budget`, a `Fit` or another dataclass
        are gathered into it: `macs: 50%` reaches `budget=Budget(macs="50%")`.
        """
        hints = type_hints(function)
        parameters = {name: hints.get(name, Any) for name, p in inspect.signature(function).parameters.items()
                      if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        writable = {name: hint for name, hint in parameters.items() if name not in _OURS}
        arguments = {key: self.value(writable[key], value, (*place, key)) for key, value in options.items() if key in writable}
        for name, loose in self._gathered(writable, options, place).items():
            arguments[name] = self.value(parameters[name], loose, place)
        arguments |= {key: value for key, value in supplied.items() if key in parameters and key not in arguments}
        self._seed_defaults(function, parameters, arguments)
        return arguments

    def _gathered(self, parameters: Mapping[str, Any], options: Mapping[str, Any], place: Place) -> dict[str, dict[str, Any]]:
        inner = {name: field_names(kind) for name, hint in parameters.items() if (kind := only_dataclass(hint)) is not None}
        out: dict[str, dict[str, Any]] = {}
        for key, value in options.items():
            if key in parameters:
                continue
            homes = [name for name, names in inner.items() if key in names]
            if not homes:
                offered = {*parameters, *(n for names in inner.values() for n in names)} - _OURS
                raise self.source.error((*place, key), f"unknown option; {nearest(key, offered)}")
            if len(homes) > 1 or homes[0] in options:
                raise self.source.error((*place, key), f"write it inside {' or '.join(homes)}")
            out.setdefault(homes[0], {})[key] = value
        return out

    def _seed_defaults(self, function: Callable[..., Any], parameters: Mapping[str, Any], arguments: dict[str, Any]) -> None:
        for name, parameter in inspect.signature(function).parameters.items():
            if name in arguments or name not in parameters:
                continue
            if name == "seed" and parameters[name] in (int, int | None):
                arguments[name] = self.seed
            elif dataclasses.is_dataclass(parameter.default) and "seed" in field_names(type(parameter.default)):
                arguments[name] = dataclasses.replace(typing.cast(Any, parameter.default), seed=self.seed)

    def value(self, hint: Any, value: Any, place: Place) -> Any:
        """`value` as the type that `hint` names; raises `RecipeError` with line and field."""
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any or hint is object:
            return value
        if origin in (typing.Union, types.UnionType):
            return self._union(inner, value, place)
        if origin is typing.Literal:
            return self._one_of(inner, value, place)
        if origin is typing.Annotated:
            return self.value(inner[0], value, place)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return {key: self.value(inner[1], item, (*place, key)) for key, item in self._mapping(value, place).items()}
        if isinstance(origin, type) and issubclass(origin, Sequence | Set):
            return self._items(origin, inner, value, place)
        if hint is None or hint is type(None) or hint in (bool, int, float, str, Path):
            return self._scalar(hint, value, place)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping) and not tagged(value, [hint]):
            return self.dataclass(hint, value, place)
        return self._tagged(candidates(hint), value, place)

    def dataclass(self, kind: type, value: Mapping[str, Any], place: Place) -> Any:
        """A (frozen) dataclass from a mapping of its fields, its own checks included."""
        names, hints = field_names(kind), type_hints(kind)
        for key in value:
            if key not in names:
                raise self.source.error((*place, key), f"unknown field of {kind.__name__}; {nearest(key, names)}")
        arguments = {key: self.value(hints[key], item, (*place, key)) for key, item in value.items()}
        if "seed" in names and "seed" not in arguments:
            arguments["seed"] = self.seed
        return self.call(kind, arguments, place)

    def call(self, function: Callable[..., Any], arguments: Mapping[str, Any], place: Place) -> Any:
        """`function(**arguments)`, its complaints given line and field."""
        try:
            return function(**arguments)
        except (LilliputError, ValueError, TypeError, AssertionError) as error:
            message = str(error) or type(error).__name__
            raise self.source.error(place, message) from error

    def _union(self, members: tuple[Any, ...], value: Any, place: Place) -> Any:
        if value is None and type(None) in members:
            return None
        rest = [m for m in members if m is not type(None)]
        scalars = [m for m in rest if m in (bool, int, float, str)]
        exact = [m for m in scalars if type(value) is m] or ([float] if type(value) is int and float in scalars else [])
        if exact:
            return self.value(exact[0], value, place)
        others = [m for m in rest if m not in scalars]
        if len(rest) == 1 or len(others) == 1:
            return self.value(others[0] if others else rest[0], value, place)
        if others and isinstance(value, Mapping | str):
            return self._tagged([c for member in others for c in candidates(member)], value, place)
        wanted = " or ".join(dict.fromkeys(describe(m) for m in rest))
        raise self.source.error(place, f"expected {wanted}, got {value!r}")

    def _one_of(self, members: tuple[Any, ...], value: Any, place: Place) -> Any:
        if value not in members:
            raise self.source.error(place, f"{value!r} is none of {', '.join(repr(m) for m in members)}; "
                                           f"{nearest(str(value), map(str, members))}")
        return value

    def _mapping(self, value: Any, place: Place) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self.source.error(place, f"expected a mapping, got {value!r}")
        return value

    def _items(self, origin: type, inner: tuple[Any, ...], value: Any, place: Place) -> Any:
        if not isinstance(value, list | tuple):
            raise self.source.error(place, f"expected a list, got {value!r}")
        if origin is tuple and Ellipsis not in inner:
            if len(value) != len(inner):
                raise self.source.error(place, f"expected {len(inner)} values, got {len(value)}")
            kinds: Sequence[Any] = inner
        else:
            kinds = [inner[0] if inner else Any] * len(value)
        built = [self.value(kind, item, (*place, i)) for i, (kind, item) in enumerate(zip(kinds, value, strict=True))]
        return frozenset(built) if issubclass(origin, Set) else built if origin is list else tuple(built)

    def _scalar(self, hint: Any, value: Any, place: Place) -> Any:
        fits = {bool: (bool,), int: (int,), float: (float, int), str: (str,), Path: (str,)}.get(hint, (type(None),))
        if not isinstance(value, fits) or (isinstance(value, bool) and hint is not bool):
            raise self.source.error(place, f"expected {describe(hint)}, got {value!r}")
        return value if hint in (None, type(None)) else hint(value)

    def _tagged(self, kinds: list[Any], value: Any, place: Place) -> Any:
        """`name` or `{name: {field: value}}`, one of several classes or functions by its name."""
        named = {plain(kind.__name__): kind for kind in kinds}
        if not named:
            raise self.source.error(place, "cannot be written in a recipe; build this step in Python")
        tag, fields = (value, {}) if isinstance(value, str) else tagged(value, kinds) or (None, {})
        if tag is None and len(kinds) == 1 and isinstance(value, Mapping):
            return self.dataclass(kinds[0], value, place)
        if tag is None and len(kinds) == 1 and isinstance(kinds[0], type):
            fields = ", ".join(field_names(kinds[0]))
            raise self.source.error(place, f"expected a mapping with some of {fields}, got {value!r}")
        if tag is None or plain(str(tag)) not in named:
            offered = ", ".join(sorted(snake(kind.__name__) for kind in kinds))
            raise self.source.error(place, f"expected one of {offered} (a name, or name: {{its fields}}), got {value!r}")
        kind = named[plain(str(tag))]
        if not isinstance(kind, type):
            return kind
        inner = place if isinstance(value, str) else (*place, str(tag))
        return self.dataclass(kind, self._mapping({} if fields is None else fields, inner), inner)


def type_hints(owner: Any) -> dict[str, Any]:
    """Resolved type hints of a function or class; names that do not resolve count as `Any`."""
    try:
        return typing.get_type_hints(owner)
    except (NameError, TypeError):
        hints = inspect.get_annotations(owner)
        return {name: Any if isinstance(hint, str) else hint for name, hint in hints.items()}


def field_names(kind: Any) -> list[str]:
    """Names of the fields that a dataclass takes when it is built."""
    return [f.name for f in dataclasses.fields(kind) if f.init]


def only_dataclass(hint: Any) -> Any:
    """The one dataclass in a hint such as `Fit | None`, else `None`."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    found = [m for m in members if isinstance(m, type) and dataclasses.is_dataclass(m)]
    rest = [m for m in members if m not in found and m is not type(None)]
    return found[0] if len(found) == 1 and not rest else None


def candidates(hint: Any) -> list[Any]:
    """What a recipe may name where `hint` is asked: a dataclass itself, its subclasses, or for a protocol the dataclasses
    and functions of its package that fit it."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [c for member in typing.get_args(hint) if member is not type(None) for c in candidates(member)]
    if not isinstance(hint, type) or hint.__module__ in ("builtins", "torch.nn.modules.module"):
        return []
    if dataclasses.is_dataclass(hint):
        return [hint, *_below(hint)]
    below = _below(hint)
    module = sys.modules[hint.__module__]
    beside = [c for c in vars(module).values() if isinstance(c, type) and dataclasses.is_dataclass(c)
              and c.__module__ == hint.__module__ and c not in below]
    return below + beside if getattr(hint, "_is_protocol", False) else below


def _below(kind: type) -> list[Any]:
    subclasses: list[type] = kind.__subclasses__()
    return [c for sub in subclasses for c in candidates(sub)]


def tagged(value: Any, kinds: Iterable[Any]) -> tuple[str, Any] | None:
    """`(name, fields)` of `{name: fields}` where `name` is one of `kinds`, or of any one-key mapping to a mapping or nothing."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return None
    (tag, fields), = value.items()
    named = plain(str(tag)) in {plain(kind.__name__) for kind in kinds}
    return (tag, fields) if named else None


def plain(name: str) -> str:
    """A class name as one may write it: case and underscores aside."""
    return name.replace("_", "").replace("-", "").lower()


def snake(name: str) -> str:
    """`MinMax` as `min_max`, `SGD` as `sgd`."""
    return "".join(f"_{c.lower()}" if c.isupper() and i and name[i - 1].islower() else c.lower() for i, c in enumerate(name))


def describe(hint: Any) -> str:
    """A type in words."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return words.get(hint) or ("nothing" if hint in (None, type(None)) else f"a {getattr(hint, '__name__', hint)}")
