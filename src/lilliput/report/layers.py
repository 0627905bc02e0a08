"""Per-layer figures of all steps in one table, and which layer is worst."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from lilliput.report.format import MISSING, QUANTITIES, minus, plain, quantity, share, significant
from lilliput.report.model import RunView, Variant

_NAMES = {"sensitivity": "Sensitivity", "weight_sqnr_db": "Weight SQNR", "activation_sqnr_db": "Activation SQNR",
          "saturation": "Saturation", "noise_share": "Share of the error"}
_SHARES = ("saturation", "sparsity", "noise_share")
_ORDER = ("params", "macs", "sparsity", *_NAMES)
_CHANNELS = ("channels_before", "channels_after")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure of every layer (None where unknown), from the last step that reported it."""

    key: str
    name: str
    source: str
    values: tuple[float | None, ...]
    shown: tuple[str, ...]
    worst: int | None = None

    def share(self, row: int) -> float:
        """The layer's value as a percentage of the column's largest, for a bar; 0 where there is none."""
        value = self.values[row]
        largest = max((v for v in self.values if v is not None), default=0.0)
        return 0.0 if value is None or largest <= 0 else max(0.0, 100 * value / largest)


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """Layers in network order with their channel counts and columns of figures."""

    names: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gone:
    """What a step took from one layer, and why these."""

    layer: str
    channels: str
    removed: str
    reason: str


def gone(variant: Variant) -> tuple[Gone, ...]:
    """The layers that a step took channels from, in network order."""
    return tuple(Gone(layer=str(row["layer"]), channels=_counts(row), removed=str(row["removed"]), reason=str(row.get("reason", "")))
                 for row in _rows(variant) if row.get("removed"))


def _counts(row: dict[str, float | str]) -> str:
    return " → ".join(f"{float(row[key]):.0f}" if key in row else MISSING for key in _CHANNELS)


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The layer that a step's figure singles out, and what the middle layer has."""

    variant: Variant
    key: str
    layer: str
    value: float
    median: float

    def sentence(self) -> str:
        """The finding in words."""
        layer, name = plain(self.layer, 80), _NAMES[self.key]
        value, middle = _show(self.key, self.value), _show(self.key, self.median)
        if self.key == "sensitivity":
            return f"{layer} is the most sensitive layer: {value}, the median layer has {middle}."
        if self.key == "saturation":
            return f"{layer} saturates most: {value} of its values are clipped, {middle} in the median layer."
        if self.key == "noise_share":
            return f"{layer} causes most of the output's error: without quantizing it {value} of the error goes, {middle} for the median layer."
        power = share(10 ** min(-self.value / 10, 15.0))
        return (f"{layer} has the worst {name.split()[0].lower()} error: SQNR {value}, so the error has {power} of the "
                f"signal's power; the median layer has {middle}.")


def layer_table(view: RunView) -> LayerTable:
    """Merge the layer rows of all steps; each column comes from the last step that reports it."""
    steps = [v for v in view.variants if v.entry and v.entry.layers]
    names = tuple(dict.fromkeys(row["layer"] for v in steps for row in (v.entry.layers if v.entry else ())))
    if not names:
        return LayerTable()
    columns: list[Column] = []
    for key in _ORDER:
        source = next((v for v in reversed(steps) if any(key in row for row in _rows(v))), None)
        if source is not None:
            columns.append(_column(key, source, names))
    return LayerTable(names=names, channels=_channels(steps, names), columns=tuple(columns))


def worst_layers(view: RunView) -> tuple[Worst, ...]:
    """For every step and every error figure that it reports for more than one layer, the worst layer."""
    found: list[Worst] = []
    for variant in view.variants:
        for key in _NAMES:
            known = [(float(row[key]), str(row["layer"])) for row in _rows(variant) if key in row]
            if len(known) < 2:
                continue
            value, layer = _pick(key)(known, key=lambda pair: pair[0])
            if key not in ("saturation", "noise_share") or value > 0:
                found.append(Worst(variant=variant, key=key, layer=layer, value=value, median=median(v for v, _ in known)))
    return tuple(found)


def worst_of_all(view: RunView) -> tuple[Worst, ...]:
    """The worst layer of each figure over all steps."""
    found: dict[str, Worst] = {}
    for one in worst_layers(view):
        if one.key not in found or _pick(one.key)((one.value, 1), (found[one.key].value, 0))[1]:
            found[one.key] = one
    return tuple(found.values())


def _rows(variant: Variant) -> tuple[dict[str, float | str], ...]:
    return variant.entry.layers if variant.entry else ()


def _pick(key: str) -> Callable[..., Any]:
    return min if key.endswith("_db") else max


def _column(key: str, source: Variant, names: tuple[str, ...]) -> Column:
    found = {row["layer"]: float(row[key]) for row in _rows(source) if key in row}
    values = tuple(found.get(name) for name in names)
    known = [(value, index) for index, value in enumerate(values) if value is not None]
    worst = None
    if key in _NAMES and len(known) > 1 and min(known)[0] != max(known)[0]:
        worst = _pick(key)(known)[1]
    unit = quantity(key).scale(values)
    shown = tuple(MISSING if v is None else quantity(key).show(v, unit) if key in QUANTITIES else _show(key, v) for v in values)
    name = QUANTITIES[key].name if key in QUANTITIES else _NAMES.get(key, key.title())
    return Column(key=key, name=name, source=f"step {source.step}, {source.label}", values=values, shown=shown, worst=worst)


def _channels(steps: list[Variant], names: tuple[str, ...]) -> tuple[str, ...]:
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for variant in steps:
        for row in _rows(variant):
            if all(key in row for key in _CHANNELS):
                first.setdefault(str(row["layer"]), float(row["channels_before"]))
                last[str(row["layer"])] = float(row["channels_after"])
    if not first:
        return ()
    return tuple(MISSING if n not in first else f"{first[n]:.0f}" if first[n] == last[n] else f"{first[n]:.0f} → {last[n]:.0f}"
                 for n in names)


def _show(key: str, value: float) -> str:
    if key.endswith("_db"):
        return minus(f"{value:.1f} dB") if math.isfinite(value) else MISSING
    return share(value) if key in _SHARES else significant(value)
