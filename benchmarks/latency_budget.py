"""ResNet-8 on Fashion-MNIST with 0.6 of its latency: HALP and NetAdapt, measured in ONNX Runtime on one thread.

    python -m benchmarks.latency_budget --json benchmarks/results/latency_budget.json ["METHOD SEED" ...]

While a network is pruned its seconds are those of the original, times the ratio of the two, taken in turns. `predicted` is what the
table of single groups says of the widths chosen, `reported` what the step itself measured at the end, `measured` what a longer
comparison does, with its interval, all over the original. The last epoch is what counts; `val` is for choosing, `test` for the
table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks.networks28 import original
from benchmarks.results import main
from benchmarks.timing import session, turns
from lilliput import data, prune
from lilliput.core import Budget, Result
from lilliput.data import Data
from lilliput.graph import Traced, profile
from lilliput.pipelines.measure import measures
from lilliput.train import SGD, Cosine, Fit

ASKED = 0.6
ROUNDS = 100
MULTIPLE = 4  # of channels: kernels compute several at once, and groups of eight leave the least network at 0.6
SHORT = Fit(epochs=1, optimizer=SGD(lr=0.01), precision="bf16-mixed", channels_last=True)
LONG = Fit(epochs=4, optimizer=SGD(lr=0.05), schedule=Cosine(warmup=0.05), precision="bf16-mixed", channels_last=True)
CASES = [f"{method} {seed}" for method in ("halp", "netadapt") for seed in (0, 1, 2)]


def table_of(model: Traced, measure: Callable[[nn.Module], float]) -> prune.LatencyTable:
    """Seconds against widths; which channels go makes no difference to them."""
    plan = prune.Channels(per_layer=False).plan(model)
    assert isinstance(plan, prune.units.ChannelPlan)
    scores = plan.scores(prune.Magnitude(2.0), prune.Stats(), model)
    return prune.Tabulation(multiple=MULTIPLE)(plan, scores, model, "latency", {"latency": measure})


def pruned(method: str, model: Traced, samples: Data, table: prune.LatencyTable, measure: Callable[[nn.Module], float]) -> Result:
    """The network within the budget, trained."""
    budget, measures = Budget(latency=ASKED), {"latency": measure}
    if method == "halp":
        return prune.halp(budget, fine_tune=LONG, table=table, measure=measures)(model, samples)
    adaptation = prune.Adaptation(short=SHORT)
    return prune.netadapt(budget, fine_tune=LONG, adaptation=adaptation, table=table, measure=measures)(model, samples)


def predicted(table: prune.LatencyTable, result: Result) -> float:
    """What the table says, over the original."""
    small, rows = result.model, {row["layer"]: row for row in result.report.entries[0].layers}
    assert isinstance(small, Traced)
    return table.predict([rows[name]["channels_after"] for name in table.groups], profile(small).macs) / table.whole


def row(case: str) -> dict[str, Any]:
    """Latency asked, predicted and measured, MACs, and accuracy of the original and of what is left."""
    method, _, seed = case.partition(" ")
    fashion = data.load("fashion_mnist")
    model, began = original("resnet8", int(seed)).eval(), time.perf_counter()
    measure = measures(fashion)["latency"]
    measure(model)  # the clock of those after it
    table = table_of(model, measure)
    tabulated = time.perf_counter() - began
    result = pruned(method, model, fashion, table, measure)
    entry, seconds = result.report.entries[0], time.perf_counter() - began
    reference, small = session(model, fashion), session(result.model, fashion)
    timed = turns(small, reference, fashion, ROUNDS).ratio("small", "original")
    return {"method": method, "seed": int(seed), "asked": ASKED, "predicted": round(predicted(table, result), 4),
            "reported": round(entry.measured["latency"] / entry.promised["latency"] * ASKED, 4), "measured": round(timed.median, 4),
            "low": round(timed.low, 4), "high": round(timed.high, 4), "macs": round(profile(result.model).macs / profile(model).macs, 4),
            "channels": {layer["layer"]: layer["channels_after"] for layer in entry.layers},
            "original": {"val": reference.evaluate(fashion.val), "test": reference.evaluate(fashion.test)},
            "small": {"val": small.evaluate(fashion.val), "test": small.evaluate(fashion.test)},
            "table_seconds": round(tabulated, 1), "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main(row, CASES, threads=1)
