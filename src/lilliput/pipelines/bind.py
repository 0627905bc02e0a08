"""From a recipe to the step objects it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from lilliput import methods
from lilliput.core import LilliputError, PreconditionError, Step
from lilliput.data import Data
from lilliput.graph import trace
from lilliput.pipelines import models
from lilliput.pipelines.options import Builder
from lilliput.pipelines.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a step may need that no recipe file can hold: the original (the default teacher), data and measuring functions."""

    original: nn.Module
    data: Data
    measures: Mapping[str, Callable[[nn.Module], float]] = field(default_factory=dict)
    checkpoints: Path | None = None


def bind(recipe: Recipe, context: Context) -> tuple[Step, ...]:
    """Build every step of `recipe`; trains nothing. Raises `RecipeError` with line and field."""
    return tuple(step(recipe, index, context) for index in range(len(recipe.steps)))


def step(recipe: Recipe, index: int, context: Context) -> Step:
    """Build one step; a teacher that is not named is the chain's original model."""
    text, place = recipe.steps[index], recipe.place(index)
    function = methods.build(text.method)
    builder = Builder(source=recipe.source, seed=recipe.seed)
    options = dict(text.options)
    supplied: dict[str, Any] = {"teacher": context.original, "measure": context.measures}
    if context.checkpoints is not None:
        supplied["checkpoint"] = context.checkpoints / f"{index + 1}-{text.method}.ckpt"
    if isinstance(options.get("teacher"), str):
        supplied["teacher"] = _teacher(recipe, options.pop("teacher"), index, context.data)
    parameters = inspect.signature(function).parameters
    if "teacher" in parameters and not context.data.num_classes:
        raise recipe.source.error(place, f"{context.data.name} has no classes to distil; leave {text.method} out, or use data with labels")
    return _call(builder, function, builder.arguments(function, options, place, supplied), recipe, index)


def _call(builder: Builder, function: Callable[..., Step], arguments: Mapping[str, Any], recipe: Recipe, index: int) -> Step:
    method, place = recipe.steps[index].method, recipe.place(index)
    missing = [name for name, p in inspect.signature(function).parameters.items()
               if p.default is p.empty and name not in arguments and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if missing:
        hint = ", such as macs: 50%" if "budget" in missing else ""
        raise recipe.source.error(place, f"{method} needs {' and '.join(missing)}{hint}")
    built = builder.call(function, arguments, place)
    if not callable(built):
        raise recipe.source.error(place, f"{method} builds no step; it is for use in Python")
    return built  # type: ignore[no-any-return]


def _teacher(recipe: Recipe, reference: str, index: int, data: Data) -> nn.Module:
    place = (*recipe.place(index), "teacher")
    try:
        found = models.for_data(reference, data, seed=recipe.seed)
        if not found.trained:
            raise PreconditionError(f"{reference} comes untrained; name a trained teacher (model.pt2 or package.module:factory), "
                                    "or leave teacher out to distil from the original")
    except LilliputError as error:
        raise recipe.source.error(place, str(error)) from error
    return trace(found.model, data.example()).eval()
