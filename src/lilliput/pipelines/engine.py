"""The engine: recipe in, run folder out; every step recorded, so that a kill at any point costs at most that step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from lilliput.core import Entry, LilliputError, PreconditionError, Report, Step, seed_everything
from lilliput.core.atomic import write_text
from lilliput.data import Data
from lilliput.data import load as load_data
from lilliput.graph import saving, trace
from lilliput.pipelines import baseline, budgets, measure, models
from lilliput.pipelines.bind import Context, bind
from lilliput.pipelines.environment import environment, versions
from lilliput.pipelines.recipe import Recipe
from lilliput.pipelines.run import Run, Variant, read_network, sha256
from lilliput.pipelines.yamltext import Source

# Points of validation accuracy from which on a quantization step is diagnosed layer by layer.
_WORTH_EXPLAINING = 0.5
Say = Callable[[str], None]


def compress(recipe: Recipe | str | Path | Mapping[str, Any], *, out: str | Path | None = None, progress: Say | None = None) -> Run:
    """Run a recipe (object, mapping or file) into the folder `out`, by default `runs/NAME`.

    A run that was interrupted there goes on where it stopped; one that is done is returned as it is. Raises
    `RecipeError`, `BudgetError`, `DataError`... before anything is trained wherever that can be known then.
    """
    if isinstance(recipe, str | Path):
        recipe = Recipe.read(recipe)
    elif not isinstance(recipe, Recipe):
        recipe = Recipe.of(recipe)
    return Engine(recipe, Path(out) if out is not None else default_folder(recipe), progress or _silent).run()


def resume(run: str | Path | Run, *, progress: Say | None = None) -> Run:
    """Go on with an interrupted run where it stopped; raises `DataError` or `PreconditionError` where its inputs changed."""
    run = run if isinstance(run, Run) else Run(Path(run))
    return compress(_recorded(run), out=run.folder, progress=progress)


def replay(run: str | Path | Run, *, out: str | Path | None = None, progress: Say | None = None) -> Run:
    """Run the recipe of an earlier run again, with its seeds, into a new folder: the figures, times aside, come out the same."""
    run = run if isinstance(run, Run) else Run(Path(run))
    return compress(_recorded(run), out=free_folder(run.folder.with_name(f"{run.folder.name}-replay")) if out is None else out,
                    progress=progress)


def default_folder(recipe: Recipe) -> Path:
    """`runs/NAME`; a recipe without a name has one made of its model, data and hash."""
    stem = f"{Path(recipe.model.rpartition(':')[2]).stem}-{Path(recipe.data.rpartition(':')[2]).stem}-{recipe.digest[:8]}"
    return Path("runs") / (recipe.name or "".join(c if c.isalnum() or c in "._-" else "-" for c in stem))


def free_folder(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3`... that does not exist."""
    names = [folder, *(folder.with_name(f"{folder.name}-{n}") for n in range(2, 10_000))]
    return next(path for path in names if not path.exists())


