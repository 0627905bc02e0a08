"""Training added to a generated project: its source, its memory, and its run under emulation."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.core.atomic import write_text
from lilliput.core.errors import DataError, PreconditionError
from lilliput.deploy.c import harness
from lilliput.deploy.c.emit import emit, environment, kernel_file, processor_of
from lilliput.deploy.c.plan import plan
from lilliput.deploy.c.project import Project
from lilliput.deploy.c.training.source import Source, Work
from lilliput.deploy.c.training.trainer import State, Trainable, Trainer

Array = NDArray[Any]
_RECORD = "lilliput.json"
_KERNELS = ("lp_train_bias.c", "lp_train_conv.c", "lp_train_head.c", "lp_train_mean.c")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingProject:
    """A project that trains: `arena` bytes of working memory (`inference` without training), `state` bytes of what is trained."""

    project: Project
    trainer: Trainer
    name: str
    arena: int
    inference: int
    state: int

    @property
    def ram(self) -> int:
        """All RAM but the stack."""
        return self.arena + self.state


def add_training(project: Project, trainable: Trainable = Trainable()) -> TrainingProject:
    """Rewrite a project so that it trains on the device: biases and the classifier, `NAME_train(arena, state, label)` (cai2020tinytl).

    `NAME.c` then ends at the trained layers; `NAME_train.c` has these, the classifier and the step. Training works in memory of the arena
    that inference has left by then. Raises `PreconditionError` for programs that `Trainer.of` cannot divide.
    """
    trainer = Trainer.of(project.plan.program, trainable)
    name = next(file for file in project.files if file.endswith("_test.c")).removesuffix("_test.c")
    backbone = plan(trainer.backbone, pixels_at_once=project.target.pixels_at_once)
    rest = plan(trainer.rest, pixels_at_once=project.target.pixels_at_once) if trainer.tail else None
    work = Work.of(trainer, backbone, rest)
    for file in project.files:
        (project.folder / file).unlink(missing_ok=True)
    files = emit(backbone, project.folder, target=project.target, name=name)
    source = Source.of(trainer, work)
    files += _write(project, files, source, name)
    write_text(project.folder / _RECORD, json.dumps({"files": [*files, _RECORD], "target": project.target.name, "arena": work.arena,
                                                     "state": trainer.start().size}, indent=1) + "\n")
    # Sizes of code are those of the project before.
    changed = replace(project, plan=backbone, files=(*files, _RECORD), code=None)
    return TrainingProject(project=changed, trainer=trainer, name=name, arena=work.arena, inference=project.plan.arena, state=trainer.start().size)


def _write(project: Project, files: Sequence[str], source: Source, name: str) -> list[str]:
    """The files that training adds, and the build files with them."""
    from lilliput import __version__

    own = [f"{name}_train.h", f"{name}_train.c", "lp_train.h", *_KERNELS]
    kernels = [kernel for kernel in _with_needed(source.kernels(), project) if kernel not in files]
    for file in ("lp_train.h", *_KERNELS, *kernels):
        write_text(project.folder / file, kernel_file(file, project.target).read_text())
    values = {"name": name, "NAME": name.upper(), "version": __version__, "sources": [f for f in (*files, *own, *kernels) if f.endswith(".c") and
              not f.endswith("_test.c")], "headers": [f for f in (*files, *own, *kernels) if f.endswith(".h")],
              "processor": processor_of([f for f in (*files, *kernels) if f.startswith("lp_") and f.endswith(".c")], project.target), **source.values(name)}
    templates = environment()
    for file, template in ((own[0], "train.h.j2"), (own[1], "train.c.j2"), ("Makefile", "Makefile.j2"), ("CMakeLists.txt", "CMakeLists.txt.j2")):
        write_text(project.folder / file, templates.get_template(template).render(**values))
    return [*own, *kernels]


def _with_needed(sources: Sequence[str], project: Project) -> list[str]:
    """Kernels, the headers that they include, the kernels that they call, and what these need."""
    found = list(sources)
    for file in found:
        text = kernel_file(file, project.target).read_text()
        needed = [*re.findall(r'#include "([\w.]+)"', text), *(f"{name}.c" for name in re.findall(r"\b(lp_\w+_s8)\(", text))]
        found += [name for name in dict.fromkeys(needed) if name not in found]
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingTrial:
    """Steps under emulation: classes found before each, the state after all of them as bytes, and instructions of the shortest step."""

    found: list[int]
    state: bytes
    instructions: int


def train(made: TrainingProject, samples: Sequence[Array], labels: Sequence[int], *, level: str = "-O2") -> TrainingTrial:
    """Train on codes of inputs (in their buffer's layout) under emulation, from the start; raises `PreconditionError` where tools are missing."""
    target, port = made.project.target, made.trainer.backbone.inputs[0]
    if len(samples) != len(labels) or not samples:
        raise DataError(f"training takes as many labels as samples, at least one, not {len(labels)} for {len(samples)}")
    if any(np.size(x) != port.buffer.size for x in samples):
        raise DataError(f"input {port.name} has {port.buffer.size} elements")
    harness.ready(target)
    data = b"".join(np.ascontiguousarray(x, np.int8).tobytes() + bytes([label]) for x, label in zip(samples, labels, strict=True))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in made.project.files:
            if file.endswith((".c", ".h")) and not file.endswith("_test.c"):
                shutil.copy(made.project.folder / file, folder / file)
        values = {"name": made.name, "NAME": made.name.upper(), "steps": len(samples)}
        counts, out = harness.execute(folder, "train.c.j2", values, target, data, level)
    if len(out) != len(samples) + made.state:
        raise PreconditionError(f"the program wrote {len(out)} bytes instead of {len(samples) + made.state}; this is a defect, report it")
    return TrainingTrial(found=list(out[: len(samples)]), state=out[len(samples):], instructions=counts["ticks"])


def reference(made: TrainingProject, samples: Sequence[Array], labels: Sequence[int]) -> tuple[State, list[int]]:
    """The same steps in numpy: the state after them, and classes found before each."""
    state, trainer = made.trainer.start(), made.trainer
    found = [trainer.step_(state, trainer.backbone(x)[0], label) for x, label in zip(samples, labels, strict=True)]
    return state, found
