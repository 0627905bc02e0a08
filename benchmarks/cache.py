"""Trained networks kept between runs in the ignored `.cache/`, keyed by everything that made them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from lilliput.graph import Traced
from lilliput.graph.saving import load, save

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"


def cached(name: str, recipe: str, make: Callable[[Path], Traced]) -> Traced:
    """The network of that recipe; made once. `make` gets a path where its training may save checkpoints."""
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    path = CACHE / f"{name}-{key}.pt2"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        checkpoint = path.with_suffix(".ckpt")
        save(make(checkpoint), path)
        checkpoint.unlink(missing_ok=True)
    return load(path)
