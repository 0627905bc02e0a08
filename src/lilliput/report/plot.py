"""Geometry of the two charts, in percent of the plot area, so that one drawing fits every width.

Drawn as inline SVG rather than by a plotting library: the smallest Plotly bundle in its wheel is 4.8 MB and names
tile servers, where these charts take a few kilobytes, follow the page's colours and print sharply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lilliput.report.findings import promises
from lilliput.report.format import minus, plain, quantity
from lilliput.report.layers import Column
from lilliput.report.model import COSTS, RunView

Box = tuple[float, float, float, float]
_DOT, _BADGE = 6.0, 9.0


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A line across the plot and what it says."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Tag:
    """Where a point's numbered badge sits, in pixels from the point; `end` puts the words to its left."""

    x: float
    y: float
    end: bool


@dataclass(frozen=True, kw_only=True)
class Point:
    """A variant in the plot: its place, its interval along the cost axis, its tags on narrow and wide pages."""

    x: float
    y: float
    step: int
    label: str
    title: str
    low: float | None
    high: float | None
    narrow: Tag
    wide: Tag


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Accuracy against one cost."""

    key: str
    name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[Point, ...]
    limits: tuple[Tick, ...]

    @property
    def path(self) -> str:
        """The way from the original through every step, as points of an SVG polyline in a 100 by 100 box."""
        return " ".join(f"{point.x:.2f},{point.y:.2f}" for point in self.points)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A layer's bar: left edge, top, width and height in percent."""

    x: float
    y: float
    width: float
    height: float
    title: str
    worst: bool


def ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Round numbers that span `low..high` inside, at most about `count` of them.

    >>> ticks(0, 43, 5)
    (0.0, 10.0, 20.0, 30.0, 40.0)
    """
    if not high > low:
        return (low,)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return tuple(round((first + k) * step, 12) for k in range(int((high + step * 1e-9) / step - first) + 1))


def panels(view: RunView) -> tuple[Panel, ...]:
    """One panel for every cost that any variant with an accuracy has."""
    return tuple(panel for key in ("macs", "params", "size", "latency") if (panel := _panel(view, key)) is not None)


def _panel(view: RunView, key: str) -> Panel | None:
    assert key in COSTS
    shown = [v for v in view.variants if key in v.metrics and "accuracy" in v.metrics]
    if not shown:
        return None
    q = quantity(key)
    budgets = {p.promised: f"step {v.step}: {p.shown()[0]}" for v in view.variants for p in promises(v) if p.key == key}
    reach = [v.metrics[key] for v in shown] + [v.metrics.get("latency_high", 0.0) for v in shown if key == "latency"]
    right = max(*reach, *budgets, 0.0) * 1.08 or 1.0
    low, high = _accuracy_range([v.metrics["accuracy"] for v in shown])
    places = [(100 * v.metrics[key] / right, 100 * (high - v.metrics["accuracy"]) / (high - low)) for v in shown]
    spans = [tuple(100 * b / right for b in v.interval() or ()) if key == "latency" else () for v in shown]
    narrow = _tags(places, spans, (270.0, 250.0), [0.0] * len(shown))
    wide = _tags(places, spans, (700.0, 330.0), [7.2 * len(plain(v.label, 28)) + 8 for v in shown])
    unit = q.scale([v.metrics[key] for v in shown])
    points = []
    for index, variant in enumerate(shown):
        span = spans[index]
        points.append(Point(
            x=places[index][0], y=places[index][1], step=variant.step, label=plain(variant.label, 28),
            title=f"{variant.step}. {plain(variant.label)}: accuracy {quantity('accuracy').show(variant.metrics['accuracy'])}, "
                  f"{q.name} {q.show(variant.metrics[key])}",
            low=span[0] if span else None, high=span[1] if span else None,
            narrow=narrow[index], wide=wide[index]))
    return Panel(
        key=key, name=q.name, points=tuple(points),
        x_ticks=tuple(Tick(at=100 * t * unit[0] / right, text=f"{t:,g}{unit[1] if t else ''}") for t in ticks(0, right / unit[0], 5)),
        y_ticks=tuple(Tick(at=100 * (high - t) / (high - low), text=f"{t:g}%") for t in ticks(low, high, 5)),
        limits=tuple(Tick(at=100 * value / right, text=text) for value, text in budgets.items()))


def bars(names: Sequence[str], column: Column) -> tuple[tuple[Bar, ...], tuple[Tick, ...]]:
    """Bars of one column in network order, and the ticks of its axis."""
    known = [value for value in column.values if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known]) or 1.0
    low, high = low * 1.05, high * 1.12
    q = quantity(column.key)
    unit = q.scale([high])
    width = 100 / len(names)
    zero = 100 * high / (high - low)
    drawn = []
    for index, value in enumerate(column.values):
        if value is None:
            continue
        top = 100 * (high - value) / (high - low)
        drawn.append(Bar(x=(index + 0.14) * width, y=min(top, zero), width=0.72 * width, height=max(abs(zero - top), 0.4),
                         title=f"{plain(names[index], 120)}: {column.name} {column.shown[index]}", worst=index == column.worst))
    suffix, factor = (" dB", 1.0) if column.key.endswith("_db") else ("%", 0.01) if column.key in ("saturation", "sparsity") else (unit[1], unit[0])
    lines = tuple(Tick(at=100 * (high - t * factor) / (high - low), text=minus(f"{t:,g}{suffix if t else ''}"))
                  for t in ticks(low / factor, high / factor, 4))
    return tuple(drawn), lines


def _accuracy_range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(0.18 * (high - low), 0.5)
    return max(low - margin, min(0.0, low)), min(high + margin, max(100.0, high) + 0.06 * (high - low) + 0.1)


def _tags(places: Sequence[tuple[float, float]], spans: Sequence[tuple[float, ...]], size: tuple[float, float],
          words: Sequence[float]) -> list[Tag]:
    dots = [(x * size[0] / 100, y * size[1] / 100) for x, y in places]
    taken: list[Box] = [(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in dots]
    taken += [(min(span) * size[0] / 100, y - 2, max(span) * size[0] / 100, y + 2)
              for (_, y), span in zip(dots, spans, strict=True) if span]
    tags: list[Tag] = []
    for (x, y), length in zip(dots, words, strict=True):
        tag, box = _free(x, y, length, size, taken)
        taken.append(box)
        tags.append(tag)
    return tags


def _free(x: float, y: float, length: float, size: tuple[float, float], taken: Sequence[Box]) -> tuple[Tag, Box]:
    best: tuple[float, Tag, Box] | None = None
    for distance in (20.0, 34.0, 50.0, 68.0, 90.0):
        for angle in (-45, 0, -90, 45, 90, -135, 180, 135):
            dx, dy = distance * math.cos(math.radians(angle)), distance * math.sin(math.radians(angle))
            end = dx < -1
            left = x + dx - _BADGE - (length if end else 0)
            box = (left, y + dy - _BADGE, left + 2 * _BADGE + length, y + dy + _BADGE)
            cost = distance + sum(1000 * _overlap(box, other) for other in taken)
            cost += 1e6 * (box[0] < 0 or box[1] < 0 or box[2] > size[0] or box[3] > size[1])
            if best is None or cost < best[0]:
                best = (cost, Tag(x=round(dx, 1), y=round(dy, 1), end=end), box)
    assert best is not None
    return best[1], best[2]


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
