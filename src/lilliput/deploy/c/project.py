"""From a model to a folder of C for a target, with what it takes there; and its run under emulation."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lilliput.core.atomic import write_text
from lilliput.core.errors import BudgetError, DataError, PreconditionError
from lilliput.deploy.c import harness
from lilliput.deploy.c.activations import Activations, AsNeeded
from lilliput.deploy.c.arithmetic import DoubleRounding, Rounding
from lilliput.deploy.c.emit import constant_bytes, emit
from lilliput.deploy.c.lowering import lower
from lilliput.deploy.c.plan import Plan
from lilliput.deploy.c.storage import Packed, Storage, store
from lilliput.deploy.c.targets import Target
from lilliput.deploy.c.targets import target as find_target

Array = NDArray[Any]
_RECORD = "lilliput.json"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bytes of a device: `ram` for the arena, `flash` for code and constants; None where there is no limit."""

    ram: int | None = None
    flash: int | None = None


@dataclass(frozen=True, kw_only=True)
class Code:
    """How the code is written: prefix of its C names, rounding, how weights lie in flash, and how activations lie in the arena."""

    name: str = "model"
    rounding: Rounding = field(default_factory=DoubleRounding)
    storage: Storage = field(default_factory=Packed)
    activations: Activations = field(default_factory=AsNeeded)


@dataclass(frozen=True, kw_only=True, eq=False)
class Project:
    """A generated folder: its plan, its files, and bytes of flash.

    `constants` are the model's arrays and structures, `code` its functions compiled at -Os, None where the target's compiler is missing.
    """

    folder: Path
    plan: Plan
    target: Target
    files: tuple[str, ...]
    constants: int
    code: int | None

    @property
    def flash(self) -> int:
        """Constants and, where it is known, code."""
        return self.constants + (self.code or 0)

    def rows(self) -> list[dict[str, Any]]:
        """One row to a step: operator, place in the model, shape, bits of each code, multiplications, bytes of weights."""
        return [{"step": i, "operator": type(step).__name__, "layer": step.layer, "output": " x ".join(map(str, step.output.shape)),
                 "bits": step.output.bits, "macs": step.macs, "weights": step.weight_bytes} for i, step in enumerate(self.plan.program.steps)]


