"""Commands for models: profile, compress, bench, deploy, report, methods, demo."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lilliput.cli.base import JsonFlag, Shape, app, bytes_of, guarded, say, table
from lilliput.core import LilliputError

if TYPE_CHECKING:
    from lilliput.deploy.c.project import Project, Trial
    from lilliput.pipelines.run import Run


@app.command(epilog="Examples: lilliput profile resnet50 --layers · lilliput profile mypackage.nets:small --input-shape 3,64,64 · "
                    "lilliput profile model.onnx --json")
@guarded
def profile(
    model: Annotated[str, typer.Argument(help="Zoo name, package.module:factory, model.pt2 or model.onnx.")],
    input_shape: Shape = None,
    layers: Annotated[bool, typer.Option("--layers", help="One row per layer too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Count parameters, MACs and memory of a model."""
    from lilliput.pipelines.figures import parse_shape
    from lilliput.pipelines.figures import profile as count

    found = count(model, parse_shape(input_shape) if input_shape else None)
    if as_json:
        rows = {"layers": list(found.layers)} if layers else {}
        typer.echo(json.dumps({"model": found.model, "input_shape": list(found.input_shape), **found.totals, **rows}))
        return
    shape = f" on one input of {' x '.join(map(str, found.input_shape))}" if found.input_shape else ""
    typer.echo(f"{found.model}{shape}")
    for name, value in found.totals.items():
        typer.echo(f"  {name:<12} {value:>18,.0f}")
    if layers:
        table(found.layers)


@app.command(epilog="Examples: lilliput compress recipe.yaml · lilliput compress --model resnet20 --data fashion_mnist --macs 50% "
                    "--max-drop 0.5 · lilliput compress runs/NAME (resumes) · lilliput compress runs/NAME/manifest.json (replays)")
