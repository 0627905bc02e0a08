"""Rows as data: one TOML file per family, read when first asked for; what a row names is imported only when it is built."""

from __future__ import annotations

import difflib
import importlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lilliput.core.errors import CorruptFileError, PreconditionError, UnknownNameError

FAMILIES = ("architectures", "coding", "deploy", "distill", "hardware", "nonlinear", "prune", "quantize", "search", "secure", "system")
STATUSES = ("works", "planned")
# What the surveys print about a row: parameters (millions), MACs and FLOPs (billions), ImageNet top-1 (percent).
FIGURES = ("params_m", "macs_g", "flops_g", "top1")
_REQUIRED = frozenset({"group", "does", "cite", "axes", "status"})
_OPTIONAL = frozenset({"build", "check", "shows", "variant", "grows", *FIGURES})
_FOLDER = Path(__file__).parent / "catalogue"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method: what it does, where it comes from, its choice on each axis of its family, and whether it works.

    `build` (`module:function` of the recipe) and `check` (the test file) are empty while the row is planned.
    `shows` is the property that shows it works, where the family's conformance is not enough; `figures` are
    the surveys' own, of the `variant` where one is named; `grows` is the cost's growth with sequence length.
    """

    family: str
    key: str
    group: str
    does: str
    cite: tuple[str, ...]
    axes: Mapping[str, str] = field(hash=False)
    status: str
    build: str = ""
    check: str = ""
    shows: str = ""
    variant: str = ""
    grows: str = ""
    figures: Mapping[str, float] = field(hash=False)

    @property
    def id(self) -> str:
        """`family.key`, such as `prune.fpgm`."""
        return f"{self.family}.{self.key}"

    @property
    def works(self) -> bool:
        """Whether the method runs and is tested."""
        return self.status == "works"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family: its axes, each with what it decides, the conformance that holds for its rows, and the rows."""

    name: str
    axes: Mapping[str, str] = field(hash=False)
    conformance: str
    rows: tuple[Row, ...]


@cache
def family(name: str) -> Family:
    """One family; only its file is read. Raises `UnknownNameError`, and `CorruptFileError` where the file is not well formed."""
    if name not in FAMILIES:
        raise UnknownNameError("family", name, FAMILIES)
    return read_family(_FOLDER / f"{name}.toml")


@cache
def rows() -> tuple[Row, ...]:
    """Every row, family by family, in the order of the files."""
    return tuple(row for name in FAMILIES for row in family(name).rows)


def get(id: str) -> Row:
    """The row of an id.

    >>> get("prune.wanda").cite
    ('sun2024wanda',)

    Raises `UnknownNameError` with the nearest ids.
    """
    name, _, key = id.partition(".")
    found = [row for row in family(name).rows if row.key == key] if name in FAMILIES else []
    if not found:
        raise UnknownNameError("method", id, [row.id for row in rows()])
    return found[0]


def build(id: str) -> Callable[..., Any]:
    """The recipe function of a row that works; its module is imported now.

    Raises `UnknownNameError`, and `PreconditionError` for a planned row, naming rows near it that work.
    """
    row = get(id)
    if not row.works:
        raise PreconditionError(f"{id} is planned and does not run yet; {_instead(row)}")
    module, _, name = row.build.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not callable(found):
        raise PreconditionError(f"{row.build}, which {id} names, is no recipe function; mend the row in catalogue/{row.family}.toml")
    return found  # type: ignore[no-any-return]


def listing(name: str | None = None) -> list[dict[str, Any]]:
    """The rows, or those of the family `name`, as `as_json` gives them; raises `UnknownNameError` for other families."""
    return as_json(rows() if name is None else family(name).rows)


def as_json(chosen: tuple[Row, ...] | None = None) -> list[dict[str, Any]]:
    """Rows as plain data: `id`, `family`, `status`, `cite` (keys of refs.bib, comma between) and `axes`."""
    return [{"id": row.id, "family": row.family, "status": row.status, "cite": ",".join(row.cite), "axes": dict(row.axes)}
            for row in (rows() if chosen is None else chosen)]


def read_family(path: Path) -> Family:
    """Read one family's file; raises `CorruptFileError` naming the row and what it lacks."""
    name = path.stem
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        found = Family(name=name, axes=MappingProxyType(dict(content["axes"])), conformance=str(content["conformance"]),
                       rows=tuple(_row(name, key, value) for key, value in content[name].items()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"{path}: {error}") from error
    unknown = {axis for row in found.rows for axis in row.axes} - set(found.axes)
    if unknown:
        raise CorruptFileError(f"{path}: rows choose on {', '.join(sorted(unknown))}, which [axes] does not declare")
    return found


def _row(name: str, key: str, value: Mapping[str, Any]) -> Row:
    lacks, extra = sorted(_REQUIRED - set(value)), sorted(set(value) - _REQUIRED - _OPTIONAL)
    if lacks or extra:
        raise ValueError(f"{name}.{key}: " + "; ".join([*map("lacks {}".format, lacks), *map("unknown field {}".format, extra)]))
    status, cite = value["status"], value["cite"]
    if status not in STATUSES:
        raise ValueError(f"{name}.{key}: status is {' or '.join(STATUSES)}, not {status!r}")
    if status == "works" and not (":" in value.get("build", "") and value.get("check")):
        raise ValueError(f"{name}.{key}: a row that works needs build = \"module:function\" and check = \"tests/...\"")
    text = {name: str(value[name]) for name in ("build", "check", "shows", "variant", "grows") if name in value}
    return Row(family=name, key=key, group=str(value["group"]), does=str(value["does"]), status=status,
               cite=tuple([cite] if isinstance(cite, str) and cite else cite), axes=MappingProxyType(dict(value["axes"])),
               figures=MappingProxyType({name: float(value[name]) for name in FIGURES if name in value}), **text)


def _instead(row: Row) -> str:
    """Rows that work and are near: first those of the same group, in each half those of like name first."""
    working = {other.key: other for other in family(row.family).rows if other.works}
    if not working:
        return f"nothing of {row.family} works yet: lilliput methods --status works"
    alike = difflib.get_close_matches(row.key, working, n=len(working), cutoff=0.4)
    by_name = [*alike, *(key for key in working if key not in alike)]
    nearest = sorted(by_name, key=lambda key: working[key].group != row.group)[:3]
    return "of its kind work " + ", ".join(f"{row.family}.{key}" for key in nearest)
