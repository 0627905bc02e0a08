"""The demonstration: handwritten digits, a small residual network, half the MACs, int8; a recipe like any other."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path

from lilliput.pipelines.engine import compress, free_folder
from lilliput.pipelines.recipe import Recipe
from lilliput.pipelines.run import Run


def recipe() -> Recipe:
    """The demonstration's recipe, `demo.yaml` beside this file."""
    return Recipe.parse(resources.files("lilliput.pipelines").joinpath("demo.yaml").read_text(encoding="utf-8"), "demo.yaml")


def demo(*, out: str | Path | None = None, progress: Callable[[str], None] | None = None) -> Run:
    """Run the demonstration into `out`, by default the first free of `runs/demo`, `runs/demo-2`..."""
    return compress(recipe(), out=free_folder(Path("runs") / "demo") if out is None else out, progress=progress)
