"""Integer or float kernel, layer by layer, by measurement on the machine at hand."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import onnx

from lilliput.core.atomic import write_bytes
from lilliput.core.errors import PreconditionError
from lilliput.deploy.kernels.floats import MARK, quantized_layers, with_floats
from lilliput.deploy.kernels.fusion import Fusions, load, profiled
from lilliput.deploy.onnx import read
from lilliput.deploy.runtime import Array, Session, noise
from lilliput.graph import latency
from lilliput.graph.latency import Comparison, Timing

_GAIN = 0.95  # a layer changes its kernel for 5% or more: below that the profiler's microseconds decide


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """Median seconds of a layer's integer and float kernels, the quantization around them included, and whether it runs in floats."""

    layer: str
    node: str
    integer: float
    floating: float
    floats: bool


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was written to `path`, and the whole model's time before and after, taken in turns.

    `candidate` is the time of the fastest model that was tried (the original's where there was none to try) and `ratio` its time
    over the original's; `kept` says whether it was written, which takes an interval below 1. Without it, `path` is the original.
    """

    path: Path
    layers: tuple[LayerChoice, ...]
    original: Timing
    candidate: Timing
    ratio: Timing
    kept: bool
    size_before: int
    size_after: int

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {**asdict(self), "path": str(self.path)}


def choose(path: str | PathLike[str], out: str | PathLike[str], threads: int = 1, *, rounds: int = 50,
           input_shape: tuple[int, ...] | None = None) -> Choice:
    """Write the model with the faster of integer and float kernel for every layer with 8 bit weights, if that is faster as a whole.

    Both forms are profiled and a layer's kernels compared: all that stand for its nodes, what quantizes and dequantizes its
    activations with them. A float kernel comes from weights that the runtime dequantizes once, when it loads the file: the
    file stays as small, activations are quantized as before, and outputs differ by rounding at the last code alone. Neighbours
    share layouts, so layers' gains do not add up: the chosen mixture and floats throughout are timed in turns with the
    original, and the faster is written only if its time ratio's interval lies below 1; else a copy of the original.

    Raises `PreconditionError` for a model without such layers and for `out` in place of `path`; otherwise as `fusions`.
    """
    path, out = Path(path), Path(out)
    if path.resolve() == out.resolve():
        raise PreconditionError(f"{out} is the model itself; choose another place for what is written")
    model, feeds = load(path), noise(path, input_shape)
    layers = quantized_layers(model)
    if not layers:
        raise PreconditionError(f"{path} has no layer with 8 bit weights, so there are no kernels to choose from; quantize it first")
    whole = with_floats(model, set(layers))
    rows = _compared(profiled(model, path, feeds, threads=threads, runs=30), profiled(whole, path, feeds, threads=threads, runs=30), layers)
    chosen = {row.node for row in rows if row.floats}
    candidates = {"floats": whole} if chosen else {}
    if chosen and len(chosen) < len(layers):
        candidates["mixture"] = with_floats(model, chosen)
    timed = _timed(path, candidates, feeds, threads, rounds)
    best = min(candidates, key=lambda name: timed[name].median, default="original")
    ratio = timed.ratio(best, "original")
    kept = best != "original" and ratio.high < 1
    if kept:
        write_bytes(out, candidates[best].SerializeToString(deterministic=True))
    else:
        _copy(path, model, out)
    rows = tuple(replace(row, floats=kept and (best == "floats" or row.floats)) for row in rows)
    return Choice(path=out, layers=rows, original=timed["original"], candidate=timed[best], ratio=ratio, kept=kept,
                  size_before=path.stat().st_size, size_after=out.stat().st_size)


def _compared(integer: Fusions, floating: Fusions, layers: Mapping[str, str]) -> tuple[LayerChoice, ...]:
    """Seconds of what stands for each layer, and for the nodes fused with it, in both profiles."""
    owners = {node: next((n for n in kernel.nodes if n in layers), "") for kernel in integer.kernels for node in kernel.nodes}
    owners |= {node: owners.get(node.partition(MARK)[0], "") for kernel in floating.kernels for node in kernel.nodes if MARK in node}
    before, after = (_by_layer(found, owners) for found in (integer, floating))
    return tuple(LayerChoice(layer=layer, node=node, integer=before.get(owners.get(node, ""), 0.0), floating=after.get(owners.get(node, ""), 0.0),
                             floats=after.get(owners.get(node, ""), math.inf) < _GAIN * before.get(owners.get(node, ""), 0.0))
                 for node, layer in layers.items())


def _by_layer(found: Fusions, owners: Mapping[str, str]) -> dict[str, float]:
    """Seconds of the kernels of each layer; one that the runtime added counts for the kernel before it."""
    total: dict[str, float] = {}
    last = ""
    for kernel in found.kernels:
        if kernel.nodes:
            last = next((owner for node in kernel.nodes if (owner := owners.get(node, ""))), "")
        total[last] = total.get(last, 0.0) + kernel.seconds
    return total


def _timed(path: Path, candidates: Mapping[str, onnx.ModelProto], feeds: Mapping[str, Array], threads: int, rounds: int) -> Comparison:
    """The original and the candidates in turns."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = {"original": Session(path, threads)}
        for name, model in candidates.items():
            file = Path(folder) / f"{name}.onnx"
            file.write_bytes(model.SerializeToString())
            sessions[name] = Session(file, threads)
        return latency.compare({name: _call(session, feeds) for name, session in sessions.items()}, rounds=rounds)


def _call(session: Session, feeds: Mapping[str, Array]) -> Callable[[], object]:
    arrays = tuple(feeds.values())
    return lambda: session(*arrays)


def _copy(path: Path, model: onnx.ModelProto, out: Path) -> None:
    """The original under its new name, in one file even where its constants lay in others."""
    external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in read(path).graph.initializer)
    write_bytes(out, model.SerializeToString(deterministic=True) if external else path.read_bytes())
