"""Recipes: one file that says model, data, steps and budget; checked before anything runs, hashed to name what it made.

    name: fashion-half            # optional
    model: resnet20               # a zoo name, package.module:factory or model.pt2
    options: {width: 1.0}         # optional, what a zoo family or factory takes
    data: fashion_mnist
    seed: 0
    train: {epochs: 10}           # how the original is trained, where it comes without weights
    steps:
      - prune.fpgm: {macs: 50%}
      - distill.kd: {temperature: 4.0, epochs: 5}
      - quantize.minmax
    budget: {macs: 50%, max_drop: 0.5}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from lilliput.core import Budget, LilliputError, RecipeError
from lilliput.pipelines.options import nearest
from lilliput.pipelines.yamltext import Place, Source, read_yaml

# Training and pruning need weights that are free to move, so quantization comes last; what chooses no grid (low rank) leaves them free.
_ORDER = {"prune": 0, "distill": 1, "quantize": 2}


class StepText(BaseModel):
    """One step as written: a catalogue id and its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_key(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"method": value}
        if isinstance(value, Mapping) and len(value) == 1 and "method" not in value:
            (method, options), = value.items()
            if options is not None and not isinstance(options, Mapping):
                raise ValueError(f"the options of {method} must be a mapping, such as {{macs: 50%}}, not {options!r}")
            return {"method": method, "options": dict(options or {})}
        if isinstance(value, Mapping) and set(value) <= {"method", "options"}:
            return value
        raise ValueError("a step is one catalogue id and its options, such as prune.fpgm: {macs: 50%}")

    @property
    def family(self) -> str:
        """The part of the id before the dot."""
        return self.method.partition(".")[0]


class BudgetText(BaseModel):
    """A `core.Budget` as written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    macs: float | int | str | None = None
    params: float | int | str | None = None
    size: float | int | str | None = None
    latency: float | int | str | None = None
    max_drop: float | None = None

    @model_validator(mode="after")
    def _limits_parse(self) -> BudgetText:
        try:
            self.budget()
        except LilliputError as error:
            raise ValueError(str(error)) from error
        return self

    def budget(self) -> Budget:
        """The budget itself."""
        return Budget(**self.model_dump())


class Recipe(BaseModel):
    """A whole compression as data; `Recipe.read` and `Recipe.parse` give errors with line and field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    model: str = Field(min_length=1)
    options: dict[str, bool | int | float] = Field(default_factory=dict)
    weights: str | None = None
    data: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    train: dict[str, Any] | None = None
    steps: tuple[StepText, ...] = Field(min_length=1, max_length=50)
    budget: BudgetText | None = None
    _source: Source = PrivateAttr(default_factory=Source)

    @field_validator("model", "data", "weights", "name", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, str) and (not value.isprintable() or len(value) > 1000):
            raise ValueError("must be one line of printable text")
        return value

    @property
    def source(self) -> Source:
        """Where the recipe was written, for errors."""
        return self._source

    @staticmethod
    def read(path: str | Path) -> Recipe:
        """Read a recipe file; raises `RecipeError` with line, field and the nearest names."""
        try:
            with open(path, encoding="utf-8") as stream:
                text = stream.read(1 << 20)
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read the recipe {path}: {getattr(error, 'strerror', None) or error}") from error
        return Recipe.parse(text, str(path))

    @staticmethod
    def parse(text: str, name: str = "recipe") -> Recipe:
        """Read recipe text; raises `RecipeError` with line, field and the nearest names."""
        value, source = read_yaml(text, name)
        return Recipe.of(value, source)

    @staticmethod
    def of(value: Any, source: Source | None = None) -> Recipe:
        """A recipe from plain values, checked as one from text is."""
        source = source or Source()
        if not isinstance(value, Mapping):
            raise source.error((), f"a recipe is a mapping with {', '.join(Recipe.model_fields)}")
        try:
            recipe = Recipe.model_validate(dict(value))
        except ValidationError as error:
            raise _first(error, source) from None
        recipe._source = source
        recipe._check_steps()
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `of` reads back; steps as `{id: options}`."""
        out = self.model_dump(mode="json", exclude_none=True, exclude={"steps"})
        return {**out, "steps": [{step.method: step.options} for step in self.steps]}

    def to_yaml(self) -> str:
        """Recipe text that `parse` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @property
    def digest(self) -> str:
        """SHA-256 over the normal form; the name, which changes nothing that is computed, stays out."""
        normal = {key: value for key, value in self.to_dict().items() if key != "name"}
        return hashlib.sha256(json.dumps(normal, sort_keys=True).encode()).hexdigest()

    def place(self, index: int) -> Place:
        """Where the options of step `index` stand in the document."""
        return ("steps", index, self.steps[index].method)

    def _check_steps(self) -> None:
        """Methods exist and work, and their order can work."""
        from lilliput import methods

        for index, step in enumerate(self.steps):
            try:
                methods.build(step.method)
            except LilliputError as error:
                raise self.source.error(self.place(index), str(error)) from error
            if step.family not in _ORDER:
                raise self.source.error(self.place(index), f"{step.family} methods are no steps of a recipe; use {', '.join(_ORDER)}")
        for index in range(1, len(self.steps)):
            earlier, later = self.steps[index - 1], self.steps[index]
            fixed, again = (step.family == "quantize" and "grid" in methods.get(step.method).axes for step in (earlier, later))
            if fixed and again:
                raise self.source.error(self.place(index), f"the network is quantized already by {earlier.method}; keep one of the two")
            if fixed:
                raise self.source.error(
                    self.place(index), f"cannot follow {earlier.method}, whose integers are fixed; "
                                       f"put {later.method} first: prune, then distil, then quantize")


def _first(error: ValidationError, source: Source) -> RecipeError:
    """The first complaint, in words, with its line."""
    complaint = error.errors()[0]
    place = tuple(part for part in complaint["loc"] if part not in ("float", "int", "str"))
    message = complaint["msg"].removeprefix("Value error, ")
    if complaint["type"] == "extra_forbidden":
        known = BudgetText.model_fields if place[:1] == ("budget",) else Recipe.model_fields
        message = f"unknown field; {nearest(str(place[-1]), known)}"
    elif complaint["type"] == "missing":
        message = "is missing; a recipe needs model, data and steps"
    elif complaint["type"] == "string_pattern_mismatch":
        message = "use letters, digits, '.', '_' and '-', at most 100"
    return source.error(place, message)
