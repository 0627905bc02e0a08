"""What the page says and how it says it, without a browser."""

from __future__ import annotations

import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lilliput.core import Entry, Report
from lilliput.report import findings, from_run, layers, plot, render, table, write
from lilliput.report.findings import Level, Speed, promises, speed, speed_sentence
from lilliput.report.findings import findings as find
from lilliput.report.model import Variant

TEMPLATES = Path(render.__code__.co_filename).parent / "templates"


def text_of(page: str) -> str:
    page = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def variant(step: int = 0, **metrics: float) -> Variant:
    return Variant(step=step, label=f"v{step}", method="m", metrics=metrics)


def test_write_is_one_file_beside_the_run_or_where_told(make_run, tmp_path):
    folder = make_run()
    assert write(folder) == folder / "report.html"
    assert write(folder, tmp_path / "deep" / "r.html") == tmp_path / "deep" / "r.html"
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "metrics.jsonl", "report.html", "report.json"]
    assert (folder / "report.html").stat().st_size < 200_000


def test_a_failing_write_leaves_the_old_report(make_run, monkeypatch):
    folder = make_run()
    write(folder)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    old = (folder / "report.html").read_bytes()
    with pytest.raises(OSError, match="disk full"):
        write(folder)
    assert (folder / "report.html").read_bytes() == old
    assert not list(folder.glob(".report*"))


def test_the_page_refers_to_nothing_outside_itself(make_run):
    page = render(from_run(make_run()))
    assert not re.findall(r"https?:|//[a-z0-9-]+\.[a-z]", page)
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", page)
    assert not re.findall(r"@import|url\(", page)


def test_every_figure_and_every_section_is_there(make_run):
    text = text_of(render(from_run(make_run())))
    for piece in ("digits-resnet20-half", "98.06%", "96.94%", "−1.12", "269 k", "20.3 M", "−50.2%", "85.0 KiB", "158 µs", "152 to 167 µs",
                  "≤ 20.4 M", "kept", "missed", "Channels were rounded to a multiple of 4.", "temperature: 4.0", "2.13.0+cpu",
                  "Intel Xeon Platinum 8481C", "9f2c9f2c", "1,077 samples", "stages.1.0.conv1", "took 1 min 34 s", "0.1.0",
                  "2026-11-21 09:14 UTC", "2.70GHz, 1 thread", "64 KiB"):
        assert piece in text, piece


def test_tables_have_headers_for_every_row_and_column(make_run):
    page = render(from_run(make_run()))
    for body in re.findall(r"<table.*?</table>", page, flags=re.S):
        head, rows = body.split("<tbody", 1)
        columns = len(re.findall(r'<th [^>]*scope="col"', head))
        for row in re.findall(r"<tr.*?</tr>", rows, flags=re.S):
            assert len(re.findall(r'<th [^>]*scope="row"', row)) == 1
            assert len(re.findall(r"<t[hd]\b", row)) == columns


class Balance(HTMLParser):
    """Elements that are opened are closed, in order."""

    VOID = frozenset({"meta", "link", "input", "img", "br", "line", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["ordinary", "hostile"])
def test_markup_is_balanced_and_ids_are_unique(make_run, hostile, name):
    parser = Balance()
    parser.feed(render(from_run(make_run(**(hostile if name == "hostile" else {})))))
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))


def test_hostile_text_is_escaped_and_the_data_survive_whole(make_run, hostile):
    page = render(from_run(make_run(**hostile)))
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    data = json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, flags=re.S)[1])
    assert data["name"] == hostile["name"]
    assert data["variants"][1]["label"] == hostile["variants"][1]["label"]


def test_fewer_macs_without_less_latency_is_said_plainly():
    before = variant(0, macs=100.0, latency=1.0, latency_low=0.95, latency_high=1.05)
    same = variant(1, macs=50.0, latency=0.98, latency_low=0.94, latency_high=1.02)
    slower = variant(1, macs=50.0, latency=1.2, latency_low=1.1, latency_high=1.3)
    faster = variant(1, macs=50.0, latency=0.9, latency_low=0.88, latency_high=0.92)
    assert (speed(before, same), speed(before, slower), speed(before, faster)) == (Speed.SAME, Speed.SLOWER, Speed.FASTER)
    assert speed_sentence(before, same).text == \
        "MACs fell by 50% but latency did not: 1,000 ms before, 980 ms after (the intervals overlap)."
    assert speed_sentence(before, same).level is Level.WARNING
    assert "MACs fell by 50% but latency rose" in speed_sentence(before, slower).text
    assert "latency only by 10.0%" in speed_sentence(before, faster).text
    assert speed_sentence(before, faster).level is Level.NOTE
    assert "no speed-up is claimed" in speed_sentence(before, variant(1, macs=50.0)).text
    assert speed_sentence(before, variant(1, macs=100.0, latency=5.0)) is None


@pytest.mark.parametrize(("key", "promised", "measured", "kept"), [
    ("macs", 100.0, 100.0, True), ("macs", 100.0, 100.1, False), ("accuracy", 97.0, 97.0, True), ("accuracy", 97.0, 96.0, False),
    ("max_drop", 1.0, 0.0, True), ("max_drop", 1.0, 1.5, False), ("latency", 1.0, None, None),
])
def test_promises_are_judged_in_their_direction(key, promised, measured, kept):
    entry = Entry(method="m", promised={key: promised}, measured={} if measured is None else {key: measured})
    assert promises(Variant(step=1, label="v", method="m", entry=entry))[0].kept is kept


