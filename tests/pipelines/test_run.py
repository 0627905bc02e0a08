"""Run folders: what was written is what is loaded; damage is named, never loaded."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lilliput
from lilliput.core import CorruptFileError, Entry, LilliputError, PreconditionError, Report, UnknownNameError
from lilliput.graph import saving, trace
from lilliput.pipelines.run import Run, Variant, load, sha256


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two variants, written by hand."""
    folder = tmp_path_factory.mktemp("master") / "two"
    (folder / "models").mkdir(parents=True)
    made = Run(folder)
    rows = []
    for step, (method, width) in enumerate([("original", 4), ("prune.fpgm", 2)]):
        torch.manual_seed(step)
        model = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))
        file, onnx = f"models/{step}-{method}.pt2", f"models/{step}-{method}.onnx"
        saving.save(trace(model, torch.zeros(2, 3)), folder / file)
        (folder / onnx).write_bytes(b"onnx" * (step + 1))
        rows.append(Variant(step=step, method=method, label=method, metrics={"accuracy": 90.0 - step}, model=file, onnx=onnx,
                            sha256={"model": str(sha256(folder / file)), "onnx": str(sha256(folder / onnx))}))
    made.write_manifest({"name": "two", "status": "done", "recipe": {"model": "m", "data": "d", "steps": ["prune.fpgm"]}})
    made.write(tuple(rows), Report((Entry(method="prune.fpgm"),)))
    return made


@pytest.fixture
def run(master: Run, tmp_path: Path) -> Run:
    """A copy of it to spoil."""
    return Run(Path(shutil.copytree(master.folder, tmp_path / "two")))


def test_reads_what_was_written(run: Run) -> None:
    assert [row.label for row in run.variants()] == ["original", "prune.fpgm"]
    assert all(run.verifies(row) for row in run.variants())
    assert run.report().entries[0].method == "prune.fpgm"
    assert run.done


@pytest.mark.parametrize(("which", "width"), [(-1, 2), (0, 4), (1, 2), ("original", 4), ("prune.fpgm", 2)])
def test_loads_a_variant(run: Run, which: int | str, width: int) -> None:
    model = lilliput.load(str(run.folder), which)
    assert model.get_parameter("0.weight").shape == (width, 3)
    assert model(torch.zeros(5, 3)).shape == (5, 2)


def test_unknown_variants(run: Run) -> None:
    with pytest.raises(PreconditionError, match="has variants 0 to 1, not 7"):
        run.load(7)
    with pytest.raises(UnknownNameError, match="did you mean original"):
        run.load("orignal")


@pytest.mark.parametrize(("name", "content"), [
    ("manifest.json", '{"status": "do'), ("manifest.json", "[]"), ("manifest.json", '{"status": "odd", "recipe": {}}'),
    ("manifest.json", "[" * 100000), ("metrics.jsonl", '{"step": 0'), ("metrics.jsonl", "[]\n"), ("metrics.jsonl", '{"step": 0}\n'),
    ("metrics.jsonl", "\xff\n"), ("report.json", "{"), ("report.json", '[{"nope": 1}]'), ("report.json", "3"),
])
def test_damage_is_named(run: Run, name: str, content: str) -> None:
    (run.folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(CorruptFileError, match=name):
        (run.manifest, run.variants(), run.report())


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.pt2", "models/../../x.pt2"])
def test_a_run_points_to_nothing_outside_itself(run: Run, path: str) -> None:
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    lines[1]["model"] = path
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(CorruptFileError, match="not a path inside the folder"):
        run.load()


def test_a_changed_or_missing_model_is_not_loaded(run: Run) -> None:
    path = run.folder / "models" / "1-prune.fpgm.pt2"
    data = path.read_bytes()
    for damaged in (data[:-10], data[:100] + bytes([data[100] ^ 1]) + data[101:], b""):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match=r"1-prune\.fpgm\.pt2 is missing or not the file"):
            load(run)
    path.unlink()
    with pytest.raises(CorruptFileError, match="replay the run"):
        load(run.folder)


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="is no run folder"):
        Run(tmp_path).manifest  # noqa: B018
    with pytest.raises(PreconditionError, match="is no run folder"):
        load(tmp_path / "gone")


def test_two_writers_do_not_meet(run: Run) -> None:
    with run.lock(), pytest.raises(PreconditionError, match="another process is writing"), run.lock():
        pass
    with run.lock():
        pass


def test_the_lock_dies_with_its_process(run: Run) -> None:
    code = "import sys, time; from pathlib import Path; from lilliput.pipelines.run import Run\n" \
           "with Run(Path(sys.argv[1])).lock(): print('locked', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, str(run.folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        with pytest.raises(PreconditionError), run.lock():
            pass
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    with run.lock():
        pass


def test_a_full_disk_says_what_is_saved(run: Run) -> None:
    said = r"is full; saved: original, prune\.fpgm\. Free some space, then resume: lilliput compress"
    with pytest.raises(LilliputError, match=said), run.saving():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), run.saving():
        raise PermissionError(errno.EACCES, "no")
