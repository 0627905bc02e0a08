"""Knowledge: what of the teacher is compared with what of the student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from lilliput.core.errors import PreconditionError
from lilliput.train import Batch


@dataclass(frozen=True, kw_only=True)
class View:
    """What one network made of a batch: its outputs, and values of inner nodes by name where the knowledge names them."""

    outputs: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)


class Pair(NamedTuple):
    """A value of the teacher and the student's counterpart."""

    teacher: Tensor
    student: Tensor


class Knowledge(Protocol):
    """`(teacher, student, batch) -> pairs`.

    One that compares inner values names the nodes of the traced graphs in attributes `teacher_nodes` and
    `student_nodes` (tuples of strings), and finds the values in the views' `features`.
    """

    def __call__(self, teacher: View, student: View, batch: Batch, /) -> tuple[Pair, ...]:
        """The pairs of a batch."""
        ...


def logits(teacher: View, student: View, _batch: Batch, /) -> tuple[Pair, ...]:
    """The outputs (N, classes) of both; `PreconditionError` where the classes differ in number."""
    if teacher.outputs.shape != student.outputs.shape:
        raise PreconditionError(
            f"the teacher's outputs have shape {tuple(teacher.outputs.shape[1:])} and the student's {tuple(student.outputs.shape[1:])} "
            "per sample: pass a teacher trained on the same classes")
    return (Pair(teacher.outputs, student.outputs),)