@dataclass(frozen=True)
class Engine:
    """One recipe on its way into one folder."""

    recipe: Recipe
    folder: Path
    say: Say

    def run(self) -> Run:
        """All of it: check, train the original, steps, timing."""
        run = Run(self.folder)
        exists = (self.folder / "manifest.json").exists()
        if exists:
            self._check_same(run)
            if run.done and all(run.verifies(row) for row in run.variants()):
                self.say(f"{self.folder} is done already")
                return run
        data = load_data(self.recipe.data)
        found = models.for_data(self.recipe.model, data, weights=self.recipe.weights, seed=self.recipe.seed,
                                options=self.recipe.options)
        traced = trace(found.model, data.example())
        recipe = self.recipe
        baseline.training(recipe)
        context = Context(original=traced, data=data, measures=measure.measures(data))
        steps = bind(recipe, context)
        if not (exists and run.variants()):
            budgets.check_reachable(recipe, steps, context)
        self.folder.mkdir(parents=True, exist_ok=True)
        with run.lock(), run.saving(), self._stoppable():
            self._write_manifest(run, data, "running")
            rows = self._kept(run)
            if not rows:
                original = baseline.original(recipe, found, data, self.folder.parent / ".baselines", self.say)
                rows = self._record(run, (), original, data, "original", None)
            original = run.load(0)
            steps = bind(recipe, replace(context, original=original, checkpoints=self.folder / "checkpoints"))
            for index in range(len(rows) - 1, len(steps)):
                rows = self._step(run, rows, steps[index], data)
            self._time(run, rows, data)
            self._write_manifest(run, data, "done")
        return run

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Ctrl-C that says how to go on."""
        try:
            yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"what is finished is saved; go on with: lilliput compress {self.folder}") from None

    def _check_same(self, run: Run) -> None:
        if _recorded(run).digest != self.recipe.digest:
            raise PreconditionError(f"{self.folder} holds a run of another recipe; choose another --out (or name:), or delete that folder")

    def _kept(self, run: Run) -> tuple[Variant, ...]:
        """The finished variants, up to the first whose files are missing or not what was written; sweeps up half-written files.
        """
        for leftover in (self.folder / "models").glob(".*"):
            leftover.unlink()
        rows = run.variants()
        kept = next((rows[:i] for i, row in enumerate(rows) if not run.verifies(row)), rows)
        if kept:
            self.say(f"resuming {self.folder} after {kept[-1].label}")
        if len(kept) < len(rows):
            run.write(kept, Report(run.report().entries[: max(len(kept) - 1, 0)]))
        return kept

    def _step(self, run: Run, rows: tuple[Variant, ...], step: Step, data: Data) -> tuple[Variant, ...]:
        index = len(rows)
        method = self.recipe.steps[index - 1].method
        self.say(f"{index}/{len(self.recipe.steps)} {method}")
        seed_everything(self.recipe.seed + index)
        start = time.perf_counter()
        result = step(run.load(index - 1), data)
        entry = merged(result.report, method, repr(step), time.perf_counter() - start)
        rows = self._record(run, rows, result.model, data, method, entry)
        for checkpoint in (self.folder / "checkpoints").glob(f"{index}-*"):
            checkpoint.unlink()
        return rows

    def _record(self, run: Run, rows: tuple[Variant, ...], model: nn.Module, data: Data, method: str,
                entry: Entry | None) -> tuple[Variant, ...]:
        """Write models, measure what was written, then make the step count as done."""
        index = len(rows)
        label = method if method not in {row.method for row in rows} else f"{method} ({index})"
        stem = self.folder / "models" / f"{index}-{method}"
        model_file, onnx_file = stem.with_name(f"{stem.name}.pt2"), stem.with_name(f"{stem.name}.onnx")
        stem.parent.mkdir(exist_ok=True)
        saving.save(trace(model, data.example()).eval(), model_file)
        measure.export(read_network(model_file), onnx_file, data)
        metrics = measure.figures(model, onnx_file, data)
        row = Variant(
            step=index, method=method, label=label, metrics=metrics, model=str(model_file.relative_to(self.folder)),
            onnx=str(onnx_file.relative_to(self.folder)), seconds=entry.seconds if entry else 0.0,
            sha256={"model": str(sha256(model_file)), "onnx": str(sha256(onnx_file))})
        if entry is not None and method.startswith("quantize.") and _fell(rows[-1].metrics, metrics):
            entry = measure.explained(entry, run.load(index - 1), model, data)
        report = Report() if not rows else Report(run.report().entries[: index - 1])
        if entry is not None:
            report += Report((replace(entry, metrics={**entry.metrics, **metrics},
                                      layers=measure.with_costs(entry.layers, model, data)),))
        run.write((*rows, row), report)
        self.say(f"  {summary(metrics)}")
        return (*rows, row)

    def _time(self, run: Run, rows: tuple[Variant, ...], data: Data) -> None:
        """Time all variants in turns, so that they share the machine's weather; then note what was promised and kept."""
        self.say("timing every variant")
        found = measure.times({row.label: run.file(row, "onnx") for row in rows}, data)
        rows = tuple(replace(row, metrics={**row.metrics, **found[row.label]}) for row in rows)
        entries = [replace(entry, metrics={**entry.metrics, **found[row.label]})
                   for entry, row in zip(run.report().entries, rows[1:], strict=True)]
        if self.recipe.budget is not None and entries:
            entries[-1] = budgets.verdict(self.recipe.budget.budget(), rows[0].metrics, entries[-1])
        run.write(rows, Report(tuple(entries)))
        self.say(f"profiling the kernels of {rows[-1].label}")
        try:
            found = measure.on_this_machine(run.file(rows[-1], "onnx"))
        except LilliputError as error:
            self.say(f"  not profiled: {error}")
        else:
            write_text(self.folder / "kernels.json", json.dumps({"label": rows[-1].label, **found}) + "\n")

    def _write_manifest(self, run: Run, data: Data, status: str) -> None:
        old = run.manifest if (self.folder / "manifest.json").exists() else {}
        digest = old.get("data", {}).get("digest", data.digest)
        if digest != data.digest:
            raise PreconditionError(f"{data.name} is not the data that {self.folder} was begun with "
                                    f"({digest[:12]}, now {data.digest[:12]}); bring it back, or choose another --out")
        run.write_manifest({
            "name": self.folder.name, "created": old.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
            "lilliput": versions()["lilliput"], "versions": versions(), "environment": environment(),
            "seed": self.recipe.seed, "recipe": self.recipe.to_dict(), "recipe_text": self.recipe.to_yaml(),
            "data": {"name": data.name, "digest": data.digest,
                     "sizes": {"train": len(data.train), "val": len(data.val), "test": len(data.test)}},
            "status": status,
        })


def merged(report: Report, method: str, recipe: str, seconds: float) -> Entry:
    """One entry for one step, whatever number the step reported."""
    entries = report.entries or (Entry(method=method),)
    last = entries[-1]
    return replace(
        last, method=method, recipe=last.recipe or recipe, seconds=seconds,
        layers=tuple(row for entry in entries for row in entry.layers), notes=tuple(note for entry in entries for note in entry.notes),
        promised={k: v for entry in entries for k, v in entry.promised.items()},
        measured={k: v for entry in entries for k, v in entry.measured.items()})


def _fell(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    """Whether a step lost too much to be silent about."""
    return before.get("val_accuracy", 0.0) - after.get("val_accuracy", 0.0) >= _WORTH_EXPLAINING


def summary(metrics: Mapping[str, float]) -> str:
    """One line for people."""
    accuracy = f"{metrics['val_accuracy']:.2f}% on validation, " if "val_accuracy" in metrics else ""
    return f"{accuracy}{metrics['params']:,.0f} parameters, {metrics['macs']:,.0f} MACs, {metrics['size']:,.0f} bytes"


def _recorded(run: Run) -> Recipe:
    return Recipe.of(run.manifest["recipe"], Source(str(run.folder / "manifest.json")))


def _silent(_: str) -> None:
    return None
