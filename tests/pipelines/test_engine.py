"""Whole runs: complete, resumed after a kill anywhere, replayed, loaded without the class, refused before training."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lilliput.core import BudgetError, DataError, LilliputError, PreconditionError, RecipeError
from lilliput.data import Data
from lilliput.data import load as load_data
from lilliput.pipelines import baseline, engine, measure
from lilliput.pipelines.recipe import Recipe
from lilliput.pipelines.run import Run, load
from lilliput.train import evaluate

Build = Callable[..., Recipe]
METHODS = ["original", "prune.l1_norm", "distill.kd", "quantize.minmax"]
TIMES = {"latency", "latency_low", "latency_high"}


class Killed(BaseException):
    """Stands for a process that ends here: nothing catches it."""


def figures(run: Run) -> list[dict[str, float]]:
    """All that must come out the same: everything but times."""
    return [{k: v for k, v in row.metrics.items() if k not in TIMES} for row in run.variants()]


def run_in(folder: Path) -> Run:
    from tinyrun import NETS, TEXT

    (folder / "tinynets.py").write_text(NETS)
    before = Path.cwd()
    os.chdir(folder)
    try:
        return engine.compress(Recipe.parse(TEXT), out=folder / "runs" / "tiny")
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One uninterrupted run, for all tests that only look."""
    return run_in(tmp_path_factory.mktemp("finished"))


