"""The rendered catalogue: complete, current and valid markdown."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lilliput import methods
from lilliput.core import UnknownNameError
from lilliput.methods import table

ROOT = Path(__file__).parents[2]


def test_the_page_in_the_docs_is_current() -> None:
    assert table.main(["--check", str(ROOT / "docs" / "methods.md")]) == 0


def test_every_row_and_paper_is_on_the_page() -> None:
    page = table.markdown()
    lines = page.splitlines()
    for row in methods.rows():
        assert sum(line.startswith(f"| `{row.id}` |") for line in lines) == 1, row.id
    for key in methods.bibliography():
        assert page.count(f'<span id="{key}"></span>') == 1, key


def test_tables_are_rectangular_and_links_lead_somewhere() -> None:
    page = table.markdown()
    blocks = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert len(blocks) > 30
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block[:200]
    anchors = set(re.findall(r'id="([^"]+)"', page)) | {name.strip() for name in re.findall(r"^## (.*)$", page, re.MULTILINE)}
    assert set(re.findall(r"\(#([^)]+)\)", page)) <= anchors


def test_progress_counts_per_family() -> None:
    wanda, fpgm, kd = (methods.get(id) for id in ("prune.wanda", "prune.fpgm", "distill.kd"))
    wanda, fpgm, kd = replace(wanda, status="works"), replace(fpgm, status="planned"), replace(kd, status="works")
    assert table.progress([wanda, fpgm, kd]) == {"prune": (1, 2), "distill": (1, 1)}
    assert "2 of 3 methods work" in table.markdown([wanda, fpgm, kd])


def test_check_tells_stale_from_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "methods.md"
    assert table.main(["--check", str(page)]) == 1
    assert table.main(["--write", str(page)]) == 0
    assert table.main(["--check", str(page)]) == 0
    page.write_text(page.read_text() + "edited by hand\n")
    assert table.main(["--check", str(page)]) == 1
    assert "--write" in capsys.readouterr().err


def test_terminal_shows_one_family_with_its_count(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    table.print_table(family="coding")
    shown = capsys.readouterr().out
    assert all(row.id in shown for row in methods.family("coding").rows)
    assert "prune.fpgm" not in shown
    assert re.search(r"coding +\d+ of 17 work", shown)
    with pytest.raises(UnknownNameError, match="coding"):
        table.print_table(family="codings")
