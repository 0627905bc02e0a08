"""A language model of 2.3 million weights on Shakespeare, character by character: perplexity with half of its weights gone.

    python -m benchmarks.prune_language --json benchmarks/results/prune_language.json ["METHOD PATTERN" ...]

The network is `trained` of `benchmarks.language`. Half of the weights of every linear layer but the last go, in any place (`50%`)
or two of every four (`2:4`), layer by layer on 128 windows of the training split, and nothing is trained afterwards. Magnitude is
Wanda without the norms of the inputs: as with Wanda the weights of an output compete with each other. `val` is for choosing,
`test` for the table.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from torch import nn

from benchmarks.language import TEXT, trained
from benchmarks.results import main
from lilliput import data, prune
from lilliput.core import Budget
from lilliput.graph import Traced, profile
from lilliput.prune.solvers import Wanda
from lilliput.train import perplexity

LAYERS = prune.Element(exclude=("head",))
SAMPLES = 128
METHODS = ("magnitude", "wanda", "sparsegpt")
PATTERNS = ("50%", "2:4")
CASES = ["dense", *(f"{method} {pattern}" for pattern in PATTERNS for method in METHODS)]


def half(model: Traced) -> Budget:
    """What is left of all parameters where half of the weights of these layers go."""
    params = profile(model).params
    return Budget(params=params - sum(len(weights) for weights in LAYERS.plan(model).everything()) // 2)


def step(method: str, pattern: str, model: Traced) -> prune.LayerByLayer:
    """The pruning of a case."""
    recipe = prune.sparsegpt if method == "sparsegpt" else prune.wanda
    made = (recipe(pattern=prune.NM(n=2, m=4), unit=LAYERS, samples=SAMPLES) if pattern == "2:4" else
            recipe(half(model), unit=LAYERS, samples=SAMPLES))
    return replace(made, method="magnitude", solver=Wanda(power=0.0)) if method == "magnitude" else made


def row(case: str) -> dict[str, Any]:
    """Perplexity on validation and test, the layers' mean relative output error, and the seconds that pruning took."""
    dense, text = trained().eval(), data.load(TEXT)
    method, _, pattern = case.partition(" ")
    model: nn.Module = dense
    errors: list[float] = []
    began = time.perf_counter()
    if pattern:
        result = step(method, pattern, dense)(dense, text)
        model, errors = result.model.eval(), [layer["output_error"] for layer in result.report.entries[0].layers]
    seconds = time.perf_counter() - began
    return {"method": method, "pattern": pattern, "output_error": round(sum(errors) / max(len(errors), 1), 5),
            "val": perplexity(model, text.val), "test": perplexity(model, text.test), "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main(row, CASES, threads=1)
