"""Distillation as a step: one network learns from another."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from lilliput.core import Entry, PreconditionError, Report, Result
from lilliput.distill.distances import Distance, SoftKL
from lilliput.distill.hook import Distil, record
from lilliput.distill.knowledge import Knowledge, logits
from lilliput.distill.matchers import Matcher, same
from lilliput.distill.schemes import Offline, Scheme
from lilliput.graph.trace import Traced, trace
from lilliput.train import Fit, Trained, evaluate, fit


@dataclass(frozen=True, kw_only=True, repr=False)
class Distillation:
    """A choice on each axis, and how to train: `(model, data) -> Result` with the student trained from `model`."""

    teacher: nn.Module
    knowledge: Knowledge = logits
    matcher: Matcher = same
    distance: Distance = field(default_factory=SoftKL)
    scheme: Scheme = field(default_factory=Offline)
    weight: float = 0.9
    fit: Fit = field(default_factory=Fit)
    checkpoint: Path | None = None
    method: str = "distill.kd"

    def __post_init__(self) -> None:
        self._hook(self.teacher)

    def __repr__(self) -> str:
        return f"Distillation({', '.join(f'{f.name}={record(getattr(self, f.name))}' for f in fields(self) if f.name not in ('method', 'checkpoint'))})"

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """Trace, train, report; raises `PreconditionError` for data without classes and a teacher of other ones."""
        since = time.perf_counter()
        if not data.num_classes:
            raise PreconditionError(f"{self.method} compares class probabilities and {data.name} has no classes: use labelled data")
        student, teacher = trace(model, data.example()), trace(self.teacher, data.example())
        before = evaluate(student, data.val)
        trained = fit(student, data, self.fit, hooks=(self._hook(teacher),), checkpoint=self.checkpoint)
        after, taught = evaluate(trained.model, data.val), evaluate(teacher, data.val)
        notes = (f"validation accuracy: teacher {taught:.2f} %, student {before:.2f} % before and {after:.2f} % after", *_warnings(taught, before))
        entry = Entry(method=self.method, recipe=repr(self), metrics={"accuracy": after}, layers=_changes(student, trained), notes=notes,
                      seconds=time.perf_counter() - since)
        return Result(trained.model.train(model.training), Report((entry,)))

    def _hook(self, teacher: nn.Module) -> Distil:
        return Distil(teacher, knowledge=self.knowledge, matcher=self.matcher, distance=self.distance, scheme=self.scheme, weight=self.weight)


def _warnings(taught: float, before: float) -> tuple[str, ...]:
    if taught < before:
        return ("the teacher was worse than the student before training: check that it is trained, and on this data",)
    return ()


def _changes(before: Traced, trained: Trained) -> tuple[dict[str, Any], ...]:
    """Per weight, `|w - w0| / |w0|`: the layers that had to move the most."""
    rows, start = [], dict(before.named_parameters())
    for name, weight in trained.model.named_parameters():
        if weight.ndim > 1 and name in start and start[name].shape == weight.shape:
            old = start[name].detach()
            change = float((weight.detach() - old).norm() / old.norm().clamp_min(1e-12))
            rows.append({"layer": name.removesuffix(".weight"), "relative_change": change})
    return tuple(rows)
