"""A recipe over a tiny network and handwritten digits: a whole run in seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tinyrun import NETS, TEXT

from lilliput.pipelines.recipe import Recipe


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the network's definition in it."""
    (tmp_path / "tinynets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny() -> Callable[..., Recipe]:
    """The recipe, with pieces of its text replaced."""

    def build(*replacements: tuple[str, str]) -> Recipe:
        text = TEXT
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        return Recipe.parse(text, "tiny.yaml")

    return build