def without_onnx(patch: pytest.MonkeyPatch) -> None:
    """Leave the export out, which takes a second for each variant and is not what resuming is about."""

    def export(model: nn.Module, path: Path, data: Data) -> Path:
        path.write_text(repr([float(p.detach().sum()) for p in model.parameters()]))
        return path

    def figures(model: nn.Module, file: Path, data: Data) -> dict[str, float]:
        return {**measure.structure(model, data), "size": float(file.stat().st_size), "val_accuracy": evaluate(model, data.val)}

    patch.setattr(measure, "export", export)
    patch.setattr(measure, "figures", figures)
    patch.setattr(measure, "times", lambda files, data: {name: dict.fromkeys(TIMES, 1.0) for name in files})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_onnx(monkeypatch)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One uninterrupted quick run."""
    with pytest.MonkeyPatch.context() as patch:
        without_onnx(patch)
        return run_in(tmp_path_factory.mktemp("reference"))


def test_a_finished_run(finished: Run) -> None:
    rows = finished.variants()
    assert [row.method for row in rows] == METHODS
    assert finished.done
    assert all(finished.verifies(row) for row in rows)
    assert [entry.method for entry in finished.report().entries] == METHODS[1:]
    for row in rows:
        assert set(row.metrics) == {"accuracy", "val_accuracy", "params", "macs", "size", "peak_memory", *TIMES}
        assert row.metrics["latency_low"] <= row.metrics["latency"] <= row.metrics["latency_high"]
        assert row.metrics["size"] == finished.file(row, "onnx").stat().st_size
    assert rows[1].metrics["macs"] <= 0.5 * rows[0].metrics["macs"]
    assert b"QuantizeLinear" in finished.file(rows[3], "onnx").read_bytes()
    assert rows[0].metrics["val_accuracy"] > 15
    last = finished.report().entries[-1]
    assert last.promised["macs"] == pytest.approx(0.55 * rows[0].metrics["macs"])
    assert last.measured["max_drop"] == pytest.approx(rows[0].metrics["val_accuracy"] - rows[3].metrics["val_accuracy"])
    machine = json.loads((finished.folder / "kernels.json").read_text())
    assert machine["label"] == rows[3].label
    assert "QLinearConv" in {kernel["op"] for kernel in machine["kernels"]}
    assert machine["scaling"][0]["threads"] == 1
    manifest = finished.manifest
    assert manifest["data"]["digest"] == load_data("digits").digest
    assert manifest["seed"] == 1
    assert manifest["versions"]["torch"] == torch.__version__
    assert Recipe.parse(manifest["recipe_text"]).digest == Recipe.of(manifest["recipe"]).digest


def test_the_test_split_is_measured_once_for_each_variant(here: Path, tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = measure.runtime.Session.evaluate

    def counted(self: object, split: object, **options: int) -> float:
        seen.append(len(split))  # type: ignore[arg-type]
        return real(self, split, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(measure.runtime.Session, "evaluate", counted)
    engine.compress(tiny(("  - distill.kd: {temperature: 4.0, epochs: 1}\n  - quantize.minmax\n", "")))
    data = load_data("digits")
    assert seen.count(len(data.test)) == 2
    assert seen.count(len(data.val)) == 2


def test_a_quantization_that_hurts_is_explained(here: Path, tiny: Build) -> None:
    steps = "  - prune.l1_norm: {macs: 50%}\n  - distill.kd: {temperature: 4.0, epochs: 1}\n  - quantize.minmax\n"
    run = engine.compress(tiny((steps, "  - quantize.minmax: {weights: 2, activations: 3}\n"), ("{macs: 55%, max_drop: 50}", "{max_drop: 90}")))
    before, after = (row.metrics["val_accuracy"] for row in run.variants())
    assert before - after >= 0.5
    entry = run.report().entries[0]
    assert sum("noise_share" in row for row in entry.layers) >= 3
    assert any(note.startswith("leaving ") for note in entry.notes)


@pytest.mark.parametrize("which", range(4))
def test_loads_without_the_class(finished: Run, which: int) -> None:
    x = load_data("digits").example(5)
    assert "tinynets" not in sys.path
    model = load(finished, which)
    assert not model.training
    assert model(x).shape == (5, 10)


def test_loads_in_a_fresh_process(finished: Run, tmp_path: Path) -> None:
    code = "import sys, torch, lilliput; m = lilliput.load(sys.argv[1]); print(m(torch.zeros(3, 1, 8, 8)).shape); " \
           "assert 'tinynets' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code, str(finished.folder)], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "[3, 10]" in out.stdout


def test_replay_gives_the_same_figures(finished: Run, here: Path) -> None:
    again = engine.replay(finished, out=here / "again")
    assert again.folder != finished.folder
    assert figures(again) == figures(finished)
    assert [row.sha256["onnx"] for row in again.variants()] == [row.sha256["onnx"] for row in finished.variants()]


@pytest.mark.parametrize("done", range(5))
def test_resumes_after_any_step(done: int, reference: Run, quick: None, here: Path) -> None:
    """The folder as a kill leaves it right before step `done` counts: its files and its report are there, its line is not."""
    run = Run(Path(shutil.copytree(reference.folder, here / "tiny")))
    run.write_manifest({**run.manifest, "status": "running"})
    lines = (run.folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.folder / "metrics.jsonl").write_text("".join(lines[:done]))
    (run.folder / "models" / ".1-prune.l1_norm.pt2.half").write_bytes(b"half a file")
    for row in reference.variants()[done + 1 :]:
        run.file(row, "model").unlink()
        run.file(row, "onnx").unlink()
    said: list[str] = []
    resumed = engine.resume("tiny", progress=said.append)
    assert resumed.done
    assert figures(resumed) == figures(reference)
    assert [entry.method for entry in resumed.report().entries] == METHODS[1:]
    assert sum(line[1:].startswith("/3 ") for line in said) == min(4 - done, 3)
    assert list((here / "tiny" / "models").glob(".*")) == []


@pytest.mark.parametrize("killed_at", ["prune.l1_norm", "timing"])
def test_resumes_after_a_kill(killed_at: str, reference: Run, quick: None, here: Path, tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise Killed

    real = Run.write
    with monkeypatch.context() as patch:
        patch.setattr(*((measure, "times", dies) if killed_at == "timing" else
                        (Run, "write", lambda self, rows, report: dies() if rows[-1].method == killed_at else real(self, rows, report))))
        with pytest.raises(Killed):
            engine.compress(tiny(), out="tiny")
    run = Run(Path("tiny"))
    assert not run.done
    assert [row.method for row in run.variants()] == (METHODS if killed_at == "timing" else METHODS[:1])
    resumed = engine.resume("tiny")
    assert resumed.done
    assert figures(resumed) == figures(reference)


def test_training_the_original_goes_on_from_its_checkpoint(reference: Run, quick: None, here: Path, tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = baseline.fit, []

    def dies(model: object, data: object, config: object, *, checkpoint: Path) -> None:
        real(model, data, config, checkpoint=checkpoint)  # type: ignore[arg-type]
        seen.append(checkpoint.exists())
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(baseline, "fit", dies)
        with pytest.raises(Killed):
            engine.compress(tiny(), out="tiny")
    assert seen == [True]
    assert figures(engine.compress(tiny(), out="tiny")) == figures(reference)


def test_a_killed_process_leaves_a_run_that_resumes(finished: Run, here: Path) -> None:
    from tinyrun import TEXT

    (here / "tiny.yaml").write_text(TEXT)
    code = "import os, signal, sys; sys.path.insert(0, '.')\nfrom lilliput.pipelines import engine, run\nreal = run.write_text\n" \
           "def write(path, text):\n" \
           "    if path.name == 'metrics.jsonl' and text.count('\\n') == 2: os.kill(os.getpid(), signal.SIGKILL)\n" \
           "    real(path, text)\n" \
           "run.write_text = write\nengine.compress('tiny.yaml', out='tiny')"
    child = subprocess.run([sys.executable, "-c", code], cwd=here, check=False, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert len(Run(Path("tiny")).variants()) == 1
    assert figures(engine.compress("tiny.yaml", out="tiny")) == figures(finished)


def test_a_damaged_model_is_made_again(reference: Run, quick: None, here: Path, tiny: Build) -> None:
    shutil.copytree(reference.folder, here / "tiny")
    damaged = here / "tiny" / "models" / "2-distill.kd.pt2"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    resumed = engine.compress(tiny(), out="tiny")
    assert figures(resumed) == figures(reference)
    assert resumed.load(2)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_what_is_done_is_not_done_again(reference: Run, quick: None, tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "load_data", lambda name: pytest.fail("nothing should be loaded"))
    assert engine.compress(tiny(), out=reference.folder).folder == reference.folder


def test_another_recipe_does_not_write_into_a_run(reference: Run, quick: None, tiny: Build) -> None:
    with pytest.raises(PreconditionError, match="holds a run of another recipe"):
        engine.compress(tiny(("seed: 1", "seed: 2")), out=reference.folder)


def test_a_full_disk_keeps_what_is_saved(reference: Run, quick: None, here: Path, tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine.saving.save
    shutil.copytree(reference.folder.parent / ".baselines", here / ".baselines")

    def full(model: object, path: Path) -> None:
        if path.name.startswith("1-"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(model, path)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(engine.saving, "save", full)
        with pytest.raises(LilliputError, match=r"saved: original\. Free some space, then resume: lilliput compress tiny"):
            engine.compress(tiny(), out="tiny")
    assert engine.resume("tiny").done


@pytest.mark.parametrize(("replacements", "error", "said"), [
    ([("macs: 50%}\n  - distill", "mac: 50%}\n  - distill")], RecipeError, "tiny.yaml:7: steps.0.prune.l1_norm.mac: unknown option; did you mean macs"),
    ([("{macs: 50%}\n  - distill", "{}\n  - distill")], RecipeError, "tiny.yaml:7: steps.0.prune.l1_norm: prune.l1_norm needs budget, such as macs"),
    ([("{macs: 50%}\n  - distill", "{macs: 10}\n  - distill")], BudgetError, "tiny.yaml:7: steps.0.prune.l1_norm: macs <= 10 cannot be met: the least"),
    ([("temperature: 4.0", "temperature: hot")], RecipeError, "tiny.yaml:8: steps.1.distill.kd.temperature: expected a number"),
    ([("temperature: 4.0", "teacher: resnet8")], RecipeError, "tiny.yaml:8: steps.1.distill.kd.teacher: resnet8 comes untrained"),
    ([("epochs: 2, batch", "epoch: 2, batch")], RecipeError, "tiny.yaml:5: train.epoch: unknown field of Fit; did you mean epochs"),
    ([("tinynets:Tiny", "tinynets:rgb")], DataError, "tinynets:rgb does not take digits, whose samples are 1 x 8 x 8"),
    ([("tinynets:Tiny", "tinynets:three")], DataError, "must give 2 x 10; tinynets:three gives 2 x 3"),
    ([("tinynets:Tiny", "tinynets:Tinny")], LilliputError, "did you mean Tiny"),
    ([("data: digits", "data: digit")], LilliputError, "did you mean digits"),
])
def test_refused_before_anything_is_trained(replacements: list[tuple[str, str]], error: type[Exception], said: str, here: Path,
                                            tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(error) as caught:
        engine.compress(tiny(*replacements), out="tiny")
    assert said in str(caught.value)
    assert not Path("tiny").exists()


def test_changed_data_is_not_resumed_on(reference: Run, quick: None, here: Path, tiny: Build) -> None:
    shutil.copytree(reference.folder, here / "tiny")
    manifest = json.loads((here / "tiny" / "manifest.json").read_text())
    manifest["data"]["digest"], manifest["status"] = "0" * 64, "running"
    (here / "tiny" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PreconditionError, match="is not the data that tiny was begun with"):
        engine.resume("tiny")


def test_weights_from_a_state_dict_and_from_nothing_else(here: Path, tiny: Build) -> None:
    import pickle

    from lilliput.pipelines.models import find

    model = find("tinynets:Tiny").model
    torch.save(model.state_dict(), "good.pt")
    assert find("tinynets:Tiny", weights="good.pt").trained
    Path("code.pt").write_bytes(pickle.dumps(os.system))
    Path("cut.pt").write_bytes(Path("good.pt").read_bytes()[:500])
    torch.save({"other": torch.zeros(1)}, "other.pt")
    torch.save(model, "module.pt")
    for name in ("code.pt", "cut.pt", "other.pt", "module.pt"):
        with pytest.raises(LilliputError, match=name):
            find("tinynets:Tiny", weights=name)
    with pytest.raises(PreconditionError, match=r"no file gone\.pt"):
        find("tinynets:Tiny", weights="gone.pt")
