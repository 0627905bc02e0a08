"""Figures as people read them; the page and the terminal share every function here."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

MISSING = "–"
_COUNT = ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, ""))
_BYTES = ((1024.0**2, " MiB"), (1024.0, " KiB"), (1.0, " B"))
_SECONDS = ((1.0, " s"), (1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns"))
_ALMOST = 0.05


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """How one metric reads: its name, its unit steps, whether less of it is better."""

    key: str
    name: str
    units: tuple[tuple[float, str], ...] = ((1.0, ""),)
    less_is_better: bool = True
    points: bool = False
    suffix: str = "%"

    def scale(self, values: Iterable[float | None]) -> tuple[float, str]:
        """The one unit in which a column reads well: that of its smallest figure, so comparing needs no conversion."""
        known = [abs(value) for value in values if value]
        if not known:
            return self.units[0]
        unit = next((u for u in self.units if min(known) >= u[0]), self.units[-1])
        if max(known) >= 1e5 * unit[0]:
            unit = next((u for u in self.units if max(known) >= u[0]), unit)
        return unit

    def show(self, value: float | None, unit: tuple[float, str] | None = None) -> str:
        """The value in a unit (its own by default): three significant digits, accuracy with two decimals.

        >>> QUANTITIES["macs"].show(20_412_000), QUANTITIES["accuracy"].show(97.2222)
        ('20.4 M', '97.22%')
        """
        if value is None:
            return MISSING
        if self.points:
            return minus(f"{value:.2f}{self.suffix}")
        factor, name = unit or self.scale([value])
        return significant(value / factor) + name

    def change(self, before: float | None, after: float | None) -> str:
        """The change from `before` to `after`: points for accuracy, else percent of `before`.

        >>> QUANTITIES["macs"].change(40e6, 20e6), QUANTITIES["accuracy"].change(97.22, 96.94)
        ('−50.0%', '−0.28')
        """
        if before is None or after is None:
            return ""
        return points(after - before) if self.points else percent_change(before, after)

    def better(self, before: float | None, after: float | None) -> bool | None:
        """Whether the change is an improvement; None where it is none, or unknown."""
        if before is None or after is None or before == after:
            return None
        return (after < before) == self.less_is_better


QUANTITIES: dict[str, Quantity] = {q.key: q for q in (
    Quantity(key="accuracy", name="Accuracy", points=True, less_is_better=False),
    Quantity(key="val_accuracy", name="Validation accuracy", points=True, less_is_better=False),
    Quantity(key="params", name="Parameters", units=_COUNT),
    Quantity(key="macs", name="MACs", units=_COUNT),
    Quantity(key="size", name="File size", units=_BYTES),
    Quantity(key="latency", name="Latency p50", units=_SECONDS),
    Quantity(key="peak_memory", name="Peak memory", units=_BYTES),
    Quantity(key="max_drop", name="Validation drop", points=True, suffix=" points"),
)}


def quantity(key: str) -> Quantity:
    """The quantity of a metric; an unknown one shows as a plain number under its own name."""
    return QUANTITIES.get(key) or Quantity(key=key, name=plain(key, 60).replace("_", " "))


def minus(text: str) -> str:
    """The same text with a true minus sign."""
    return text.replace("-", "−")


def significant(value: float) -> str:
    """Three significant digits, whole numbers grouped by thousands.

    >>> significant(1234567), significant(20.412), significant(0.0123456), significant(7)
    ('1,234,567', '20.4', '0.0123', '7')
    """
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-4:
        return minus(f"{value:.2e}")
    if size >= 99.95 or value == int(value):
        return minus(f"{value:,.0f}")
    digits = 1 if size >= 9.995 else 2 if size >= 0.9995 else 3 if size >= 0.09995 else 4
    return minus(f"{value:.{digits}f}")


def share(value: float) -> str:
    """A small fraction as a percentage of two digits.

    >>> share(0.0412), share(0.0005), share(1e-9), share(0.0)
    ('4.1%', '0.05%', 'under 0.01%', '0%')
    """
    percent = 100 * value
    if 0 < percent < 0.01:
        return "under 0.01%"
    return minus(f"{percent:.2g}%" if percent < 10 else f"{percent:,.0f}%")


def percent_change(before: float, after: float) -> str:
    """`(after - before) / before` in percent, told as a factor from twentyfold growth on."""
    if before == after:
        return "±0%"
    if before <= 0 or after < 0:
        return ""
    change = 100 * (after / before - 1)
    if abs(change) < _ALMOST:
        return "≈0%"
    if change >= 1900:
        return f"×{significant(after / before)}"
    return minus(f"{change:+.1f}%") if change > -99.95 else minus(f"{change:+.2f}%")


def points(change: float) -> str:
    """A difference of percentages, in percentage points."""
    return "±0.00" if abs(change) < 0.005 else minus(f"{change:+.2f}")


def ratio(before: float | None, after: float | None) -> str:
    """How many times smaller (or larger) `after` is.

    >>> ratio(100.0, 25.0), ratio(10.0, 15.0), ratio(1.0, 1.0)
    ('4.0× smaller', '1.5× larger', 'unchanged')
    """
    if not before or not after or before < 0 or after < 0:
        return ""
    factor, word = (before / after, "smaller") if after <= before else (after / before, "larger")
    if factor < 1.005:
        return "unchanged"
    return f"{f'{factor:.2f}' if factor < 1.1 else f'{factor:.1f}' if factor < 100 else significant(factor)}× {word}"


def duration(seconds: float) -> str:
    """How long a step took.

    >>> duration(0.34), duration(75), duration(7322)
    ('0.3 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(text: str) -> str:
    """A recorded time for people; text that is no ISO 8601 time stays as it is.

    >>> moment("2026-11-21T09:14:07+00:00"), moment("yesterday")
    ('2026-11-21 09:14 UTC', 'yesterday')
    """
    try:
        when = datetime.fromisoformat(text)
        return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if when.tzinfo else when.strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return text


def plain(text: str, limit: int = 200) -> str:
    """Text from a file made safe for a line of output: no control or direction characters, no endless names."""
    kept = "".join(c if c.isprintable() or c == " " else " " for c in text if unicodedata.category(c) != "Cf")
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def join(items: Sequence[str], show: Callable[[str], str] = str) -> str:
    """`a`, `a and b`, `a, b and c`."""
    words = [show(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
