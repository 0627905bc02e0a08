"""Render a run as one HTML file: no network, no dependency, safe with hostile names."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lilliput.core.atomic import write_text
from lilliput.report import findings, format, kernels, layers, plot, table
from lilliput.report.model import RunView
from lilliput.report.read import from_run

_TEMPLATES = Path(__file__).parent / "templates"


def render(view: RunView) -> str:
    """The page as text.

    Every string of the run is escaped; besides, the page's content policy forbids all connections and every
    script but its own, whose SHA-256 it names.
    """
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    merged = layers.layer_table(view)
    return _environment().get_template("report.html.j2").render(
        view=view, style=Markup(style), script=Markup(script), digest=_digest(script),
        summary=table.summary(view), sampling=findings.sampling(view), findings=findings.findings(view),
        tiles=_tiles(view), keys=table.columns(view), lines=table.lines(view),
        panels=plot.panels(view), steps=_steps(view), layers=merged, machine=kernels.machine(view.kernels),
        charts=[(column, *plot.bars(merged.names, column)) for column in merged.columns],
        recipe=view.recipe_text or "(no recipe was recorded)", data=embed(_figures(view)),
    )


def write(run_path: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Read a run folder and write its report atomically, as `report.html` inside it by default; returns the path.

    Raises `CorruptFileError` where the folder cannot be read.
    """
    target = Path(out) if out is not None else Path(run_path) / "report.html"
    write_text(target, render(from_run(run_path)))
    return target


def embed(value: object) -> Markup:
    """JSON that cannot end the script element it stands in, nor begin a comment in it.

    >>> print(embed({"name": "</script><!--"}))
    {"name": "\\u003c/script\\u003e\\u003c!--"}
    """
    text = json.dumps(value, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["plain"] = format.plain
    environment.filters["duration"] = format.duration
    environment.filters["moment"] = format.moment
    environment.globals["quantity"] = format.quantity
    return environment


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _tiles(view: RunView) -> list[dict[str, str]]:
    first, last = view.original, view.final
    if first is None:
        return []
    tiles = []
    for key in table.COLUMNS:
        old, new = first.metrics.get(key), last.metrics.get(key) if last else None
        if old is None and new is None:
            continue
        q = format.quantity(key)
        unit = q.scale([old, new])
        change, tone = table.compare(view, key, first, last) if last else ("", table.Tone.EVEN)
        words = f"{change} points" if q.points and change else format.ratio(old, new)
        if key == "latency" and last and findings.speed(first, last) is findings.Speed.SAME:
            words = "no measurable change"
        elif key == "latency":
            words = words.replace("smaller", "faster").replace("larger", "slower")
        tiles.append({"name": q.name, "before": q.show(old, unit) if last else "",
                      "after": q.show(new, unit) if last else q.show(old, unit), "words": words, "tone": tone.value})
    return tiles


def _steps(view: RunView) -> list[dict[str, Any]]:
    steps = []
    for variant in view.variants:
        before = view.before(variant)
        if before is None or variant.step == 0:
            continue
        said = findings.speed_sentence(before, variant)
        worst = [w.sentence() for w in layers.worst_layers(view) if w.variant is variant]
        steps.append({"variant": variant, "before": before, "effects": table.effects(view, variant), "said": said, "promises": findings.promises(variant),
                      "worst": worst, "gone": layers.gone(variant), "entry": variant.entry})
    return steps


def _figures(view: RunView) -> dict[str, Any]:
    """What a program may want from the page: the figures in base units."""
    return {"name": view.name, "status": view.status, "seed": view.seed, "data": {"name": view.data_name, "digest": view.data_digest},
            "variants": [{"step": v.step, "label": v.label, "method": v.method, "metrics": v.metrics,
                          "layers": [dict(row) for row in asdict(v.entry)["layers"]] if v.entry else []} for v in view.variants]}
