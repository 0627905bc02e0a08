"""Lilliput: the smallest, fastest network that still does its job, in the form its place needs.

Submodules and torch are imported when first used, so `import lilliput` is cheap.
"""

from __future__ import annotations

import importlib
from typing import Any

from lilliput.core import Budget, Report, Result, chain

__version__ = "0.1.0"

_MODULES = ("coding", "core", "data", "deploy", "distill", "factorize", "graph", "methods", "pipelines", "prune", "quantize",
            "report", "train", "zoo")
_NAMES = {"create": "zoo", "load": "pipelines", "profile": "graph", "trace": "graph"}

__all__ = ["Budget", "Report", "Result", "chain", "__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"lilliput.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"lilliput.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'lilliput' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
