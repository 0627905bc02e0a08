"""The contracts: limits, budgets, reports, chains, errors, atomic writes."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.core import (
    Budget,
    BudgetError,
    Entry,
    PreconditionError,
    Report,
    Result,
    UnknownNameError,
    chain,
    describe,
    parse_limit,
)
from lilliput.core.atomic import atomic_path, write_text


@pytest.mark.parametrize(("text", "value", "relative"), [
    ("50%", 0.5, True), ("0.5", 0.5, True), (0.25, 0.25, True), (1.0, 1.0, True), ("1", 1.0, False), (3, 3.0, False),
    ("41M", 41e6, False), ("128KB", 131072.0, False), ("20ms", 0.02, False), ("1.5G", 1.5e9, False), (" 7 us ", 7e-6, False),
])
def test_limits(text, value, relative):
    found = parse_limit(text)
    assert found == (pytest.approx(value), relative)


@pytest.mark.parametrize("text", ["", "x", "50 %%", "-3", "0", "nan", "1e999", "5 parsecs", -1.0, 0, float("inf"), "--", "1__0"])
def test_bad_limits_are_refused(text):
    with pytest.raises(BudgetError):
        Budget(macs=text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        value, _ = parse_limit(text)
    except BudgetError:
        return
    assert 0 < value < float("inf")


def test_budget_targets():
    budget = Budget(macs="50%", size="100KB", max_drop=1.0)
    assert budget.costs() == ("macs", "size")
    assert budget.targets({"macs": 200.0}) == {"macs": 100.0, "size": 102400.0}
    with pytest.raises(PreconditionError, match="must be measured"):
        Budget(latency=0.5).targets({})
    with pytest.raises(BudgetError, match="max_drop"):
        Budget(max_drop=-1)


def test_bits_are_no_share_and_energy_has_its_units():
    budget = Budget(bits=0.8, energy="3mJ")
    assert budget.costs() == ("energy", "bits")
    assert budget.targets({}) == {"energy": pytest.approx(3e-3), "bits": 0.8}
    assert Budget(energy="50%").targets({"energy": 4.0}) == {"energy": 2.0}
    for bits in (0, -1.0, 33, float("nan")):
        with pytest.raises(BudgetError, match="bits"):
            Budget(bits=bits)


def test_reports_round_trip_and_concatenate():
    first = Report((Entry(method="prune.fpgm", metrics={"macs": 1.0}, layers=({"layer": "a", "channels_after": 3},), notes=("n",)),))
    both = first + Report((Entry(method="quantize.minmax", promised={"macs": 2.0}),))
    assert Report.from_json(both.to_json()) == both
    for text in ("[{}]", "[1]", "{", '[{"method": "x", "unknown": 1}]'):
        with pytest.raises((TypeError, ValueError)):
            Report.from_json(text)


def test_chain_runs_in_order_and_flattens():
    def step(name):
        return lambda model, data: Result(model + name, Report((Entry(method=name),)))

    whole = chain(step("a"), chain(step("b"), step("c")))
    assert len(whole.steps) == 3
    result = whole("", None)
    assert result.model == "abc"
    assert [e.method for e in result.report.entries] == ["a", "b", "c"]


def test_unknown_names_offer_the_nearest():
    error = UnknownNameError("method", "prune.fpmg", ["prune.fpgm", "prune.taylor"])
    assert "did you mean prune.fpgm" in str(error)
    assert "known: a, b" in str(UnknownNameError("thing", "zzz", ["b", "a"]))


def test_records_have_no_addresses():
    assert describe([chain, 3]) == "[chain, 3]"
    assert "0x" not in describe(object())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