@guarded
def compress(
    recipe: Annotated[str | None, typer.Argument(help="recipe.yaml; runs/NAME to resume it; runs/NAME/manifest.json to replay it.")] = None,
    model: Annotated[str | None, typer.Option(help="Zoo name, package.module:factory or model.pt2.")] = None,
    data: Annotated[str | None, typer.Option(help="digits, fashion_mnist, cifar10, folder:PATH or PATH.npz.")] = None,
    macs: Annotated[str | None, typer.Option(help="Limit: a share (50%) or an amount (20M).")] = None,
    params: Annotated[str | None, typer.Option(help="Limit: a share (50%) or an amount (100K).")] = None,
    size: Annotated[str | None, typer.Option(help="Limit of the file: a share (25%) or an amount (128KB).")] = None,
    latency: Annotated[str | None, typer.Option(help="Limit of one sample on one thread: a share (60%) or a time (20ms).")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Points of validation accuracy that may be lost.")] = None,
    quantize: Annotated[bool | None, typer.Option("--quantize/--no-quantize", help="int8; by default where --size asks for it.")] = None,
    weights: Annotated[str | None, typer.Option(help="State dict for the model, as torch.save wrote it.")] = None,
    train_epochs: Annotated[int | None, typer.Option(help="Epochs for an original without weights.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of recovery after pruning.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes every random choice; 0 by default.")] = None,
    out: Annotated[str | None, typer.Option(help="Run folder; runs/NAME by default.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compress a model to a budget, or by a recipe; resume or replay a run.

    Exit code 0 when the budget is kept, 1 when the run is done but it is not.
    """
    if recipe is not None:
        if any(value is not None for value in (model, data, macs, params, size, latency, max_drop, quantize, weights, seed, epochs, train_epochs)):
            raise LilliputError("give a recipe or flags, not both; what the flags say can be written into the recipe")
        _finish(*_compress_file(Path(recipe), out), as_json)
        return
    if model is None or data is None:
        raise LilliputError("give a recipe file, or --model and --data with a limit such as --macs 50%")
    from lilliput.core import Budget

    budget = Budget(macs=macs, params=params, size=size, latency=latency, max_drop=max_drop)
    from lilliput.pipelines.budgeted import Request, compress_to

    request = Request(model=model, data=data, budget=budget, quantize=quantize, weights=weights, seed=seed or 0,
                      train_epochs=train_epochs, epochs=epochs)
    outcome = compress_to(request, out=out, progress=say)
    _finish(outcome.run, outcome.violations, as_json, outcome.advice if outcome.gentler else "")


def _compress_file(path: Path, out: str | None) -> tuple[Run, tuple[str, ...]]:
    from lilliput.pipelines.recipe import Recipe

    recipe = None if path.is_dir() or path.name == "manifest.json" else Recipe.read(path)
    from lilliput.pipelines import budgets, engine

    if path.is_dir():
        if out is not None:
            raise LilliputError(f"{path} resumes where it is; to run it anew elsewhere: lilliput compress {path}/manifest.json --out {out}")
        run = engine.resume(path, progress=say)
    elif recipe is None:
        run = engine.replay(path.parent, out=out, progress=say)
    else:
        run = engine.compress(recipe, out=out, progress=say)
    asked = Recipe.of(run.manifest["recipe"]).budget
    if asked is None:
        return run, ()
    return run, budgets.violations(asked.budget(), run.variant(0).metrics, run.variant(-1).metrics)


def _finish(run: Run, violations: tuple[str, ...], as_json: bool, advice: str = "") -> None:
    """Report, table, verdict."""
    from lilliput import report

    page = report.write(run.folder)
    if as_json:
        rows = [{"label": row.label, "method": row.method, "metrics": dict(row.metrics), "onnx": str(run.file(row, "onnx")),
                 "model": str(run.file(row, "model"))} for row in run.variants()]
        typer.echo(json.dumps({"run": str(run.folder), "report": str(page), "variants": rows, "violations": violations, "advice": advice}))
    else:
        from lilliput.report import terminal

        terminal.show(report.from_run(run.folder))
        typer.echo(f"report: {page}")
    for text in violations:
        typer.secho(f"budget not kept: {text}", fg="yellow", err=True)
    if advice:
        typer.secho(f"what could be met: {advice}", fg="yellow", err=True)
    if violations:
        raise typer.Exit(1)


@app.command(epilog="Examples: lilliput bench model.onnx smaller.onnx --threads 1 · lilliput bench model.onnx --kernels --scaling")
@guarded
def bench(
    files: Annotated[list[Path], typer.Argument(help="ONNX files; the first is the one the others are compared with.")],
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 1,
    rounds: Annotated[int, typer.Option(min=6, max=100_000, help="How often each file is timed.")] = 50,
    kernels: Annotated[bool, typer.Option("--kernels", help="Which layers fused to which kernel, and its time, too.")] = False,
    scaling: Annotated[bool, typer.Option("--scaling", help="Time each file with 1, 2, 4... threads too.")] = False,
    input_shape: Shape = None,
    as_json: JsonFlag = False,
) -> None:
    """Time ONNX files side by side: taking turns, median, 95% interval, ratio, throughput."""
    from lilliput.deploy import kernels as machine
    from lilliput.pipelines import figures

    shape = figures.parse_shape(input_shape) if input_shape else None
    found = figures.bench(files, threads=threads, rounds=rounds, input_shape=shape)
    fused = {str(file): machine.fusions(file, threads, input_shape=shape) for file in files} if kernels else {}
    scaled = {str(file): machine.scaling(file, rounds=rounds, input_shape=shape) for file in files} if scaling else {}
    first = str(files[0])
    rows: list[dict[str, Any]] = []
    for name, timing in found.timings.items():
        ratio = found.ratio(name, first)
        rows.append({"file": name, "latency": timing.median, "low": timing.low, "high": timing.high, "throughput": 1 / timing.median,
                     "ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high})
    if as_json:
        for row in rows:
            row |= {"kernels": fused[row["file"]].to_dict()} if kernels else {}
            row |= {"scaling": [one.to_dict() for one in scaled[row["file"]]]} if scaling else {}
        typer.echo(json.dumps({"threads": threads, "rounds": rounds, "files": rows}))
        return
    table([{"file": row["file"], "p50 ms": f"{1e3 * row['latency']:.3f}", "interval ms": f"{1e3 * row['low']:.3f} to {1e3 * row['high']:.3f}",
             "per second": f"{row['throughput']:,.0f}", "ratio": f"{row['ratio']:.3f}",
             "ratio interval": f"{row['ratio_low']:.3f} to {row['ratio_high']:.3f}"} for row in rows])
    for name, one in fused.items():
        typer.echo(f"\n{name}: {sum(len(k.nodes) for k in one.kernels)} nodes in {len(one.kernels)} kernels, {len(one.removed)} computed ahead or dropped")
        table(figures.kernel_rows(one))
    for name, several in scaled.items():
        typer.echo(f"\n{name}: over threads")
        table(figures.scaling_rows(several))


@app.command(epilog="Examples: lilliput deploy model.onnx --target cortex-m4 --ram 128K --flash 512K -o firmware · "
                    "lilliput deploy model.onnx --run inputs.npz · lilliput deploy model.tflite --target host")
@guarded
def deploy(
    model: Annotated[Path, typer.Argument(help="A full-integer model: QDQ ONNX, or LiteRT (.tflite).")],
    target: Annotated[str, typer.Option(help="cortex-m0, m3, m4, m7, m33, m55 (each after cortex-), riscv32 or host.")] = "cortex-m4",
    ram: Annotated[str | None, typer.Option(help="Limit of working memory: 128K. K is 1,024 bytes here.")] = None,
    flash: Annotated[str | None, typer.Option(help="Limit of code and constants: 512K.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the project.")] = Path("firmware"),
    run: Annotated[Path | None, typer.Option(help="inputs.npz: build, run under emulation, compare, count.")] = None,
    name: Annotated[str, typer.Option(help="Prefix of the C names.")] = "model",
    rounding: Annotated[str, typer.Option(help="double, as TensorFlow Lite Micro rounds, or single, nearer the simulation.")] = "double",
    weights: Annotated[str, typer.Option(help="packed: 1, 2 or 4 bits where they suffice; coded: entropy-coded where smaller; or plain int8.")] = "packed",
    activations: Annotated[str, typer.Option(help="needed: 4 or 2 bits for as few values as --ram takes; packed: for the least memory; or plain int8.")] = "needed",
    beside_tflm: Annotated[bool, typer.Option("--beside-tflm", help="A .tflite model: what TensorFlow Lite Micro takes for it, on this machine.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write C code for a microcontroller: no heap, no dependency, the same integers on every processor.

    With --run the exit code is 1 if the emulated processor gives other codes than the integer reference.
    """
    from lilliput.deploy import c

    roundings: dict[str, c.DoubleRounding | c.SingleRounding] = {"double": c.DoubleRounding(), "single": c.SingleRounding()}
    storages: dict[str, c.Packed | c.Coded | c.Plain] = {"packed": c.Packed(), "coded": c.Coded(), "plain": c.Plain()}
    arenas: dict[str, c.AsNeeded | c.SubByte | c.Bytes] = {"needed": c.AsNeeded(), "packed": c.SubByte(), "plain": c.Bytes()}
    for option, given, known in (("rounding", rounding, roundings), ("weights", weights, storages), ("activations", activations, arenas)):
        if given not in known:
            raise LilliputError(f"--{option} is {' or '.join([', '.join([*known][:-1]), [*known][-1]])}, not {given!r}")
    limits = c.Limits(ram=bytes_of(ram), flash=bytes_of(flash))
    if beside_tflm:
        typer.echo("counting instructions of both under valgrind, about half a minute", err=True)
    beside = [asdict(costs) for costs in c.beside_micro(model)] if beside_tflm else []
    code = c.Code(name=name, rounding=roundings[rounding], storage=storages[weights], activations=arenas[activations])
    project = c.to_c(model, out, target=target, limits=limits, code=code)
    trial = c.run(project, c.read_samples(run, project.plan.program.inputs)) if run else None
    figures = _figures(project, trial)
    if as_json:
        typer.echo(json.dumps({"folder": str(project.folder), "files": project.files, **figures, "steps": project.rows(), "beside": beside}))
    else:
        table(project.rows())
        for key, value in figures.items():
            typer.echo(f"{key:<12} {value if isinstance(value, str) else 'not known: no compiler' if value is None else format(value, ',')}")
        table(beside)
        typer.echo(f"{project.folder}: {', '.join(project.files)}")
    if trial and trial.wrong:
        typer.secho(f"{trial.wrong} codes differ from the integer reference: this is a defect, please report it with the model", fg="red", err=True)
        raise typer.Exit(1)


def _figures(project: Project, trial: Trial | None) -> dict[str, Any]:
    """What a project takes, and what its run counted."""
    figures: dict[str, Any] = {"target": project.target.name, "arena": project.plan.arena, "least_arena": project.plan.bound, "constants": project.constants, "code": project.code,
               "macs": project.plan.program.macs}
    if project.plan.patches:
        found = project.plan.patches
        figures["patches"] = f"{found.rows} x {found.columns} up to {found.layer}, {found.extra:,} multiplications more"
    narrow = [step.output for step in project.plan.program.steps if step.output.bits < 8]
    if narrow:
        figures["sub_byte"] = f"{len(narrow)} values in {' and '.join(map(str, sorted({buffer.bits for buffer in narrow})))} bits"
    if trial:
        figures |= {"samples": trial.samples, "wrong": trial.wrong, "instructions": trial.instructions, "stack": trial.stack}
    return figures


@app.command(epilog="Example: lilliput report runs/fashion-half --open")
@guarded
def report(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="Where to write it; report.html in the run folder by default.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write the report of a run: one HTML file that works offline; its path is printed."""
    from lilliput import report as reports

    path = reports.write(run, out)
    typer.echo(str(path))
    if show:
        typer.launch(str(path.resolve()))


@app.command(epilog="Examples: lilliput methods --family prune · lilliput methods --json")
@guarded
def methods(
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    status: Annotated[str | None, typer.Option(help="Only works, or only planned.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the catalogue: what works, what is planned, and where each method comes from."""
    from lilliput import methods as catalogue

    if status not in (None, "works", "planned"):
        raise LilliputError(f"--status is works or planned, not {status!r}")
    chosen = catalogue.rows() if family is None else catalogue.family(family).rows
    chosen = tuple(row for row in chosen if status in (None, row.status))
    if as_json:
        typer.echo(json.dumps(catalogue.as_json(chosen)))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    room = max(width - 46, 20)
    table([{"id": row.id, "status": row.status, "does": row.does if len(row.does) <= room else f"{row.does[: room - 3]}..."} for row in chosen])
    typer.echo(f"{sum(row.works for row in chosen)} of {len(chosen)} work")


@app.command()
@guarded
def demo(out: Annotated[str | None, typer.Option(help="Run folder; runs/demo by default.")] = None) -> None:
    """Half the MACs and int8 on handwritten digits, in under a minute and without a download."""
    from lilliput.pipelines.demonstration import demo as run_demo

    say("lilliput demo: a residual network on scikit-learn's handwritten digits")
    _finish(run_demo(out=out, progress=say), (), False)
