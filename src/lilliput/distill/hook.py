"""Distillation as a hook, so that it runs in one fit with pruning and quantization."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.distill.distances import Distance, SoftKL
from lilliput.distill.knowledge import Knowledge, View, logits
from lilliput.distill.matchers import Matcher, same
from lilliput.distill.schemes import Offline, Scheme
from lilliput.distill.taps import Taps
from lilliput.train import Hook, State
from lilliput.train.checkpoint import digest

_MATCHER = "distil_matcher"


def record(value: object) -> str:
    """A short `repr`: functions by name, networks by class, size and the start of their digest."""
    if isinstance(value, nn.Module):
        size = sum(p.numel() for p in value.parameters())
        return f"{type(value).__name__.removesuffix('Impl')}({size} parameters, sha256 {digest(value)[:12]})"
    return getattr(value, "__name__", None) or repr(value)


@dataclass
class _Run:
    """What lasts from `start` to `end`."""

    teacher: nn.Module
    matcher: Matcher
    teacher_taps: Taps
    student_taps: Taps


class Distil(Hook):
    """Replaces the task's loss `L` by `(1 - w) L + w sum_pairs distance(matcher(pair))`.

    The teacher is not changed. Values of the student's inner nodes need a traced student.
    """

    def __init__(self, teacher: nn.Module, *, knowledge: Knowledge = logits, matcher: Matcher = same,
                 distance: Distance = SoftKL(), scheme: Scheme = Offline(), weight: float = 0.9) -> None:
        if not 0 <= weight <= 1:
            raise RecipeError(f"weight is the share of the distillation loss, in [0, 1], not {weight!r}")
        self.teacher, self.knowledge, self.matcher = teacher, knowledge, matcher
        self.distance, self.scheme, self.weight = distance, scheme, weight
        self._run: _Run | None = None

    def __repr__(self) -> str:
        names = ("teacher", "knowledge", "matcher", "distance", "scheme", "weight")
        return f"Distil({', '.join(f'{name}={record(getattr(self, name))}' for name in names)})"

    def start(self, state: State) -> None:
        """Prepare the teacher; add taps, and a matcher that trains, to the student."""
        teacher = self.scheme.prepare(self.teacher, state)
        matcher = self.matcher
        if isinstance(matcher, nn.Module):
            matcher = copy.deepcopy(matcher).to(state.fabric.device)
            state.model.add_module(_MATCHER, matcher)
        self._run = _Run(teacher, matcher, Taps(teacher, getattr(self.knowledge, "teacher_nodes", ())),
                         Taps(state.model, getattr(self.knowledge, "student_nodes", ())))

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:
        """The weighted sum."""
        run = self._run
        if run is None or state.inputs is None or state.targets is None:
            raise PreconditionError("Distil works inside train.fit: pass it in hooks=")
        predicted = self.scheme.run(run.teacher, state.inputs, state)
        teacher = View(outputs=predicted, features=run.teacher_taps.values())
        student = View(outputs=outputs, features=run.student_taps.values())
        pairs = self.knowledge(teacher, student, (state.inputs, state.targets))
        distances = torch.stack([self.distance(run.matcher(pair)) for pair in pairs])
        return (1 - self.weight) * loss + self.weight * distances.sum()

    def end(self, state: State) -> None:
        """Leave nothing of distillation in the student."""
        if self._run is not None:
            self._run.student_taps.remove_()
            if isinstance(self._run.matcher, nn.Module):
                delattr(state.model, _MATCHER)
            self._run = None
