"""Budgets instead of recipes: prune to the costs, distil from the original, quantize where the size asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lilliput.core import Budget, BudgetError, parse_limit
from lilliput.data import load as load_data
from lilliput.pipelines import budgets, measure, models
from lilliput.pipelines.engine import compress, default_folder
from lilliput.pipelines.recipe import Recipe
from lilliput.pipelines.run import Run

# An int8 file is a quarter of the float one, plus scales and the graph itself; seen between 3.5 and 3.9.
_INT8_SHRINKS = 3.5
_TRIALS = 2


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to compress, to what; `quantize` None leaves int8 to the size limit; epochs None to the defaults."""

    model: str
    data: str
    budget: Budget
    quantize: bool | None = None
    weights: str | None = None
    seed: int = 0
    name: str | None = None
    train_epochs: int | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The run that was asked for, what of its budget it does not keep, and the gentler runs tried after that."""

    run: Run
    violations: tuple[str, ...] = ()
    gentler: tuple[tuple[float, Run, bool], ...] = ()

    @property
    def advice(self) -> str:
        """What could be met, in words."""
        kept = [(share, run) for share, run, ok in self.gentler if ok]
        if kept:
            share, run = min(kept, key=lambda pair: pair[0])
            return f"{share:.0%} of the original keeps within max_drop: {run.folder}"
        return "no gentler budget that was tried keeps within max_drop; train longer (--epochs) or allow a larger --max-drop"


def from_budget(request: Request) -> Recipe:
    """The default recipe for a budget; raises `BudgetError` where the budget limits nothing."""
    costs = {name: getattr(request.budget, name) for name in request.budget.costs()}
    if not costs and not request.quantize:
        raise BudgetError("nothing to do: give a limit (--macs 50%, --params, --size 128KB, --latency 20ms) or --quantize")
    quantize = bool(request.quantize)
    if "size" in costs and request.quantize is not False:
        quantize, limit = True, _float_limit(request, costs.pop("size"))
        costs |= {"size": limit} if limit is not None else {}
    steps: list[dict[str, Any]] = []
    if costs:
        steps.append({"prune.fpgm": costs})
        steps.append({"distill.kd": {} if request.epochs is None else {"epochs": request.epochs}})
    if quantize:
        steps.append({"quantize.minmax": {}})
    recipe = {
        "name": request.name, "model": request.model, "weights": request.weights, "data": request.data, "seed": request.seed,
        "train": None if request.train_epochs is None else {"epochs": request.train_epochs}, "steps": steps,
        "budget": {name: value for name in (*request.budget.costs(), "max_drop") if (value := getattr(request.budget, name)) is not None},
    }
    return Recipe.of({key: value for key, value in recipe.items() if value not in (None, {})})


def compress_to(request: Request, *, out: str | Path | None = None, progress: Callable[[str], None] | None = None) -> Outcome:
    """Compress to a budget; where that costs more than `max_drop`, try at most two gentler ones and say what could be met."""
    recipe = from_budget(request)
    folder = Path(out) if out is not None else default_folder(recipe)
    run = compress(recipe, out=folder, progress=progress)
    original, final = (run.variant(which).metrics for which in (0, -1))
    found = budgets.violations(request.budget, original, final)
    lost, allowed = budgets.drop(original, final), request.budget.max_drop
    if lost is None or allowed is None or lost <= allowed or not request.budget.costs():
        return Outcome(run, found)
    shares = {name: limit / original[name] for name, limit in request.budget.targets(original).items()}
    low, high, tried = 0.0, 1.0, []
    for _ in range(_TRIALS):
        middle = (low + high) / 2
        gentle = {name: share + (1 - share) * middle for name, share in shares.items()}
        strictest = min(gentle.values())
        if progress:
            progress(f"{lost:.2f} points lost, {allowed:g} allowed: trying {strictest:.0%}")
        trial = compress(_with_costs(request, gentle), out=folder.with_name(f"{folder.name}-{strictest:.0%}".rstrip("%")), progress=progress)
        trial_lost = budgets.drop(original, trial.variant(-1).metrics)
        ok = trial_lost is not None and trial_lost <= allowed
        tried.append((strictest, trial, ok))
        low, high = (low, middle) if ok else (middle, high)
    return Outcome(run, found, tuple(tried))


def _with_costs(request: Request, shares: dict[str, float]) -> Recipe:
    limits: dict[str, Any] = {name: f"{100 * share:.1f}%" for name, share in shares.items()}
    budget = Budget(**limits, max_drop=request.budget.max_drop)
    return from_budget(replace(request, name=None, budget=budget))


def _float_limit(request: Request, limit: float | int | str) -> str | None:
    """The size limit for the float file such that its int8 version keeps `limit`; `None` where int8 alone does."""
    value, relative = parse_limit(limit)
    if not relative:
        data = load_data(request.data)
        found = models.for_data(request.model, data, weights=request.weights, seed=request.seed)
        value /= measure.measures(data)["size"](found.model)
    share = value * _INT8_SHRINKS
    return None if share >= 1 else f"{100 * share:.2f}%"
