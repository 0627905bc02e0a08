"""Recipes: read back as written, refused with line and field."""

from pathlib import Path

import pytest

from lilliput.core import RecipeError
from lilliput.pipelines.recipe import Recipe

GOOD = """\
name: half
model: resnet20
data: fashion_mnist
seed: 3
train: {epochs: 2}
steps:
  - prune.fpgm: {macs: 50%}
  - distill.kd:
      temperature: 4.0
      epochs: 5
  - quantize.minmax
budget: {macs: 50%, max_drop: 0.5}
"""


def test_reads_and_writes_the_same_recipe() -> None:
    recipe = Recipe.parse(GOOD)
    assert [(step.method, step.options) for step in recipe.steps] == [
        ("prune.fpgm", {"macs": "50%"}), ("distill.kd", {"temperature": 4.0, "epochs": 5}), ("quantize.minmax", {})]
    again = Recipe.parse(recipe.to_yaml())
    assert again.to_dict() == recipe.to_dict()
    assert again.digest == recipe.digest == Recipe.of(recipe.to_dict()).digest


def test_digest_follows_content_not_spelling_or_name() -> None:
    recipe = Recipe.parse(GOOD)
    assert Recipe.parse(GOOD.replace("name: half", "name: other")).digest == recipe.digest
    assert Recipe.parse("# a comment\n" + GOOD.replace("quantize.minmax", "{quantize.minmax: {}}")).digest == recipe.digest
    assert Recipe.parse(GOOD.replace("seed: 3", "seed: 4")).digest != recipe.digest


@pytest.mark.parametrize(("old", "new", "said"), [
    ("seed: 3", "sed: 3", "half.yaml:4: sed: unknown field; did you mean seed or steps?"),
    ("seed: 3", "seed: many", "half.yaml:4: seed:"),
    ("seed: 3", "seed: -1", "half.yaml:4: seed:"),
    ("model: resnet20\n", "", "model: is missing"),
    ("prune.fpgm:", "prune.fpgn:", "half.yaml:7: steps.0.prune.fpgn: unknown method 'prune.fpgn'; did you mean prune.fpgm"),
    ("prune.fpgm:", "search.darts:", "half.yaml:7: steps.0.search.darts: search.darts is planned"),
    ("{macs: 50%}\n", "50%\n", "half.yaml:7: steps.0: the options of prune.fpgm must be a mapping"),
    ("  - quantize.minmax", "  - {a: 1, b: 2}", "half.yaml:11: steps.2: a step is one catalogue id"),
    ("max_drop: 0.5", "max_drop: 500", "half.yaml:12: budget: max_drop is percentage points"),
    ("max_drop: 0.5", "max_dorp: 0.5", "half.yaml:12: budget.max_dorp: unknown field; did you mean max_drop?"),
    ("{macs: 50%, max", "{macs: cheap, max", "half.yaml:12: budget: cannot read 'cheap'"),
    ("name: half", "name: ../../etc", "half.yaml:1: name: use letters"),
    ("  - quantize.minmax", "  - quantize.minmax\n  - prune.fpgm: {macs: 50%}",
     "half.yaml:12: steps.3.prune.fpgm: cannot follow quantize.minmax, whose integers are fixed; put prune.fpgm first"),
    ("  - quantize.minmax", "  - quantize.minmax\n  - quantize.mse", "half.yaml:12: steps.3.quantize.mse: the network is quantized already"),
])
def test_complaints_name_line_and_field(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(GOOD.replace(old, new), "half.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b", "3", "model: a\ndata: b\nsteps: []", "model: a\ndata: b\nsteps: {a: b}"])
def test_what_is_no_recipe(text: str) -> None:
    with pytest.raises(RecipeError):
        Recipe.parse(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*gone\.yaml: No such file"):
        Recipe.read(tmp_path / "gone.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.read(tmp_path / "binary.yaml")
