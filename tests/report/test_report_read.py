"""Run folders: whole, unfinished, damaged, hostile."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lilliput.core import CorruptFileError, Report
from lilliput.report import from_run, render

FILES = ("manifest.json", "metrics.jsonl", "report.json")


def test_reads_a_finished_run(make_run):
    view = from_run(make_run())
    assert [v.step for v in view.variants] == [0, 1, 2, 3, 4]
    assert view.original.metrics["params"] == 269_434
    assert view.final.label == "train at 4 bits"
    assert view.variants[1].entry.method == "prune.fpgm"
    assert view.original.entry is None
    assert view.before(view.variants[1]) is view.original
    assert view.sizes == {"train": 1077, "val": 360, "test": 360}
    assert view.seed == "0"
    assert view.environment["latency_threads"] == "1"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, "", "{", "[1", "\x00\xff", "null", "3", "[" * 100_000, '{"a": ' * 60_000])
def test_damage_is_reported_with_the_file_and_a_remedy(make_run, name, content):
    folder = make_run()
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content + "\n")
    with pytest.raises(CorruptFileError, match=name) as caught:
        from_run(folder)
    assert "run" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_bytes_that_are_no_text(make_run):
    folder = make_run()
    (folder / "report.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptFileError, match=r"report\.json"):
        from_run(folder)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(CorruptFileError, match="not a run folder"):
        from_run(tmp_path / "nothing")


def test_a_running_run_may_lack_files_and_end_in_mid_line(make_run):
    folder = make_run(status="running")
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text[:-40])
    (folder / "report.json").unlink()
    view = from_run(folder)
    assert [v.step for v in view.variants] == [0, 1, 2, 3]
    assert any("incomplete" in warning for warning in view.warnings)
    assert "has not finished" in render(view)
    (folder / "metrics.jsonl").unlink()
    assert from_run(folder).variants == ()
    assert "No variant has been measured" in render(from_run(folder))


def test_the_same_cut_in_a_finished_run_is_damage(make_run):
    folder = make_run()
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text[:-40])
    with pytest.raises(CorruptFileError, match=r"line 5 of .*metrics\.jsonl"):
        from_run(folder)


def test_a_cut_in_the_middle_is_damage_even_while_running(make_run):
    folder = make_run(status="running")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[1] = lines[1][:-9]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(CorruptFileError, match="line 2"):
        from_run(folder)


def test_a_step_measured_again_counts_once(make_run, variants):
    again = {**variants[2], "metrics": {"accuracy": 50.0}}
    view = from_run(make_run(variants=[*variants, again]))
    assert [v.step for v in view.variants] == [0, 1, 2, 3, 4]
    assert view.variants[2].metrics == {"accuracy": 50.0}


def test_impossible_figures_become_not_measured_and_are_named(make_run, variants):
    variants[1]["metrics"] |= {"accuracy": float("nan"), "latency": float("inf"), "macs": -5, "size": "many", "params": True, "val_accuracy": 100.5}
    view = from_run(make_run(variants=variants))
    assert set(view.variants[1].metrics) == {"latency_low", "latency_high", "peak_memory"}
    assert all(name in view.warnings[0] for name in ("val_accuracy", "latency", "macs", "size", "params"))
    assert "cannot be a measurement" in render(view)


@pytest.mark.parametrize("step", [None, -1, 1.5, True, "1"])
def test_a_step_without_a_number_is_damage(make_run, variants, step):
    variants[1]["step"] = step
    with pytest.raises(CorruptFileError, match="number of a step"):
        from_run(make_run(variants=variants))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4), max_leaves=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(["name", "created", "lilliput", "versions", "environment", "seed", "recipe_text", "data"]), value=JSON)
def test_any_json_in_the_manifest_renders(make_run, field, value):
    page = render(from_run(make_run(**{field: value})))
    page.encode("utf-8")
    assert page.count("<script") == 2


NUMBERS = st.floats() | st.integers(-10**400, 10**400) | st.none()
METRICS = st.dictionaries(st.sampled_from(["accuracy", "params", "macs", "size", "latency", "latency_low", "latency_high", "peak_memory"]), NUMBERS)
ROW = st.fixed_dictionaries({"layer": st.text(max_size=9)}, optional=dict.fromkeys(
    ("params", "macs", "channels_before", "channels_after", "sensitivity", "weight_sqnr_db", "saturation"), NUMBERS) | {"removed": JSON, "reason": JSON})


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(figures=st.lists(METRICS, max_size=5), rows=st.lists(ROW, max_size=6), promised=METRICS)
def test_any_figures_render(make_run, figures, rows, promised):
    folder = make_run(status="running", variants=[{"step": i, "label": f"v{i}", "metrics": m} for i, m in enumerate(figures)])
    (folder / "report.json").write_text(json.dumps([{"method": "m", "layers": rows, "promised": promised}]))
    page = render(from_run(folder))
    assert not any(bad in page for bad in (">nan", ">inf", '"nan', '"inf', "nan%", "inf%"))


def test_lone_surrogates_do_not_stop_the_file(make_run, variants):
    variants[0]["label"] = "\ud800"
    render(from_run(make_run(variants=variants, report=Report(), name="\udfff", recipe_text="\ud801"))).encode("utf-8")
