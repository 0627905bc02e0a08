"""A run folder as a real compression leaves it, made without training anything."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lilliput.core import Entry, Report

LAYERS = ("stem.conv", *(f"stages.{s}.{b}.conv{c}" for s in range(3) for b in range(3) for c in (1, 2)), "fc")

RECIPE = """model: resnet20
data: digits
seed: 0
train:
  epochs: 30
  optimizer: {sgd: {lr: 0.1, momentum: 0.9}}
steps:
  - prune.fpgm: {budget: {macs: 50%, max_drop: 1.0}}
  - distill.kd: {teacher: original, temperature: 4.0, epochs: 10}
  - quantize.ptq: {weights: 8, activations: 8, range: mse}
  - quantize.lsq: {weights: 4, activations: 8, epochs: 5}
"""


def metrics(*figures: float) -> dict[str, float]:
    names = ("accuracy", "val_accuracy", "params", "macs", "size", "latency", "latency_low", "latency_high")
    return {**dict(zip(names, figures, strict=True)), "peak_memory": 65_536.0 if figures[2] > 2e5 else 40_960.0}


VARIANTS: list[dict[str, Any]] = [
    {"step": 0, "method": "original", "label": "original",
     "metrics": metrics(98.06, 98.33, 269_434, 40_812_032, 1_092_401, 412e-6, 405e-6, 421e-6)},
    {"step": 1, "method": "prune.fpgm", "label": "prune to half the MACs",
     "metrics": metrics(95.28, 95.83, 131_722, 20_307_456, 541_902, 409e-6, 401e-6, 418e-6)},
    {"step": 2, "method": "distill.kd", "label": "distil from the original",
     "metrics": metrics(97.78, 98.06, 131_722, 20_307_456, 541_902, 407e-6, 400e-6, 417e-6)},
    {"step": 3, "method": "quantize.ptq", "label": "quantize to int8",
     "metrics": metrics(97.5, 97.78, 131_722, 20_307_456, 148_612, 131e-6, 128e-6, 136e-6)},
    {"step": 4, "method": "quantize.lsq", "label": "train at 4 bits",
     "metrics": metrics(96.94, 97.5, 131_722, 20_307_456, 87_004, 158e-6, 152e-6, 167e-6)},
]


def layer_rows(kind: str) -> tuple[dict[str, Any], ...]:
    rows = []
    for index, name in enumerate(LAYERS):
        width = 16 * 2 ** min(2, max(0, index - 1) // 6)
        wave = math.sin(1.7 * index)
        row: dict[str, Any] = {"layer": name}
        if kind == "prune":
            row |= {"params": 72 * width * (1 + index % 3), "macs": 1_200_000 + 90_000 * (index % 5), "channels_before": width,
                    "channels_after": width if index in (0, 19) else max(4, int(width * (0.55 + 0.2 * wave))),
                    "sensitivity": round(0.4 + 0.3 * wave + (3.1 if index == 0 else 0), 3)}
        else:
            row |= {"weight_sqnr_db": 38 + 4 * wave - (14 if kind == "lsq" else 0),
                    "activation_sqnr_db": (31 if kind == "ptq" else 33) + 3 * math.cos(index) - (19 if index == 7 else 0),
                    "saturation": (0.041 if kind == "ptq" else 0.022) if index == 7 else 0.0005}
        rows.append(row)
    return tuple(rows)


def entries() -> Report:
    return Report((
        Entry(method="prune.fpgm", recipe="Prune(criterion=fpgm, unit=ChannelGroup(), allocation=global_, budget=Budget(macs='50%'))",
              layers=layer_rows("prune"), promised={"macs": 20_406_016, "max_drop": 1.0},
              measured={"macs": 20_307_456, "max_drop": 2.5}, seconds=3.21,
              notes=("Channels were rounded to a multiple of 4.",)),
        Entry(method="distill.kd", recipe="Distill(teacher=<original>, temperature=4.0, epochs=10)", seconds=18.4),
        Entry(method="quantize.ptq", recipe="Quantize(weights=Int(8), activations=Int(8), range=mse)", layers=layer_rows("ptq"),
              promised={"max_drop": 0.5}, measured={"max_drop": 0.28}, seconds=1.9,
              notes=("fc was kept at 8 bits per channel.",)),
        Entry(method="quantize.lsq", recipe="LSQ(weights=4, activations=8, epochs=5)", layers=layer_rows("lsq"),
              promised={"size": 153_600, "latency": 150e-6}, measured={"size": 87_004, "latency": 158e-6}, seconds=94),
    ))


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "name": "digits-resnet20-half", "created": "2026-11-21T09:14:07+00:00", "lilliput": "0.1.0", "status": "done", "seed": 0,
        "versions": {"lilliput": "0.1.0", "python": "3.11.9", "torch": "2.13.0+cpu", "onnxruntime": "1.31.0", "numpy": "2.4.1"},
        "environment": {"cpu": "Intel Xeon Platinum 8481C @ 2.70GHz", "cores": 2, "threads": 2, "latency_threads": 1, "system": "Linux x86_64"},
        "recipe": {"model": "resnet20"}, "recipe_text": RECIPE,
        "data": {"name": "digits", "digest": "9f2c" * 16, "sizes": {"train": 1077, "val": 360, "test": 360}}, **changes,
    }


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run folder; any part can be replaced."""

    def make(*, variants: list[dict[str, Any]] | None = None, report: Report | None = None, **changes: Any) -> Path:
        folder = tmp_path / "runs" / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text(json.dumps(manifest(**changes)))
        rows = VARIANTS if variants is None else variants
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "report.json").write_text((report or entries()).to_json())
        return folder

    return make


@pytest.fixture
def variants() -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return json.loads(json.dumps(VARIANTS))


@pytest.fixture
def report() -> Report:
    """The records of the four steps."""
    return entries()


@pytest.fixture
def hostile() -> dict[str, Any]:
    """A run whose every name tries to become markup, or never ends."""
    evil = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'{{7*7}}<!--"
    rows = [{**row, "label": evil + "x" * 300, "method": evil} for row in VARIANTS]
    steps = tuple(Entry(method=evil, recipe=evil, notes=(evil,), promised={evil: 1.0}, measured={evil: 2.0},
                        layers=({"layer": evil, "params": 1, "sensitivity": 2.0}, {"layer": "y" * 5000, "params": 2, "sensitivity": 1.0}))
                  for _ in range(4))
    return {"variants": rows, "report": Report(steps), "name": evil, "created": evil, "lilliput": evil, "recipe_text": evil, "seed": evil,
            "versions": {evil: evil}, "environment": {"cpu": evil, evil: evil, "threads": evil},
            "data": {"name": evil, "digest": evil, "sizes": {evil: 3}}}
