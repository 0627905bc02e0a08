"""Whole ways through: recipes, runs that resume and replay, budgets that become recipes. Imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lilliput.pipelines.budgeted import compress_to, from_budget
    from lilliput.pipelines.demonstration import demo
    from lilliput.pipelines.engine import compress, replay, resume
    from lilliput.pipelines.recipe import Recipe
    from lilliput.pipelines.run import Run, load

_HOMES = {"Recipe": "recipe", "Run": "run", "compress": "engine", "compress_to": "budgeted", "demo": "demonstration", "from_budget": "budgeted", "load": "run",
          "replay": "engine", "resume": "engine"}

__all__ = ["Recipe", "Run", "compress", "compress_to", "demo", "from_budget", "load", "replay", "resume"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"lilliput.pipelines.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lilliput.pipelines' has no attribute {name!r}")
