"""The catalogue as a table: for the terminal, and as the page docs/methods.md (`python -m lilliput.methods.table`)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from lilliput.core.atomic import write_text
from lilliput.methods.bibliography import Reference, bibliography
from lilliput.methods.catalogue import Row, rows
from lilliput.methods.catalogue import family as family_of

COMMAND = "python -m lilliput.methods.table --write docs/methods.md"


def progress(chosen: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """How many rows of each family work, and how many there are."""
    counts: dict[str, tuple[int, int]] = {}
    for row in chosen:
        works, total = counts.get(row.family, (0, 0))
        counts[row.family] = works + row.works, total + 1
    return counts


def print_table(chosen: Sequence[Row] | None = None, family: str | None = None) -> None:
    """Print rows to the terminal, with how far each family is; raises `UnknownNameError` for an unknown family."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    members = rows() if family is None else family_of(family).rows
    chosen = members if chosen is None else [row for row in chosen if family in (None, row.family)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("paper", max_width=24)
    table.add_column("does")
    for row in chosen:
        table.add_row(Text(row.id), Text(row.status, style="green" if row.works else "dim"), Text(_papers(row.cite)), Text(row.does))
    console = Console()
    console.print(table)
    console.print()
    for name, (works, total) in progress(chosen).items():
        console.print(Text(f"{name:<14} {works:>3} of {total} work"))


def markdown(chosen: Sequence[Row] | None = None) -> str:
    """The page of all methods: counts, a table per family and group, and the papers."""
    chosen = rows() if chosen is None else tuple(chosen)
    counts = progress(chosen)
    works, total = (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 0)
    lines = ["# Methods", "", f"<!-- Generated from the catalogue: {COMMAND} -->", "",
             f"{works} of {total} methods work. The rest are planned: they are listed so that gaps stay visible.", "",
             "| family | works | planned |", "|---|---:|---:|"]
    lines += [f"| [{name}](#{name}) | {done} | {count - done} |" for name, (done, count) in counts.items()]
    for name, members in groupby(chosen, key=lambda row: row.family):
        lines += ["", f"## {name}", "", *_family(name, tuple(members))]
    lines += ["", "## Papers", ""]
    lines += [f"- <span id=\"{key}\"></span>{_reference(entry)}" for key, entry in bibliography().items()]
    return "\n".join(lines) + "\n"


def _family(name: str, members: tuple[Row, ...]) -> list[str]:
    lines = [family_of(name).conformance.replace("\n", " ").replace("<", "&lt;"), ""]
    lines += ["| axis | decides |", "|---|---|"] + [f"| {axis} | {_cell(what)} |" for axis, what in family_of(name).axes.items()]
    for group, group_rows in groupby(members, key=lambda row: row.group):
        lines += ["", f"### {name}: {group.replace('_', ' ')}", "", "| method | status | does | choices | paper |", "|---|---|---|---|---|"]
        for row in group_rows:
            status = "**works**" if row.works else "planned"
            choices = "; ".join(f"{axis}: {choice}" for axis, choice in row.axes.items())
            lines.append(f"| `{row.id}` | {status} | {_cell(_does(row))} | {_cell(choices)} | {_links(row.cite)} |")
    return lines


def _does(row: Row) -> str:
    """What it does, of which variant, and the property that shows it."""
    extra = [text for text in (row.variant, row.grows and f"cost grows as {row.grows}", row.shows) if text]
    return row.does + (f" ({'; '.join(extra)})" if extra else "")


def _papers(keys: Iterable[str]) -> str:
    return ", ".join(bibliography()[key].short for key in keys)


def _links(keys: Iterable[str]) -> str:
    return ", ".join(f"[{_cell(bibliography()[key].short)}](#{key})" for key in keys)


def _reference(entry: Reference) -> str:
    names = ", ".join("et al." if name == "others" else name.split(",")[0].strip("{}") for name in entry.authors)
    parts = [names, entry.title, entry.venue, str(entry.year), entry.fields.get("note", "")]
    return f"`{entry.key}` " + ". ".join(_cell(part.rstrip(".") if index else part.removesuffix("."))
                                         for index, part in enumerate(parts) if part) + "."


def _cell(text: str) -> str:
    """Text that stays text in a markdown table."""
    for special in ("\\", "|", "*", "_", "[", "]"):
        text = text.replace(special, f"\\{special}")
    return text.replace("<", "&lt;")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check that it is current: exit code 1 where it is not."""
    parser = argparse.ArgumentParser(prog="python -m lilliput.methods.table", description="The catalogue as a page.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="FILE", help="write the page")
    action.add_argument("--check", type=Path, metavar="FILE", help="exit with 1 where the page is not what --write would write")
    chosen = parser.parse_args(arguments)
    if chosen.write is not None:
        write_text(chosen.write, markdown())
        return 0
    current = chosen.check.read_text(encoding="utf-8") if chosen.check.is_file() else ""
    if current != markdown():
        print(f"{chosen.check} is not current: {COMMAND}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
