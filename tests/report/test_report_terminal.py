"""The terminal's table shows the page's figures and fits."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from lilliput.report import from_run, table, terminal


def printed(view, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    terminal.show(view, Console(file=stream, width=width, color_system=None))
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 95, 96, 100, 160])
def test_every_figure_is_there_and_no_line_is_too_long(make_run, width):
    view = from_run(make_run())
    text = printed(view, width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for line in table.lines(view):
        for cell in line.cells[:5]:
            assert cell.value in text
            assert cell.change in text


def test_wide_tables_put_figures_under_figures(make_run):
    rows = [line for line in printed(from_run(make_run()), 100).splitlines() if line.startswith((" 0", " 1", " 3", "0", "1", "3"))]
    ends = {line.index("%") for line in rows}
    assert len(rows) == 3
    assert len(ends) == 1


def test_warnings_are_printed(make_run):
    text = " ".join(printed(from_run(make_run()), 80).split())
    assert "MACs fell by 50.2% but latency did not" in text
    assert "promised latency p50 ≤ 150 µs but measured 158 µs" in text


def test_hostile_names_reach_no_terminal_control(make_run, variants):
    for row in variants:
        row["label"] = "\x1b]0;owned\x07[red]markup[/red]\n\u202e"
    text = printed(from_run(make_run(variants=variants)), 80)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]" in text.replace("\n", "")


def test_terminals_without_unicode_get_ascii(make_run):
    text = printed(from_run(make_run()), 100, "ascii")
    assert "-50.2%" in text
    assert "412 us" in text


def test_an_empty_run_prints(make_run):
    assert "No step has been measured yet." in printed(from_run(make_run(variants=[], status="running")), 80)
