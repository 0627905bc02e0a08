"""Every variant measured in one way: what runs in the end, the ONNX file in ONNX Runtime, on one thread."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lilliput.core import Entry
from lilliput.data import Data
from lilliput.deploy import kernels, onnx, runtime
from lilliput.graph import Traced, latency, trace
from lilliput.graph.profile import profile

Row = dict[str, Any]


def structure(model: nn.Module, data: Data) -> dict[str, float]:
    """`params`, `macs` of one sample and `peak_memory` in bytes."""
    found = profile(trace(model, data.example()), data.example(1))
    return {"params": float(found.params), "macs": float(found.macs), "peak_memory": float(found.peak_memory)}


def with_costs(rows: Sequence[Row], model: nn.Module, data: Data) -> tuple[Row, ...]:
    """A step's rows, each with the `params` and `macs` its layer has after the step; layers without a row get one."""
    costs: dict[str, Row] = {}
    for layer in profile(trace(model, data.example()), data.example(1)).layers:
        if layer.params or layer.macs:
            row = costs.setdefault(layer.layer, {"layer": layer.layer, "params": 0, "macs": 0})
            row["params"], row["macs"] = row["params"] + layer.params, row["macs"] + layer.macs
    for row in rows:
        costs[str(row["layer"])] = {**costs.get(str(row["layer"]), {}), **row}
    return tuple(costs.values())


def explained(entry: Entry, before: nn.Module, model: nn.Module, data: Data) -> Entry:
    """A quantization step's entry with what each layer costs and what to leave at higher precision (`quantize.explain`)."""
    from lilliput.quantize import explain
    from lilliput.quantize.calibrate import quantizers

    if not isinstance(model, Traced) or not quantizers(model):
        return entry
    found = explain(before, model, data, samples=256).entries[0]
    costs = {str(row["layer"]): row for row in found.layers}
    layers = [{**row, **{key: value for key, value in costs.get(str(row["layer"]), {}).items() if key in ("noise_share", "buys", "outliers")}}
              for row in entry.layers]
    return replace(entry, layers=tuple(layers), notes=(*entry.notes, *found.notes))


def figures(model: nn.Module, file: Path, data: Data) -> dict[str, float]:
    """All that does not need a clock: structure, file size, and where there are classes the accuracy in percent on the
    validation split (`val_accuracy`, for choosing) and, once, on the test split (`accuracy`, for the table)."""
    out = {**structure(model, data), "size": float(file.stat().st_size)}
    if data.num_classes:
        session = runtime.Session(file, threads=1)
        out |= {"accuracy": session.evaluate(data.test), "val_accuracy": session.evaluate(data.val)}
    return out


def times(files: Mapping[str, Path], data: Data, *, rounds: int = 50) -> dict[str, dict[str, float]]:
    """`latency`, `latency_low` and `latency_high` of each file in seconds: one sample, one thread, all files in turns."""
    sample = np.ascontiguousarray(data.example(1).numpy()[:1])
    found = latency.compare({name: _runner(path, sample) for name, path in files.items()}, rounds=rounds)
    return {name: {"latency": t.median, "latency_low": t.low, "latency_high": t.high} for name, t in found.timings.items()}


def on_this_machine(file: Path) -> Row:
    """The file's kernels on one thread and its times over threads, as plain data: `Fusions`, and rows `scaling` of `Scaling`."""
    return {**kernels.fusions(file).to_dict(), "scaling": [row.to_dict() for row in kernels.scaling(file, rounds=15)]}


def measures(data: Data) -> dict[str, Callable[[nn.Module], float]]:
    """Functions that size and time a candidate, for budgets that only the exported file can tell.

    The first network that is timed, the original of a share, is the clock of those after it: they take its seconds, times their
    ratio to it in turns, which a machine that slows down does not change.
    """
    sample = np.ascontiguousarray(data.example(1).numpy()[:1])
    clock: list[tuple[Callable[[], object], float]] = []

    def size(model: nn.Module) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return float(export(model, Path(folder) / "candidate.onnx", data).stat().st_size)

    def seconds(model: nn.Module) -> float:
        with tempfile.TemporaryDirectory() as folder:
            run = _runner(export(model, Path(folder) / "candidate.onnx", data), sample)
        if not clock:
            clock.append((run, latency.compare({"first": run}, rounds=50)["first"].median))
            return clock[0][1]
        first, base = clock[0]
        return base * latency.compare({"candidate": run, "first": first}, rounds=25).ratio("candidate", "first").median

    return {"size": size, "latency": seconds}


def export(model: nn.Module, path: Path, data: Data) -> Path:
    """The model as an ONNX file, checked against torch on real samples."""
    return onnx.export(model, path, data.example(2))


def _runner(path: Path, sample: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Callable[[], object]:
    session = runtime.Session(path, threads=1)
    return lambda: session(sample)