def to_c(model: str | PathLike[str] | nn.Module, out: str | PathLike[str], *, target: str = "cortex-m4", limits: Limits | None = None,
         code: Code | None = None) -> Project:
    """Write C99 for a full-integer model (`.onnx`, `.tflite`, or a quantized network traced here) into the folder `out`.

    Kernels are chosen for the processor, with its DSP or vector instructions where it has them (lai2018cmsisnn). The folder is made anew; one
    that holds anything but an earlier project is left alone. Raises `PreconditionError` for operators that
    generated code has not and for floats, `BudgetError` naming by how much memory does not suffice and which layer takes most,
    `UnknownNameError` for targets.
    """
    chosen, limits, code, folder = find_target(target), limits or Limits(), code or Code(), Path(out)
    _vacant(folder)
    program = _exported(model, code.rounding) if isinstance(model, nn.Module) else lower(_file(model), rounding=code.rounding)
    program = store(program, code.storage)
    found = code.activations(program, limits.ram, chosen.pixels_at_once)
    constants = constant_bytes(found)
    if limits.flash is not None and constants > limits.flash:
        raise BudgetError(_too_large(found, constants, limits.flash, "constants alone take"))
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=_parent(folder)) as temporary:
        fresh = Path(temporary) / "project"
        files = emit(found, fresh, target=chosen, name=code.name)
        compiled = None
        if shutil.which(chosen.compiler):
            sizes = harness.sizes(harness.compile_objects(fresh, chosen, "-Os"), chosen)
            compiled, constants = sizes.code, sizes.constants
            for path in fresh.glob("*.o"):
                path.unlink()
        if limits.flash is not None and constants + (compiled or 0) > limits.flash:
            raise BudgetError(_too_large(found, constants + (compiled or 0), limits.flash, "code and constants take"))
        record = {"files": [*files, _RECORD], "target": chosen.name, "arena": found.arena, "constants": constants, "code": compiled}
        write_text(fresh / _RECORD, json.dumps(record, indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    return Project(folder=folder, plan=found, target=chosen, files=(*files, _RECORD), constants=constants, code=compiled)


def _file(model: str | PathLike[str]) -> Path:
    path = Path(model)
    if not path.is_file():
        raise PreconditionError(f"there is no file {path}; export the quantized network first: lilliput compress writes model.onnx into its run folder")
    return path


def _exported(model: nn.Module, rounding: Rounding) -> Any:
    from lilliput.deploy.onnx import export

    example = getattr(model, "example", None)
    if example is None:
        raise PreconditionError("a network is exported with an example of its input: pass a traced one, or the path of its ONNX file")
    with tempfile.TemporaryDirectory() as folder:
        return lower(export(model, Path(folder) / "model.onnx", example), rounding=rounding)


def _parent(folder: Path) -> Path:
    parent = folder.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    return parent


def _vacant(folder: Path) -> None:
    """Refuse to replace what is no project of ours, or has files that others put there."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PreconditionError(f"{folder} is a file; name a folder for the project")
    present = {path.name for path in folder.iterdir()}
    record = folder / _RECORD
    try:
        known = set(json.loads(record.read_text())["files"]) if record.is_file() else set()
    except (ValueError, KeyError, TypeError, OSError):
        known = set()
    foreign = sorted(name for name in present - known if not name.endswith((".o", ".a")))
    if present and (not known or foreign):
        raise PreconditionError(f"{folder} exists and holds {', '.join(foreign[:3]) or 'files'} that no earlier run wrote; choose another folder, or "
                                f"empty it")


def _too_large(found: Plan, bytes_: int, limit: int, what: str) -> str:
    largest = max(found.program.steps, key=lambda step: step.weight_bytes)
    return (f"{what} {bytes_:,} bytes, {bytes_ - limit:,} more than the {limit:,} of flash; the largest layer is {largest.layer} with "
            f"{largest.weight_bytes:,} bytes of weights. Prune it, or quantize its weights to 4 bits")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A project's run under emulation beside the integer reference: codes that differ (none, or something is broken), and counts of one run."""

    samples: int
    wrong: int
    instructions: int
    stack: int
    outputs: list[list[Array]]


def run(project: Project, samples: Sequence[Sequence[Array]], *, level: str = "-O2") -> Trial:
    """Build and run a project on real inputs in the model's shapes under emulation; raises `PreconditionError` where tools are missing."""
    program = project.plan.program
    if not samples:
        raise DataError("a run needs at least one sample")
    codes = [[port.codes(array) for port, array in zip(program.inputs, sample, strict=True)] for sample in samples]
    found = harness.measure(project.plan, project.target, codes, level=level)
    wanted = [program(*sample) for sample in codes]
    wrong = sum(int((a.reshape(-1) != b.reshape(-1)).sum()) for x, y in zip(found.outputs, wanted, strict=True) for a, b in zip(x, y, strict=True))
    real = [[port.real(out) for port, out in zip(program.outputs, outs, strict=True)] for outs in found.outputs]
    return Trial(samples=len(samples), wrong=wrong, instructions=found.instructions, stack=found.stack, outputs=real)


def read_samples(path: str | PathLike[str], program_inputs: Sequence[Any]) -> list[list[Array]]:
    """Samples of an `.npz` file: one array for each input, by name or in order, `(N, ...)` real values. Raises `DataError`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: Mapping[str, Array] = {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except Exception as error:
        raise DataError(f"{path} cannot be read as .npz: {' '.join(str(error).split())[:200]}; write it with numpy.savez(path, input=array)") from error
    chosen = []
    for i, port in enumerate(program_inputs):
        array = arrays.get(port.name, list(arrays.values())[i] if i < len(arrays) else None)
        shape = port.shape[1:]
        if array is None or array.dtype.kind not in "fiu" or (tuple(array.shape[1:]) != shape and tuple(array.shape) != port.shape):
            got = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise DataError(f"{path}: input {port.name} takes real values of shape (N, {', '.join(map(str, shape))}), not {got}")
        if not np.isfinite(array.astype(np.float64)).all():
            raise DataError(f"{path}: {port.name} has values that are not finite")
        chosen.append(array if tuple(array.shape[1:]) == shape else array.reshape(1, *shape))
    if len({len(array) for array in chosen}) != 1:
        raise DataError(f"{path}: the inputs have different numbers of samples")
    return [[array[i: i + 1].reshape(port.shape) for array, port in zip(chosen, program_inputs, strict=True)] for i in range(len(chosen[0]))]
