"""The report's table in a terminal, with the same figures and the same warnings."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lilliput.report.findings import Level, findings
from lilliput.report.format import plain, quantity
from lilliput.report.model import RunView
from lilliput.report.table import COLUMNS, Cell, Tone, lines, summary

_STYLES = {Tone.GOOD: "green", Tone.BAD: "red", Tone.EVEN: "dim"}
_ASCII = str.maketrans({"−": "-", "–": "-", "×": "x", "µ": "u", "±": "+-", "≈": "~", "≤": "<", "≥": ">", "→": ">", "…": "~", "·": "-"})
_WIDE = 96


def table(view: RunView, *, width: int = 100) -> Table:
    """The variants with their change against the original; under 96 columns the change goes below the figure."""
    wide = width >= _WIDE
    rows = lines(view)
    out = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, header_style="bold")
    out.add_column("Variant", max_width=24, overflow="fold")
    columns = [_column([row.cells[index] for row in rows], wide) for index in range(len(COLUMNS))]
    for key, column in zip(COLUMNS, columns, strict=True):
        room = max((cell.cell_len for text in column for cell in text.split()), default=0)
        out.add_column(quantity(key).name.rjust(room), no_wrap=True, justify="left" if wide else "right")
    for index, row in enumerate(rows):
        out.add_row(Text(f"{row.variant.step} {plain(row.variant.label, 40)}"), *(column[index] for column in columns))
    return out


def show(view: RunView, console: Console | None = None) -> None:
    """Print the table, the run in one sentence, and every warning."""
    console = console or Console()
    if (console.encoding or "utf-8").lower().replace("-", "") not in ("utf8", "utf16", "utf32"):
        capture = Console(width=console.width, no_color=True, color_system=None, record=False)
        with capture.capture() as captured:
            _print(view, capture)
        console.print(Text(captured.get().translate(_ASCII).encode("ascii", "replace").decode()), soft_wrap=True)
        return
    _print(view, console)


def _print(view: RunView, console: Console) -> None:
    console.print(table(view, width=console.width))
    console.print(Text(summary(view), style="bold"))
    for finding in findings(view):
        if finding.level is Level.WARNING:
            console.print(Text.assemble(("! ", "yellow"), plain(finding.text, 400)))


def _column(cells: list[Cell], wide: bool) -> list[Text]:
    """One column's cells: on wide terminals figures stand under figures and changes under changes."""
    value = max((len(cell.value) for cell in cells), default=0)
    change = max((len(cell.change) for cell in cells), default=0)
    if not wide:
        return [Text.assemble(cell.value, "\n" if cell.change else "", (cell.change, _STYLES[cell.tone])) for cell in cells]
    indent = max(0, len(quantity(cells[0].key).name) - value - bool(change) - change) if cells else 0
    return [Text.assemble(" " * indent, cell.value.rjust(value), " " * bool(change), (cell.change.rjust(change), _STYLES[cell.tone]))
            for cell in cells]
