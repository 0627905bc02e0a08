"""Arenas of the MLPerf Tiny models, memory maps, and plans as C."""

import subprocess
from xml.etree import ElementTree

import pytest
from planner_nets import autoencoder, ds_cnn, mobilenet_v1, mobilenet_v2, resnet8

from lilliput.deploy.c.emit import emit
from lilliput.deploy.c.operators import InPlaceDepthwise, InPlacePointwise
from lilliput.deploy.c.plan import picture, plan, table


@pytest.mark.parametrize(("made", "apart", "shared"), [
    (resnet8(), 3 * 16_384, 33_400), (ds_cnn(), 16_000, 8_200), (autoencoder(), 768, 768), (mobilenet_v1(), 55_296, 38_000)],
    ids=["image classification", "keyword spotting", "anomaly detection", "visual wake words"])
def test_arenas_of_mlperf_tiny(made, apart, shared):
    found = plan(made, overlap=False)
    assert found.arena == apart
    assert found.optimal
    found = plan(made)
    assert found.arena <= shared
    assert found.optimal


def test_convolutions_run_in_place_only_where_it_lowers_the_arena():
    assert {type(s) for s in plan(ds_cnn()).program.steps} > {InPlaceDepthwise, InPlacePointwise}
    assert not any(s.scratch for s in plan(ds_cnn(), overlap=False).program.steps)
    assert not any(s.scratch for s in plan(mobilenet_v1()).program.steps)


def test_as_few_in_place_as_memory_asks_for():
    counts = [sum(s.scratch is not None for s in plan(ds_cnn(), ram=ram).program.steps) for ram in (20_000, 11_000, 9_000, 8_200)]
    assert counts[:2] == [0, 0]
    assert 0 < counts[2] < counts[3] <= 8


def test_more_pixels_at_once_keep_inputs_further_behind():
    arenas = [plan(ds_cnn(), pixels_at_once=n).arena for n in (1, 2, 4)]
    # In place 8,000 bytes and two pixels of 64; the first convolution has 7,556 bytes of lag, 64 more for every further pixel, and 490 of input.
    assert arenas == [8128, 8128, 8240]


def test_the_table_shows_steps_buffers_and_the_peak():
    text = table(plan(resnet8(), overlap=False))
    assert text.startswith("Arena 49,152 bytes, shown to be the least possible.\n")
    assert "49,152  Add               * add3" in text
    assert len(text.splitlines()) == 5 + 15 + 16


def test_the_picture_has_a_rectangle_for_each_buffer():
    found = plan(mobilenet_v2(size=48, width=0.35, depth=3), patches=True)
    root = ElementTree.fromstring(picture(found))
    titles = [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == len(found.offsets)
    assert any("input: " in title for title in titles)


@pytest.mark.parametrize(("made", "options"), [
    (ds_cnn(), {}), (mobilenet_v2(size=32, width=0.35, depth=4), {}), (mobilenet_v2(size=32, width=0.35, depth=3), {"patches": True})],
    ids=["in place", "overlapping", "in patches"])
def test_c_code_of_a_plan_gives_the_references_codes(tmp_path, made, options):
    found = plan(made, **options)
    assert (found.patches is not None) == bool(options)
    files = emit(found, tmp_path)
    assert {"model_memory.txt", "model_memory.svg"} <= set(files)
    run = subprocess.run(["make", "-s", "-C", str(tmp_path), "test", "CFLAGS=-O1 -fsanitize=address,undefined -fno-sanitize-recover"],
                         capture_output=True, text=True)
    assert run.stdout == "2 samples, 0 wrong codes\n", run.stdout + run.stderr


def test_patches_share_weights_and_structures(tmp_path):
    made = mobilenet_v2(size=32, width=0.35, depth=3)
    found = plan(made, patches=True)
    emit(plan(made, patches=False), tmp_path / "whole")
    emit(found, tmp_path / "patches")
    whole, patches = ((tmp_path / name / "model.c").read_text() for name in ("whole", "patches"))
    assert whole.count("static const int8_t s") == patches.count("static const int8_t s")
    assert patches.count("static const lp_") < patches.count("    lp_") == sum(len(s.calls()) for s in found.program.steps)
