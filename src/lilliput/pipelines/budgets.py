"""Budgets against what happens: can it be reached at all, and was it kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lilliput.core import Budget, BudgetError, Entry, Step
from lilliput.pipelines.bind import Context
from lilliput.pipelines.recipe import Recipe
from lilliput.prune import OneShot, Prune

_UNITS = {"macs": "MACs", "params": "parameters", "size": "bytes", "latency": "s"}


def check_reachable(recipe: Recipe, steps: tuple[Step, ...], context: Context) -> None:
    """Rehearse every pruning step without its training on the untrained network: seconds instead of a training.

    Raises `BudgetError` with the line of the step whose budget no structure meets, and what could be met.
    """
    model, data = context.original, context.data.head(64)
    for index, step in enumerate(steps):
        if not isinstance(step, Prune):
            continue
        rehearsal = replace(step, prepare=None, recover=None, schedule=OneShot(), checkpoint=None)
        try:
            model = rehearsal(model, data).model
        except BudgetError as error:
            raise BudgetError(str(recipe.source.error(recipe.place(index), str(error)))) from error


def drop(original: Mapping[str, float], final: Mapping[str, float]) -> float | None:
    """Percentage points of validation accuracy lost, `None` where the data has no classes."""
    if "val_accuracy" not in original or "val_accuracy" not in final:
        return None
    return original["val_accuracy"] - final["val_accuracy"]


def violations(budget: Budget, original: Mapping[str, float], final: Mapping[str, float]) -> tuple[str, ...]:
    """What of the budget was not kept, in words; empty where all was. A thousandth over counts as kept."""
    out = []
    for name, limit in budget.targets(original).items():
        if final[name] > limit * 1.001:
            out.append(f"{name}: at most {limit:.4g} {_UNITS[name]} asked, {final[name]:.4g} reached")
    lost = drop(original, final)
    if budget.max_drop is not None and lost is not None and lost > budget.max_drop + 1e-9:
        out.append(f"accuracy: at most {budget.max_drop:g} points of validation accuracy to lose, {lost:.2f} lost")
    return tuple(out)


def verdict(budget: Budget, original: Mapping[str, float], entry: Entry) -> Entry:
    """The last step's entry with the run's budget as promise beside what was measured, and a note for each promise not kept."""
    promised: dict[str, float] = budget.targets(original)
    measured = {name: entry.metrics[name] for name in promised}
    lost = drop(original, entry.metrics)
    if budget.max_drop is not None and lost is not None:
        promised["max_drop"], measured["max_drop"] = budget.max_drop, lost
    notes = tuple(f"budget not kept: {text}" for text in violations(budget, original, entry.metrics))
    return replace(entry, promised={**entry.promised, **promised}, measured={**entry.measured, **measured},
                   notes=tuple(note for note in entry.notes if not note.startswith("budget not kept: ")) + notes)
