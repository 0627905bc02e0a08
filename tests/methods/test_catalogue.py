"""The catalogue holds: every id of the scope, valid rows, and a bijection between rows that work and recipes."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lilliput import methods
from lilliput.core import CorruptFileError, PreconditionError, UnknownNameError
from lilliput.methods import catalogue

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCOPE = tuple((HERE / "scope.txt").read_text().split())
# What every method is compared with, and no paper claims.
BASELINES = ("prune.random",)
WORKING = [row for row in methods.rows() if row.works]
WORKING_IDS = [row.id for row in WORKING]
# Recipes are public names of one module per room; architectures and capabilities are built by what they name.
MODULES = sorted({row.build.partition(":")[0] for row in WORKING if row.build.partition(":")[0].endswith(".recipes")})

VALID = '''
conformance = "c"
[axes]
unit = "u"
[prune.a]
group = "g"
does = "d"
cite = []
axes = { unit = "row" }
status = "planned"
'''


def test_every_id_of_the_scope_is_there_once_and_in_order() -> None:
    assert len(SCOPE) == len(set(SCOPE)) == 401
    ids = [row.id for row in methods.rows()]
    assert len(ids) == len(set(ids))
    assert tuple(id for id in ids if id not in BASELINES) == SCOPE
    assert set(BASELINES) <= set(ids)


def test_rows_say_what_they_do_and_choose() -> None:
    for row in methods.rows():
        assert row.status in catalogue.STATUSES, row.id
        assert len(row.does) > 5, row.id
        assert "as above" not in row.does, row.id
        assert row.group, row.id
        assert row.axes, row.id
        assert all(isinstance(choice, str) and choice for choice in row.axes.values()), row.id
        assert set(row.axes) <= set(methods.family(row.family).axes), row.id


def test_planned_rows_promise_no_code() -> None:
    assert [row.id for row in methods.rows() if not row.works and (row.build or row.check)] == []


def test_figures_of_the_surveys_are_kept() -> None:
    row = methods.get("architectures.resnet50")
    assert dict(row.figures) == {"params_m": 25.6, "macs_g": 4.1, "top1": 76.0}
    assert methods.get("architectures.condensenet").variant == "74 (C=G=8)"
    assert methods.get("architectures.performer").grows == "N"
    assert methods.get("prune.fpgm").shows == "30% on ResNet-50 removes 42.2% of FLOPs"


@pytest.mark.parametrize("row", WORKING, ids=WORKING_IDS)
def test_a_row_that_works_has_recipe_and_check(row: methods.Row) -> None:
    recipe = methods.build(row.id)
    assert callable(recipe)
    assert (ROOT / row.check).is_file(), f"{row.id}: {row.check} does not exist"
    doc = inspect.getdoc(recipe) or ""
    assert doc, f"{row.build} needs a docstring"
    assert not row.cite or any(re.search(rf"\b{key}\b", doc) for key in row.cite), f"the docstring of {row.build} must cite {row.cite}"


@pytest.mark.parametrize("module", MODULES)
def test_rows_and_recipes_are_a_bijection(module: str) -> None:
    public = set(importlib.import_module(module).__all__)
    named = [row.build.partition(":")[2] for row in WORKING if row.build.startswith(f"{module}:")]
    assert len(named) == len(set(named)), "two rows name one recipe"
    assert public == set(named)


def test_every_recipes_module_has_working_rows() -> None:
    home = ROOT / "src" / "lilliput"
    found = {f"lilliput.{path.parent.name}.recipes" for path in home.glob("*/recipes*")}
    assert found == set(MODULES)


def test_an_unknown_id_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=re.escape("prune.fpgm")):
        methods.get("prune.fpgn")
    with pytest.raises(UnknownNameError, match=re.escape("prune.fpgm")):
        methods.get("prunes.fpgm")
    with pytest.raises(UnknownNameError, match="unknown family 'prunes'; did you mean prune"):
        methods.listing("prunes")


def test_building_a_planned_row_names_rows_that_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "prune.toml"
    works = VALID.replace('"planned"', '"works"\nbuild = "math:sqrt"\ncheck = "tests/x.py"')
    near, planned = VALID.partition("[prune.a]")[1:][1], works.replace("[prune.a]", "[prune.fpgm]")
    file.write_text(planned + "[prune.fpgm_soft]" + near)
    catalogue.family.cache_clear()
    monkeypatch.setattr(catalogue, "_FOLDER", tmp_path)
    try:
        assert methods.build("prune.fpgm")(9) == 3
        with pytest.raises(PreconditionError, match=re.escape("prune.fpgm_soft is planned and does not run yet; of its kind work prune.fpgm")):
            methods.build("prune.fpgm_soft")
    finally:
        catalogue.family.cache_clear()


@pytest.mark.parametrize(("old", "new", "complaint"), [
    ('does = "d"\n', "", "prune.a: lacks does"),
    ('does = "d"', 'dose = "d"\ndoes = "d"', "prune.a: unknown field dose"),
    ('"planned"', '"done"', "prune.a: status is works or planned, not 'done'"),
    ('"planned"', '"works"', "prune.a: a row that works needs build"),
    ('unit = "row"', 'unti = "row"', "rows choose on unti"),
    ("[axes]", "[axes", "Expected"),
    ("[prune.a]", "[distill.a]", "prune"),
    ('conformance = "c"', "", "conformance"),
])
def test_a_malformed_file_is_named_with_its_row(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    file = tmp_path / "prune.toml"
    file.write_text(VALID)
    assert catalogue.read_family(file).rows[0].id == "prune.a"
    assert old in VALID
    file.write_text(VALID.replace(old, new, 1))
    with pytest.raises(CorruptFileError, match=re.escape(complaint)) as caught:
        catalogue.read_family(file)
    assert str(file) in str(caught.value)


def test_json_rows_have_exactly_these_keys() -> None:
    listed = methods.as_json()
    assert [row["id"] for row in listed] == [row.id for row in methods.rows()]
    assert all(list(row) == ["id", "family", "status", "cite", "axes"] for row in listed)
    wanda = next(row for row in listed if row["id"] == "prune.wanda")
    assert wanda["cite"] == "sun2024wanda"
    assert wanda["axes"] == {"criterion": "wanda", "unit": "row or n:m", "allocation": "uniform", "schedule": "one shot"}
    assert methods.listing("prune") == [row for row in listed if row["family"] == "prune"]


def test_rows_cannot_be_changed() -> None:
    row = methods.get("prune.wanda")
    with pytest.raises(AttributeError):
        row.status = "works"  # type: ignore[misc]
    with pytest.raises(TypeError):
        row.axes["unit"] = "none"  # type: ignore[index]


def test_listing_imports_no_torch_and_is_quick() -> None:
    code = ("import sys, time; from lilliput import methods; t = time.process_time(); methods.rows(); "
            "print(time.process_time() - t, 'torch' in sys.modules, 'numpy' in sys.modules)")
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() for _ in range(3)]
    assert all(run[1:] == ["False", "False"] for run in runs)
    assert min(float(run[0]) for run in runs) < 0.05
