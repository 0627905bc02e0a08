"""Published distillation methods, as choices on the axes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lilliput.core import Step
from lilliput.distill.distances import SoftKL
from lilliput.distill.distillation import Distillation
from lilliput.train import Fit

__all__ = ["kd"]


def kd(*, teacher: nn.Module, temperature: float = 4.0, weight: float = 0.9, fit: Fit = Fit(),
       checkpoint: Path | None = None) -> Step:
    """Knowledge distillation from the softened class probabilities of a trained network.

    `loss = (1 - w) CE(student, y) + w T^2 KL(softmax(teacher / T) || softmax(student / T))`, with `w` the weight and `T` the
    temperature. `checkpoint` makes the training resumable. `teacher` maps the same inputs to the same classes and is left
    unchanged.

    Raises `RecipeError` for a temperature that is not positive or a weight outside [0, 1]; the step raises
    `PreconditionError` when the classes differ. Cites `hinton2015distilling`.
    """
    return Distillation(teacher=teacher, distance=SoftKL(temperature=temperature), weight=weight, fit=fit, checkpoint=checkpoint)