def test_the_worst_layers_are_named_in_words(make_run):
    texts = [finding.text for finding in find(from_run(make_run()))]
    assert any("stages.1.0.conv1 has the worst activation error: SQNR 14.3 dB" in text and "Step 3" in text for text in texts)
    assert any("stem.conv is the most sensitive layer: 3.50" in text for text in texts)
    assert any("has the worst weight error" in text and "Step 4" in text for text in texts)
    assert any("stages.1.0.conv1 saturates most: 4.1%" in text for text in texts)


def test_error_share_of_ten_decibel_is_ten_percent(make_run):
    rows = ({"layer": "a", "weight_sqnr_db": 10.0}, {"layer": "b", "weight_sqnr_db": 30.0})
    view = from_run(make_run(report=Report((Entry(method="q", layers=rows),))))
    assert "the error has 10% of the signal's power; the median layer has 20.0 dB" in layers.worst_layers(view)[0].sentence()


def test_layers_with_sparsity_or_channels_alone_are_shown(make_run):
    rows = ({"layer": "conv", "channels_before": 8, "channels_after": 4}, {"layer": "fc", "sparsity": 0.9})
    text = text_of(render(from_run(make_run(report=Report((Entry(method="p", layers=rows[:1]),))))))
    assert "conv 8 → 4" in text
    text = text_of(render(from_run(make_run(report=Report((Entry(method="p", layers=rows),))))))
    assert "Sparsity" in text
    assert "90%" in text


def test_a_step_says_which_channels_went_and_why(make_run):
    rows = ({"layer": "conv", "channels_before": 8, "channels_after": 5, "removed": "0, 3-4", "reason": "<b>0.2</b> at most; 0.7 stays"},
            {"layer": "whole", "channels_before": 8, "channels_after": 8, "removed": "", "reason": ""})
    page = render(from_run(make_run(report=Report((Entry(method="p", layers=rows),)))))
    assert "conv 8 → 5 0, 3-4 <b>0.2</b> at most; 0.7 stays" in text_of(page)
    assert "<b>0.2</b>" not in page
    assert page.count('class="gone"') == 1
    assert len(layers.gone(from_run(make_run(report=Report((Entry(method="p", layers=rows),)))).variants[1])) == 1


def test_layer_columns_come_from_the_last_step_that_reported_them(make_run, report):
    merged = layers.layer_table(from_run(make_run()))
    by_key = {column.key: column for column in merged.columns}
    assert len(merged.names) == 20
    assert by_key["sensitivity"].source.startswith("step 1")
    assert by_key["weight_sqnr_db"].source.startswith("step 4")
    worst = by_key["activation_sqnr_db"]
    assert merged.names[worst.worst] == "stages.1.0.conv1"
    assert by_key["params"].worst is None
    assert merged.channels[0] == "16"
    assert "→" in merged.channels[1]


def test_changes_within_noise_are_neither_good_nor_bad(make_run):
    rows = table.lines(from_run(make_run()))
    tones = {cell.key: cell.tone for cell in rows[1].cells}
    assert tones == {"accuracy": "bad", "params": "good", "macs": "good", "size": "good", "latency": "even", "peak_memory": "good"}
    assert rows[2].cells[0].tone == "even"  # one sample of 360
    assert findings.sampling(from_run(make_run())).startswith("With 360 test samples, one sample is 0.278 points")


def test_summary_claims_only_what_was_measured(make_run, variants):
    assert table.summary(from_run(make_run())) == "File 12.6× smaller, 2.6× faster, 1.12 points of accuracy lost, against the original."
    assert "latency not measurably different" in table.summary(from_run(make_run(variants=variants[:2])))
    assert table.summary(from_run(make_run(variants=variants[:1]))) == "No step has been measured yet."
    for row in variants:
        row["metrics"].pop("latency")
    assert "faster" not in table.summary(from_run(make_run(variants=variants)))


def test_plot_places_points_by_value_and_inside(make_run):
    panels = plot.panels(from_run(make_run()))
    assert [panel.key for panel in panels] == ["macs", "params", "size", "latency"]
    for panel in panels:
        assert all(0 <= point.x <= 100 and 0 <= point.y <= 100 for point in panel.points)
        assert [point.step for point in panel.points] == [0, 1, 2, 3, 4]
        assert min(panel.points, key=lambda point: point.y).step == 0  # the most accurate is highest
    macs, latency = panels[0], panels[3]
    assert macs.points[1].x / macs.points[0].x == pytest.approx(20_307_456 / 40_812_032)
    assert latency.points[0].low < latency.points[0].x < latency.points[0].high
    assert [limit.text for limit in macs.limits] == ["step 1: ≤ 20.4 M"]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 43e6), (94.7, 98.5), (-3, 40), (0, 1e-6)])
def test_ticks_are_few_even_and_inside(low, high):
    found = plot.ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 <= t <= high * (1 + 1e-9) for t in found)


def luminance(colour: str) -> float:
    parts = [int(colour[i:i + 2], 16) / 255 for i in ((1, 3, 5) if len(colour) == 7 else ())] or [int(c, 16) / 15 for c in colour[1:]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_text_colour_has_contrast_on_every_ground():
    style = (TEMPLATES / "style.css").read_text()
    for number, block in enumerate(re.findall(r":root \{(.*?)\}", style, flags=re.S)):
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", block))
        for ink in ("ink", "muted", "accent", "good", "bad"):
            for ground in ("page", "surface", "sunk"):
                dark, light = sorted((luminance(colours[ink]), luminance(colours[ground])))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (number, ink, ground)
        for ink in ("ink", "warn-ink"):
            dark, light = sorted((luminance(colours[ink]), luminance(colours["warn-bg"])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (number, ink)
