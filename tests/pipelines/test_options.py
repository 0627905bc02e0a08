"""Plain values to typed arguments, and complaints that name field, type and what is near."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pytest

from lilliput.core import Budget, RecipeError
from lilliput.pipelines.options import Builder
from lilliput.pipelines.yamltext import Source


@dataclass(frozen=True, kw_only=True)
class Fast:
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class SlowAndSure:
    patience: int = 3

    def __post_init__(self) -> None:
        if self.patience < 0:
            raise ValueError("patience must not be negative")


@dataclass(frozen=True, kw_only=True)
class Training:
    epochs: int = 10
    pace: Fast | SlowAndSure = field(default_factory=Fast)
    seed: int = 0


def recipe(budget: Budget, *, fine_tune: Training | None = None, mode: Literal["a", "b"] = "a", parts: tuple[str, ...] = (),
           ratio: float = 0.5, seed: int = 0, teacher: Any = None, measure: Mapping[str, Callable[..., float]] | None = None,
           pick: Callable[..., float] | None = None) -> None: ...


def arguments(options: dict[str, Any], seed: int = 7, **supplied: Any) -> dict[str, Any]:
    return Builder(source=Source("r"), seed=seed).arguments(recipe, options, ("steps", 0), supplied)


def test_budget_and_fit_fields_are_gathered() -> None:
    got = arguments({"macs": "50%", "max_drop": 1, "epochs": 3, "ratio": 1})
    assert got["budget"] == Budget(macs="50%", max_drop=1.0)
    assert got["fine_tune"] == Training(epochs=3, seed=7)
    assert got["ratio"] == 1.0
    assert isinstance(got["ratio"], float)


def test_nested_and_tagged_dataclasses() -> None:
    got = arguments({"budget": {"macs": 0.5}, "fine_tune": {"pace": {"slow_and_sure": {"patience": 1}}, "seed": 3}, "parts": ["x"]})
    assert got["fine_tune"] == Training(pace=SlowAndSure(patience=1), seed=3)
    assert got["parts"] == ("x",)
    assert arguments({"fine_tune": {"pace": "SlowAndSure"}})["fine_tune"].pace == SlowAndSure()
    assert arguments({"fine_tune": None})["fine_tune"] is None


def test_supplied_values_and_seed_fill_what_is_open() -> None:
    got = arguments({}, teacher="net", measure={"size": len})
    assert got["teacher"] == "net"
    assert got["measure"] == {"size": len}
    assert got["seed"] == 7
    assert arguments({"seed": 1})["seed"] == 1


@pytest.mark.parametrize(("options", "said"), [
    ({"rato": 1}, "steps.0.rato: unknown option; did you mean ratio"),
    ({"mac": 1}, "steps.0.mac: unknown option; did you mean macs"),
    ({"fine_tune": {"epoch": 1}}, "steps.0.fine_tune.epoch: unknown field of Training; did you mean epochs"),
    ({"fine_tune": {"epochs": "many"}}, "steps.0.fine_tune.epochs: expected a whole number, got 'many'"),
    ({"fine_tune": {"epochs": True}}, "expected a whole number, got True"),
    ({"fine_tune": {"pace": {"slow": {}}}}, "steps.0.fine_tune.pace: expected one of fast, slow_and_sure"),
    ({"fine_tune": {"pace": {"slow_and_sure": {"patience": -1}}}}, "slow_and_sure: patience must not be negative"),
    ({"fine_tune": 3}, "steps.0.fine_tune: expected a mapping with some of epochs"),
    ({"mode": "c"}, "steps.0.mode: 'c' is none of 'a', 'b'"),
    ({"parts": "x"}, "steps.0.parts: expected a list"),
    ({"parts": [1]}, "steps.0.parts.0: expected text"),
    ({"ratio": [1]}, "steps.0.ratio: expected a number"),
    ({"macs": "fast"}, "cannot read 'fast'"),
    ({"budget": {"macs": 0.5}, "macs": 0.5}, "steps.0.macs: write it inside budget"),
    ({"teacher": {"a": 1}, "shape": 3}, "steps.0.shape: unknown option"),
    ({"pick": "len"}, "steps.0.pick: cannot be written in a recipe"),
    ({"measure": {"size": "len"}}, "steps.0.measure: unknown option"),
])
def test_complaints(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        arguments(options)
    assert said in str(caught.value)


class Shape(Protocol):
    def __call__(self, t: float) -> float: ...


def test_a_protocol_takes_the_dataclasses_beside_it() -> None:
    from lilliput.train import Cosine, Fit

    built = Builder(source=Source()).dataclass(Fit, {"schedule": {"cosine": {"warmup": 0.1}}, "optimizer": {"adamw": {"lr": 0.01}}}, ())
    assert built.schedule == Cosine(warmup=0.1)
    assert built.optimizer.lr == 0.01
    with pytest.raises(RecipeError, match="expected one of adam_w, sgd"):
        Builder(source=Source()).dataclass(Fit, {"optimizer": "adagrad"}, ("train",))
