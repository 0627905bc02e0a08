"""The table of variants as cells, so that the page and the terminal cannot differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from lilliput.report.findings import Speed, speed
from lilliput.report.format import minus, points, quantity, ratio
from lilliput.report.model import RunView, Variant

COLUMNS = ("accuracy", "params", "macs", "size", "latency")


class Tone(StrEnum):
    """Whether a change is welcome; `EVEN` covers both no change and one that noise explains."""

    GOOD = "good"
    BAD = "bad"
    EVEN = "even"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure: its text, its change against another variant, and what the change is worth."""

    key: str
    value: str
    change: str = ""
    tone: Tone = Tone.EVEN
    details: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the table."""

    variant: Variant
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One metric of one step: before, after, and its change."""

    name: str
    before: str
    after: str
    change: str
    tone: Tone


def columns(view: RunView) -> tuple[str, ...]:
    """The metrics that are shown: the five of every table, and peak memory where any variant has it."""
    return COLUMNS + tuple(key for key in ("peak_memory",) if any(key in v.metrics for v in view.variants))


def half_width(view: RunView, accuracy: float) -> float:
    """Half the 95% interval, in points, that sampling the test split gives an accuracy; 0 if its size is unknown."""
    count, share = view.sizes.get("test", 0), min(max(accuracy / 100, 0.0), 1.0)
    return 196 * math.sqrt(share * (1 - share) / count) if count > 0 else 0.0


def lines(view: RunView) -> tuple[Line, ...]:
    """All variants in order, each compared with the original."""
    units = {key: quantity(key).scale([v.metrics.get(key) for v in view.variants]) for key in columns(view)}
    rows = []
    for variant in view.variants:
        other = None if variant is view.original else view.original
        cells = []
        for key in columns(view):
            value = quantity(key).show(variant.metrics.get(key), units[key])
            change, tone = compare(view, key, other, variant) if other else ("", Tone.EVEN)
            cells.append(Cell(key=key, value=value, change=change, tone=tone, details=_details(key, variant, units[key])))
        rows.append(Line(variant=variant, cells=tuple(cells)))
    return tuple(rows)


def compare(view: RunView, key: str, before: Variant, after: Variant) -> tuple[str, Tone]:
    """The change of one metric in words and its tone; latency and accuracy within their noise are even."""
    old, new = before.metrics.get(key), after.metrics.get(key)
    better = quantity(key).better(old, new)
    tone = Tone.EVEN if better is None else Tone.GOOD if better else Tone.BAD
    if key == "latency" and speed(before, after) is Speed.SAME:
        tone = Tone.EVEN
    if key == "accuracy" and old is not None and new is not None and abs(new - old) <= half_width(view, old):
        tone = Tone.EVEN
    return quantity(key).change(old, new), tone


def effects(view: RunView, variant: Variant) -> tuple[Effect, ...]:
    """What the variant's step did to each metric that was measured before or after it."""
    before = view.before(variant)
    rows = []
    for key in columns(view):
        old, new = before.metrics.get(key) if before else None, variant.metrics.get(key)
        if old is None and new is None:
            continue
        unit = quantity(key).scale([old, new])
        change, tone = compare(view, key, before, variant) if before else ("", Tone.EVEN)
        rows.append(Effect(name=quantity(key).name, before=quantity(key).show(old, unit), after=quantity(key).show(new, unit),
                           change=change, tone=tone))
    return tuple(rows)


def summary(view: RunView) -> str:
    """The run in one sentence; it claims only what was measured."""
    first, last = view.original, view.final
    if first is None or last is None:
        return "No step has been measured yet."
    told = []
    if size := ratio(first.metrics.get("size"), last.metrics.get("size")):
        told.append(f"file {size}")
    verdict = speed(first, last)
    if verdict is Speed.SAME:
        told.append("latency not measurably different")
    elif verdict is not None:
        factor = first.metrics["latency"] / last.metrics["latency"]
        shown = f"{max(factor, 1 / factor):.1f}×" if factor else ""
        told.append(f"{shown} {verdict.value}")
    if "accuracy" in first.metrics and "accuracy" in last.metrics:
        change = last.metrics["accuracy"] - first.metrics["accuracy"]
        told.append("same accuracy" if points(change).startswith("±") else
                    minus(f"{abs(change):.2f} points of accuracy {'lost' if change < 0 else 'gained'}"))
    text = ", ".join(told)
    return f"{text[:1].upper()}{text[1:]}, against the original." if told else "No figure was measured before and after."


def _details(key: str, variant: Variant, unit: tuple[float, str]) -> tuple[str, ...]:
    if key == "accuracy" and "val_accuracy" in variant.metrics:
        return (f"validation {quantity('val_accuracy').show(variant.metrics['val_accuracy'])}",)
    interval = variant.interval() if key == "latency" else None
    if interval is None or key not in variant.metrics:
        return ()
    low, high = (quantity(key).show(bound, unit) for bound in interval)
    return (f"{low.removesuffix(unit[1])} to {high}",)
