"""Step, Result and chain: the one way in which methods compose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lilliput.core.report import Report

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Result:
    """A model and the report of how it came about."""

    model: nn.Module
    report: Report


class Step(Protocol):
    """`(model, data) -> Result`. Never changes the caller's model."""

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """Apply the step to a copy of `model`."""
        ...


@dataclass(frozen=True)
class Chain:
    """Steps in order; itself a Step."""

    steps: tuple[Step, ...]

    def __call__(self, model: nn.Module, data: Any) -> Result:
        """Apply every step, each to what the one before made."""
        report = Report()
        for step in self.steps:
            result = step(model, data)
            model, report = result.model, report + result.report
        return Result(model, report)


def chain(*steps: Step | Callable[..., Result]) -> Chain:
    """Compose steps: `chain(prune, distil, quantize)(model, data)`. Chains inside chains are flattened."""
    flat: list[Any] = []
    for step in steps:
        flat.extend(step.steps if isinstance(step, Chain) else [step])
    return Chain(tuple(flat))
