"""Diagnosis: which layers quantization hurts, why, and what more bits there would buy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError
from lilliput.core.report import Entry, Report, Row
from lilliput.data.drawing import labelled_batches, sample_batches
from lilliput.graph.trace import Traced
from lilliput.quantize.calibrate import check_calibrated, constants, quantizers
from lilliput.quantize.measure import layer_rows
from lilliput.quantize.operators import LAYERS
from lilliput.quantize.place import quantizer_of
from lilliput.quantize.quantizer import Quantizer
from lilliput.train.evaluate import device_of, evaluating
from lilliput.train.progress import Bar

# A channel is an outlier where its largest magnitude is this many times that of the middle channel.
OUTLIER = 6.0


@dataclass(frozen=True, kw_only=True)
class _Judgement:
    """How far outputs lie from the float network's, and how many classes are right."""

    accuracy: float
    noise: float


def explain(model: nn.Module, quantized: Traced, data: Any, *, samples: int = 512) -> Report:
    """Say what quantization costs each layer, on up to `samples` samples of `data.val`; ranks what to leave at higher precision.

    One row per layer, the most rewarding first: `weight_sqnr_db`, `activation_sqnr_db` and `saturation` of its own tensors;
    `noise_alone`, the error in the network's output `E|y - y_float|^2 / E|y_float|^2` when only this layer is quantized, and
    `alone_drop`, the points of accuracy that costs; `noise_share`, the part of the error that goes when this layer alone is not
    quantized, and `buys`, the points that gives; `extra_bytes`, what its weights take more as float32; `outlier_ratio`, the
    largest channel of its input over the middle one, and `outliers`, the channels beyond six times that. Accuracies are percent,
    on data with classes.

    Raises `PreconditionError` where `quantized` holds no quantizers.
    """
    found = quantizers(quantized)
    if not found:
        raise PreconditionError("the network holds no quantizers: pass the simulated one that a quantize step returned, not an exported or loaded one")
    check_calibrated(quantized)
    classes = bool(data.num_classes)
    batches = list(labelled_batches(data.val, samples, 128))
    layers = tuple(dict.fromkeys(_owner(q) for q in found))
    with evaluating(model), evaluating(quantized):
        wanted = [model(inputs.to(device_of(model))) for inputs, _ in batches]
        judge = _judge(quantized, batches, wanted, classes)
        with Bar(total=2 * len(layers) + 2) as bar:
            whole = judge()
            exact = _accuracy(wanted, batches) if classes else math.nan
            bar.update(2, "whole network")
            rows = []
            for i, layer in enumerate(layers):
                with _bypassed([q for q in found if _owner(q) != layer]):
                    alone = judge()
                with _bypassed([q for q in found if _owner(q) == layer]):
                    without = judge()
                rows.append(_row(layer, (exact, whole, alone, without), classes))
                bar.update(2 * i + 4, layer)
    _describe(rows, quantized, data, samples)
    rows.sort(key=lambda row: (-row["noise_share"], row["layer"]))
    metrics = {"accuracy_float": exact, "accuracy_quantized": whole.accuracy} if classes else {}
    entry = Entry(method="quantize.explain", recipe=f"explain(samples={samples})", metrics={**metrics, "noise": whole.noise}, layers=tuple(rows),
                  notes=tuple(_advice(rows, whole, classes)))
    return Report((entry,))


def _owner(quantizer: Quantizer) -> str:
    """The layer that a quantizer is counted to: a narrowed input belongs to its reader."""
    return quantizer.layer.removesuffix(".input")


