"""What the documentation shows runs: every python block of a page, in order, and every script in examples/."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def blocks(text: str) -> str:
    """The python blocks of a page as one script, each line at its place, so that errors point into the page."""
    script, inside = [], False
    for line in text.splitlines():
        if not inside:
            inside = line.strip() == "```python"
            script.append("")
        elif line.startswith("```"):
            inside = False
            script.append("")
        else:
            script.append(line)
    assert not inside, "a python block is not closed"
    return "\n".join(script).rstrip()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


WITH_CODE = [page for page in PAGES if blocks(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", WITH_CODE, ids=map(name_of, WITH_CODE))
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = compile(blocks(page.read_text(encoding="utf-8")), str(page), "exec")
    exec(code, {"__name__": "__main__"})


@pytest.mark.parametrize("script", SCRIPTS, ids=map(name_of, SCRIPTS))
def test_an_example_runs(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip(), "an example shows something"


def test_blocks_keep_their_lines() -> None:
    page = "text\n```python\nx = 1\n```\n```console\n$ no\n```\n```python\ny = x\n```\n"
    assert blocks(page).splitlines() == ["", "", "x = 1", "", "", "", "", "", "y = x"]
    with pytest.raises(AssertionError, match="not closed"):
        blocks("```python\nx = 1\n")


def test_every_guide_shows_code() -> None:
    assert {page.stem for page in WITH_CODE} >= {"index", "concepts", "profile", "compress", "quantize", "python-api"}
