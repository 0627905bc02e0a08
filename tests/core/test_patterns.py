import pytest

from lilliput.core.errors import RecipeError, UnknownNameError
from lilliput.core.patterns import matching

NAMES = ("stem", "layer1.0", "layer1.1", "Head")


def test_matching():
    assert matching((), NAMES) == set()
    assert matching(("layer1.?", "stem"), NAMES) == {"layer1.0", "layer1.1", "stem"}
    assert matching(["*"], NAMES) == set(NAMES)


def test_what_matches_nothing_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown layer in exclude 'layer1'; did you mean layer1"):
        matching(("stem", "layer1"), NAMES)
    with pytest.raises(UnknownNameError, match="unknown tensor 'head'"):  # case counts
        matching(("head",), NAMES, "tensor")
    with pytest.raises(RecipeError, match=r"a tuple of patterns: \('stem',\)"):
        matching("stem", NAMES)
