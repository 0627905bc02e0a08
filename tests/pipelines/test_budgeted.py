"""Budgets become recipes; verdicts compare what was asked with what was reached."""

import pytest

from lilliput.core import Budget, BudgetError, Entry
from lilliput.pipelines import budgeted, budgets
from lilliput.pipelines.budgeted import Request, from_budget
from lilliput.pipelines.demonstration import recipe as demo_recipe

ORIGINAL = {"macs": 100.0, "params": 10.0, "size": 4000.0, "latency": 0.01, "val_accuracy": 90.0}


def methods(budget: Budget, quantize: bool | None = None) -> list[str]:
    return [step.method for step in from_budget(Request(model="resnet8", data="digits", budget=budget, quantize=quantize)).steps]


@pytest.mark.parametrize(("budget", "quantize", "expected"), [
    (Budget(macs="50%", max_drop=0.5), None, ["prune.fpgm", "distill.kd"]),
    (Budget(macs="50%"), True, ["prune.fpgm", "distill.kd", "quantize.minmax"]),
    (Budget(size="40%"), None, ["quantize.minmax"]),
    (Budget(size="10%"), None, ["prune.fpgm", "distill.kd", "quantize.minmax"]),
    (Budget(size="40%"), False, ["prune.fpgm", "distill.kd"]),
    (Budget(max_drop=1.0), True, ["quantize.minmax"]),
])
def test_steps_for_a_budget(budget: Budget, quantize: bool | None, expected: list[str]) -> None:
    assert methods(budget, quantize) == expected


def test_int8_leaves_pruning_less_to_do() -> None:
    recipe = from_budget(Request(model="resnet8", data="digits", budget=Budget(size="10%")))
    assert recipe.steps[0].options == {"size": "35.00%"}


def test_a_budget_that_limits_nothing() -> None:
    with pytest.raises(BudgetError, match="nothing to do: give a limit"):
        methods(Budget(max_drop=1.0))


def test_violations_and_verdict() -> None:
    budget = Budget(macs="50%", size=1000, max_drop=0.5)
    good = {**ORIGINAL, "macs": 50.0, "size": 1000.0, "val_accuracy": 89.5}
    bad = {**ORIGINAL, "macs": 60.0, "size": 900.0, "val_accuracy": 88.0}
    assert budgets.violations(budget, ORIGINAL, good) == ()
    found = budgets.violations(budget, ORIGINAL, bad)
    assert [text.partition(":")[0] for text in found] == ["macs", "accuracy"]
    assert "at most 50 MACs asked, 60 reached" in found[0]
    entry = budgets.verdict(budget, ORIGINAL, budgets.verdict(budget, ORIGINAL, Entry(method="x", metrics=bad)))
    assert entry.promised == {"macs": 50.0, "size": 1000.0, "max_drop": 0.5}
    assert entry.measured == {"macs": 60.0, "size": 900.0, "max_drop": 2.0}
    assert len(entry.notes) == 2


def test_drop_is_measured_on_validation_and_absent_without_classes() -> None:
    assert budgets.drop({"val_accuracy": 90.0, "accuracy": 50.0}, {"val_accuracy": 88.0, "accuracy": 99.0}) == 2.0
    assert budgets.drop({"macs": 1.0}, {"macs": 1.0}) is None


class FakeRun:
    """A run whose accuracy falls with what was cut."""

    def __init__(self, share: float, folder: object) -> None:
        self.share, self.folder = share, folder

    def variant(self, which: int) -> object:
        share = 1.0 if which == 0 else self.share
        return type("Row", (), {"metrics": {**ORIGINAL, "macs": 100 * share, "val_accuracy": 90 - 4 * (1 - share)}})()


def test_gentler_budgets_are_tried_at_most_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def compress(recipe: object, *, out: object, progress: object) -> FakeRun:
        asked.append(recipe.steps[0].options["macs"])  # type: ignore[attr-defined]
        return FakeRun(float(asked[-1].rstrip("%")) / 100, out)

    monkeypatch.setattr(budgeted, "compress", compress)
    outcome = budgeted.compress_to(Request(model="resnet8", data="digits", budget=Budget(macs="50%", max_drop=1.2)), out="x")
    assert asked == ["50%", "75.0%", "62.5%"]
    assert [ok for _, _, ok in outcome.gentler] == [True, False]
    assert outcome.advice == "75% of the original keeps within max_drop: x-75"
    assert len(outcome.violations) == 1


def test_the_demonstration_is_a_recipe() -> None:
    assert [step.method for step in demo_recipe().steps] == ["prune.fpgm", "distill.kd", "quantize.minmax"]