def _accuracy(outputs: Sequence[Tensor], batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    hits = sum(int((y.argmax(-1).cpu() == targets).sum()) for y, (_, targets) in zip(outputs, batches, strict=True))
    return 100 * hits / sum(targets.numel() for _, targets in batches)


def _judge(quantized: Traced, batches: Sequence[tuple[Tensor, Tensor]], wanted: Sequence[Tensor], classes: bool) -> Callable[[], _Judgement]:
    power = sum(float(y.double().square().sum()) for y in wanted)
    device = device_of(quantized)

    def judge() -> _Judgement:
        outputs = [quantized(inputs.to(device)) for inputs, _ in batches]
        noise = sum(float((y - w.to(y.device)).double().square().sum()) for y, w in zip(outputs, wanted, strict=True))
        return _Judgement(accuracy=_accuracy(outputs, batches) if classes else math.nan, noise=noise / power if power else math.nan)

    return judge


@contextmanager
def _bypassed(off: Sequence[Quantizer]) -> Iterator[None]:
    for quantizer in off:
        quantizer.bypassed = True
    try:
        yield
    finally:
        for quantizer in off:
            quantizer.bypassed = False


def _row(layer: str, judged: tuple[float, _Judgement, _Judgement, _Judgement], classes: bool) -> Row:
    exact, whole, alone, without = judged
    row: Row = {"layer": layer, "noise_alone": alone.noise, "noise_share": 1 - without.noise / whole.noise if whole.noise else 0.0}
    if classes:
        row |= {"alone_drop": exact - alone.accuracy, "buys": without.accuracy - whole.accuracy}
    return row


def _describe(rows: list[Row], quantized: Traced, data: Any, samples: int) -> None:
    """Add to each row what its own tensors show."""
    own: dict[str, Row] = {}
    for row in layer_rows(quantized, data, samples=min(samples, 64)):
        name = str(row["layer"]).removesuffix(".input")
        own[name] = {**row, **own.get(name, {})}
    sizes: dict[str, int] = {}
    for quantizer, tensor in constants(quantized):
        sizes[quantizer.layer] = sizes.get(quantizer.layer, 0) + tensor.numel() * (32 - quantizer.grid.bits) // 8
    peaks = _peaks(quantized, data, samples)
    for row in rows:
        name = row["layer"]
        row |= {key: value for key, value in own.get(name, {}).items() if key != "layer"}
        row["extra_bytes"] = sizes.get(name, 0)
        if name in peaks:
            ratio = peaks[name] / peaks[name].median().clamp(min=1e-12)
            row["outlier_ratio"] = float(ratio.max())
            row["outliers"] = " ".join(str(int(i)) for i in ratio.argsort(descending=True)[:5] if ratio[i] > OUTLIER)


def _peaks(quantized: Traced, data: Any, samples: int) -> dict[str, Tensor]:
    """Largest magnitude in each channel of every layer's input, `(channels,)`."""
    readers: dict[Quantizer, tuple[list[str], int]] = {}
    for node in quantized.graph.nodes:
        source = node.args[0] if node.target in LAYERS else None
        held = quantizer_of(quantized, source)
        weight = node.args[1] if held is not None else None
        if held is not None and isinstance(weight, fx.Node) and weight.op == "call_module":
            owner = quantized.get_submodule(str(weight.target))
            name = owner.layer if isinstance(owner, Quantizer) else ""
            readers.setdefault(held, ([], -1 if "linear" in str(node.target) else 1))[0].append(name)
    peaks: dict[str, Tensor] = {}

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
        assert isinstance(module, Quantizer)
        names, axis = readers[module]
        if inputs[0].ndim < 2:
            return
        peak = inputs[0].detach().abs().movedim(axis, 0).flatten(1).amax(1)
        for name in names:
            peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak

    handles = [quantizer.register_forward_hook(hook) for quantizer in readers]
    try:
        with evaluating(quantized):
            for inputs in sample_batches(data.val, min(samples, 64)):
                quantized(inputs.to(device_of(quantized)))
    finally:
        for handle in handles:
            handle.remove()
    return peaks


def _advice(rows: list[Row], whole: _Judgement, classes: bool) -> Iterator[str]:
    for row in rows[:3]:
        if row["noise_share"] <= 0.05:
            return
        gain = f" and {row['buys']:+.2f} points of accuracy" if classes else ""
        text = f"leaving {row['layer']} at higher precision takes away {100 * row['noise_share']:.0f}% of the output's error{gain}"
        if row["extra_bytes"]:
            text += f", for up to {row['extra_bytes']} bytes more"
        if row.get("outliers"):
            text += f"; channels {row['outliers']} of its input reach {row['outlier_ratio']:.0f} times the middle one: equalise or split them"
        elif row.get("saturation", 0) > 0.01:
            text += f"; {100 * row['saturation']:.1f}% of its result saturates: widen its range"
        yield text
    if not rows or whole.noise == 0:
        yield "quantization changes nothing on these samples"
