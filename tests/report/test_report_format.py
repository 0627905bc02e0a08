"""Figures as text: known values, and that no number at all breaks them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.core import parse_limit
from lilliput.report import format

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30)


@pytest.mark.parametrize(("key", "value", "text"), [
    ("params", 269_434, "269 k"), ("params", 999, "999"), ("macs", 40_812_032, "40.8 M"), ("macs", 4.09e9, "4.09 G"),
    ("size", 87_004, "85.0 KiB"), ("size", 1_092_401, "1.04 MiB"), ("size", 12, "12 B"), ("latency", 412e-6, "412 µs"),
    ("latency", 0.0204, "20.4 ms"), ("latency", 1.5, "1.50 s"), ("accuracy", 97.2222, "97.22%"), ("accuracy", None, "–"),
    ("max_drop", 1, "1.00 points"), ("latency", 0.0, "0 s"), ("carbon_grams", 3.14159, "3.14"),
])
def test_known_figures(key, value, text):
    assert format.quantity(key).show(value) == text


def test_a_column_keeps_the_unit_of_its_smallest_figure_unless_that_gets_silly():
    size = format.quantity("size")
    assert size.scale([1_092_401, 148_612]) == (1024.0, " KiB")
    assert size.scale([1e9, 12]) == (1024.0**2, " MiB")
    assert size.scale([None, 0]) == size.units[0]


@pytest.mark.parametrize(("before", "after", "text"), [
    (40.0, 20.0, "−50.0%"), (20.0, 40.0, "+100.0%"), (5.0, 5.0, "±0%"), (1e6, 1e6 + 1, "≈0%"), (1.0, 30.0, "×30"),
    (0.0, 4.0, ""), (1e6, 1.0, "−100.00%"),
])
def test_changes_of_costs(before, after, text):
    assert format.percent_change(before, after) == text


@pytest.mark.parametrize(("before", "after", "text"), [(97.22, 96.94, "−0.28"), (90.0, 90.0, "±0.00"), (90.0, 92.5, "+2.50")])
def test_changes_of_accuracy_are_points(before, after, text):
    assert format.quantity("accuracy").change(before, after) == text


@pytest.mark.parametrize(("before", "after", "text"), [
    (100, 25, "4.0× smaller"), (100, 97, "1.03× smaller"), (100, 100.1, "unchanged"), (10, 15, "1.5× larger"), (0, 3, ""), (3, None, ""),
])
def test_ratios(before, after, text):
    assert format.ratio(before, after) == text


def test_better_knows_the_direction():
    assert format.quantity("accuracy").better(90, 91) is True
    assert format.quantity("latency").better(1.0, 2.0) is False
    assert format.quantity("macs").better(1.0, 1.0) is None


@given(value=st.floats(min_value=1e-9, max_value=1e12))
def test_what_is_shown_of_sizes_can_be_written_as_a_budget(value):
    shown = format.quantity("latency").show(value).replace(",", "").replace("µ", "u").replace(" ", "")
    if "e" not in shown and float(re.match(r"[0-9.]+", shown)[0]) > 0:
        assert parse_limit(shown)[0] == pytest.approx(value, rel=0.006, abs=6e-14)


@given(value=NUMBERS, other=NUMBERS, key=st.sampled_from([*format.QUANTITIES, "unknown"]))
def test_every_number_gives_short_text_without_a_hyphen(value, other, key):
    q = format.quantity(key)
    for text in (q.show(value), q.change(value, other), format.ratio(value, other), format.share(value)):
        assert len(text) < 60
        assert not re.search(r"(?<!e)-", text)
        assert "nan" not in text


@given(text=st.text())
def test_plain_text_is_one_line_without_control_characters(text):
    cleaned = format.plain(text)
    assert len(cleaned) <= 200
    assert all(c.isprintable() for c in cleaned)


def test_plain_drops_what_turns_text_around_or_drives_a_terminal():
    assert format.plain("a\u202eb\x1b[31mc\nd") == "ab [31mc d"


def test_durations():
    assert [format.duration(s) for s in (0.34, 59.94, 75, 7322)] == ["0.3 s", "59.9 s", "1 min 15 s", "2 h 2 min"]
