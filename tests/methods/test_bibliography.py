"""refs.bib: parsed whole, cited whole, and nothing cited that is not there."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput import methods
from lilliput.core import CorruptFileError
from lilliput.methods.bibliography import parse

GOOD = "@inproceedings{sun2024wanda,\n  author = {Sun, Mingjie and Liu, Zhuang},\n  year = {2024},\n}\n"


def test_keys_and_citations_agree_both_ways() -> None:
    cited = {key for row in methods.rows() for key in row.cite} | in_docstrings()
    assert cited - set(methods.bibliography()) == set(), "cited, but not in refs.bib"
    assert set(methods.bibliography()) - cited == set(), "in refs.bib, but cited by no row and no docstring"


def in_docstrings() -> set[str]:
    """Keys cited anywhere in the sources: name, year, word."""
    files = (Path(__file__).parents[2] / "src").rglob("*.py")
    return {key for file in files for key in re.findall(r"\b[a-z]{2,}(?:19|20)\d\d[a-z]{2}[a-z0-9]*\b", file.read_text(encoding="utf-8"))}


def test_entries_are_consistent() -> None:
    keys = list(methods.bibliography())
    assert keys == sorted(keys)
    for key, entry in methods.bibliography().items():
        assert re.fullmatch(r"[a-z]+\d{4}[a-z0-9]*", key), key
        assert str(entry.year) in key, key
        assert entry.authors, key
        assert entry.title or entry.fields.get("note"), f"{key} needs a title, or a note that says why there is none"
        assert entry.kind in {"inproceedings", "article", "misc", "phdthesis"}, key
        assert set(entry.fields) <= {"author", "title", "year", "booktitle", "journal", "school", "howpublished", "note"}, key


def test_known_entry() -> None:
    entry = methods.bibliography()["sun2024wanda"]
    assert entry.authors == ("Sun, Mingjie", "Liu, Zhuang", "Bair, Anna", "Kolter, J. Zico")
    assert (entry.year, entry.venue, entry.short) == (2024, "ICLR", "Sun et al. 2024")
    assert entry.title == "A Simple and Effective Pruning Approach for Large Language Models"


@pytest.mark.parametrize(("authors", "short"), [
    ("Lloyd, Stuart P.", "Lloyd 2001"), ("Tan, M. and Le, Q.", "Tan and Le 2001"), ("A, B and C, D and E, F", "A et al. 2001"),
    ("A, B and others", "A et al. 2001"), ("{NVIDIA}", "NVIDIA 2001"),
])
def test_short_form(authors: str, short: str) -> None:
    assert parse(f"@misc{{x2001, author = {{{authors}}}, year = {{2001}}}}")["x2001"].short == short


@pytest.mark.parametrize(("text", "line", "complaint"), [
    (GOOD + GOOD, 5, "the key sun2024wanda is there already"),
    (GOOD.replace("author", "writer"), 1, "needs author and year"),
    (GOOD.replace("{2024}", "{soon}"), 1, "needs author and year"),
    (GOOD.replace("{2024},\n}", "{2024"), 3, "never closed"),
    (GOOD.replace("{2024}", "2024"), 2, "expected another field"),
    (GOOD.replace("Zhuang},", "Zhuang}"), 3, "expected , or }"),
    (GOOD + "stray", 4, "expected @kind"),
])
def test_what_is_no_entry_is_refused_with_its_line(text: str, line: int, complaint: str) -> None:
    with pytest.raises(CorruptFileError, match=re.escape(complaint)) as caught:
        parse(text)
    assert abs(int(str(caught.value).split(":")[1]) - line) <= 1


VALUES = st.text(st.characters(blacklist_characters="{}", blacklist_categories=("Cs",)), min_size=1).map(lambda s: " ".join(s.split())).filter(bool)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), VALUES), st.integers(1000, 2999))
def test_what_is_written_is_read_back(fields: dict[str, str], year: int) -> None:
    fields = {**fields, "author": "A, {B {C}}", "year": str(year)}
    text = "@misc{k,\n" + "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items()) + "}\n"
    assert dict(parse(text)["k"].fields) == fields


@given(st.text(st.sampled_from("@{}=,ab1 \n")))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(CorruptFileError):
        parse(text)
