"""What the figures say, in words: speed-ups that did not come, promises not kept, layers that suffer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from lilliput.report.format import plain, quantity, significant
from lilliput.report.layers import worst_of_all
from lilliput.report.model import RunView, Variant

_NOISE = 0.02
_SLACK = 1e-9
_AT_LEAST = ("accuracy", "val_accuracy")


class Level(StrEnum):
    """How much a finding should worry the reader."""

    WARNING = "warning"
    NOTE = "note"


class Speed(StrEnum):
    """What two measured latencies allow one to say."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"


@dataclass(frozen=True)
class Finding:
    """One sentence about the run."""

    level: Level
    text: str


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A limit that a step was given, beside what was measured; `kept` is None where nothing was."""

    key: str
    promised: float
    measured: float | None
    kept: bool | None

    @property
    def sign(self) -> str:
        """The side on which the measurement should lie."""
        return "≥" if self.key in _AT_LEAST else "≤"

    def shown(self) -> tuple[str, str]:
        """Both figures, in one unit."""
        unit = quantity(self.key).scale([self.promised, self.measured])
        return f"{self.sign} {quantity(self.key).show(self.promised, unit)}", quantity(self.key).show(self.measured, unit)


def speed(before: Variant, after: Variant) -> Speed | None:
    """Compare two latencies: by their intervals where both have one, else beyond 2%; None if one is unmeasured."""
    old, new = before.metrics.get("latency"), after.metrics.get("latency")
    if old is None or new is None:
        return None
    old_low, old_high = before.interval() or (old * (1 - _NOISE / 2), old * (1 + _NOISE / 2))
    new_low, new_high = after.interval() or (new * (1 - _NOISE / 2), new * (1 + _NOISE / 2))
    if new_high < old_low:
        return Speed.FASTER
    return Speed.SLOWER if new_low > old_high else Speed.SAME


def promises(variant: Variant) -> tuple[Promise, ...]:
    """What the variant's step was told to reach, in the order in which it was promised."""
    if variant.entry is None:
        return ()
    found: list[Promise] = []
    for key, promised in variant.entry.promised.items():
        measured = variant.entry.measured.get(key, variant.metrics.get(key))
        slack = abs(promised) * _SLACK
        kept = None if measured is None else measured >= promised - slack if key in _AT_LEAST else measured <= promised + slack
        found.append(Promise(key=key, promised=promised, measured=measured, kept=kept))
    return tuple(found)


def speed_sentence(before: Variant, after: Variant) -> Finding | None:
    """What became of the latency when MACs, parameters or file size fell by 2% or more; None where nothing fell."""
    old, new = before.metrics, after.metrics
    fallen = {key: 1 - new[key] / old[key] for key in ("macs", "params", "size")
              if key in new and old.get(key, 0) > 0 and new[key] < (1 - _NOISE) * old[key]}
    if not fallen:
        return None
    key = next(iter(fallen))
    begin = f"{quantity(key).name} fell by {significant(100 * fallen[key])}%"
    verdict = speed(before, after)
    if verdict is None:
        return Finding(Level.NOTE, f"{begin}; latency was not measured, so no speed-up is claimed.")
    unit = quantity("latency").scale([old["latency"], new["latency"]])
    was, now = (quantity("latency").show(m["latency"], unit) for m in (old, new))
    if verdict is Speed.SAME:
        why = "the intervals overlap" if before.interval() and after.interval() else "within 2%"
        return Finding(Level.WARNING, f"{begin} but latency did not: {was} before, {now} after ({why}).")
    if verdict is Speed.SLOWER:
        return Finding(Level.WARNING, f"{begin} but latency rose: {was} before, {now} after.")
    gained = 1 - new["latency"] / old["latency"]
    only = " only" if gained < fallen[key] / 2 else ""
    return Finding(Level.NOTE, f"{begin}, latency{only} by {significant(100 * gained)}%: {was} before, {now} after.")


def sampling(view: RunView) -> str:
    """How far chance alone moves the accuracy: `1.96 sqrt(p (1 - p) / n)` on the test split; empty if unknown."""
    count = view.sizes.get("test", 0)
    accuracy = view.original.metrics.get("accuracy") if view.original else None
    if count <= 0 or accuracy is None or not 0 <= accuracy <= 100:
        return ""
    share = accuracy / 100
    half = 196 * math.sqrt(share * (1 - share) / count)
    return (f"With {count:,} test samples, one sample is {significant(100 / count)} points, and the choice of samples alone "
            f"moves an accuracy by ±{significant(half)} points (95%).")


def findings(view: RunView) -> tuple[Finding, ...]:
    """Everything a reader should know before trusting the table, warnings first."""
    found = [Finding(Level.WARNING, text) for text in view.warnings]
    if not view.finished:
        done = view.final.step if view.final else 0
        found.append(Finding(Level.WARNING, f"This run has not finished: the report shows the {done} step{'s' * (done != 1)} "
                                            "that did. Resume it, then write the report again."))
    if view.variants and view.original is None:
        found.append(Finding(Level.WARNING, "The original was not measured, so no change against it can be shown."))
    for variant in view.variants:
        found.extend(_of_step(view, variant))
    found.extend(Finding(Level.NOTE, f"{_named(w.variant)}: {w.sentence()}") for w in worst_of_all(view))
    return tuple(sorted(found, key=lambda finding: finding.level is not Level.WARNING))


def _of_step(view: RunView, variant: Variant) -> list[Finding]:
    found: list[Finding] = []
    before = view.before(variant)
    said = speed_sentence(before, variant) if before else None
    if said is not None:
        found.append(Finding(said.level, f"{_named(variant)}: {said.text}"))
    for promise in promises(variant):
        if promise.kept is False:
            found.append(Finding(Level.WARNING, f"{_named(variant)}: {_broken(promise)}"))
    return found


def _broken(promise: Promise) -> str:
    limit, measured = promise.shown()
    if promise.key == "max_drop":
        return f"it was allowed to lose {limit.removeprefix('≤ ')} of validation accuracy but lost {measured.removesuffix(' points')}."
    name = quantity(promise.key).name
    return f"it was promised {name if name == 'MACs' else name[:1].lower() + name[1:]} {limit} but measured {measured}."


def _named(variant: Variant) -> str:
    return f"Step {variant.step}, {plain(variant.label, 60)}"
