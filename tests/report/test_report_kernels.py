"""The section on kernels and threads: order, collapse, text, and files that are missing, damaged or hostile."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lilliput.core import CorruptFileError
from lilliput.report import from_run, render
from lilliput.report.kernels import machine


def kernel(index: int, **changes: Any) -> dict[str, Any]:
    return {"layer": f"layer{index}", "op": "QLinearConv", "domain": "com.microsoft", "provider": "CPUExecutionProvider", "nodes": ["c", "r"],
            "ops": ["DequantizeLinear", "Conv", "DequantizeLinear"], "sentence": "2 DequantizeLinear + Conv", "seconds": 1e-6 * (index + 1), "share": 0.01 * (index + 1), **changes}


def timing(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.9 * median, "high": 1.1 * median, "rounds": 15}


def found(count: int = 12, **changes: Any) -> dict[str, Any]:
    rows = [{"threads": n, "latency": timing(8e-4 / n), "throughput": 1250.0 * n, "speedup": timing(0.8 * n), "efficiency": timing(0.8)} for n in (1, 2)]
    return {"label": "int8", "threads": 1, "runs": 30, "kernels": [kernel(i) for i in range(count)], "removed": ["w", "b"], "scaling": rows, **changes}


def folder_with(folder: Path, content: Any) -> Path:
    (folder / "kernels.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_slowest_first_and_the_rest_collapsed(make_run):
    folder = folder_with(make_run(), found())
    section = machine(from_run(folder).kernels)
    assert section is not None
    assert [row.layer for row in section.slowest] == [f"layer{i}" for i in range(11, 1, -1)]
    assert [row.layer for row in section.others] == ["layer1", "layer0"]
    assert [row.time for row in section.slowest[:2]] == ["12 µs", "11 µs"]
    assert section.slowest[0].made_of == "2 DequantizeLinear + Conv"
    assert (section.slowest[0].kernel, section.slowest[0].percent, section.slowest[5].percent) == ("QLinearConv (com.microsoft)", 100, pytest.approx(100 * 7 / 12))
    assert section.summary.startswith("36 operators became 12 kernels. 2 were computed ahead")
    assert [(row.threads, row.latency, row.speedup[0], row.efficiency) for row in section.threads] == [
        (1, ("800 µs", "720 to 880 µs"), "0.800×", "80%"), (2, ("400 µs", "360 to 440 µs"), "1.60×", "80%")]
    page = render(from_run(folder))
    inside = re.search(r"<details><summary>2 faster kernels</summary>(.*?)</details>", page, re.S)
    assert inside
    assert re.findall(r"<code>(layer\d+)</code>", inside[1]) == ["layer1", "layer0"]
    assert page.index("<code>layer11</code>") < page.index("<code>layer2</code>") < page.index("2 faster kernels") < page.index("Over threads")


def test_ten_kernels_are_not_collapsed_and_what_was_added_is_said(make_run):
    rows = [kernel(i) for i in range(8)] + [kernel(8, ops=[], nodes=[], part_of="GroupNormalization", sentence="part of GroupNormalization")]
    rows.append(kernel(9, ops=[], nodes=[], op="Transpose", domain="ai.onnx", sentence="added by the runtime"))
    page = render(from_run(folder_with(make_run(), found(kernels=rows, removed=[]))))
    assert "faster kernels" not in page
    assert "24 operators became 9 kernels. 1 was added to change layouts.</p>" in page
    assert page.count("added by the runtime") == page.count("part of GroupNormalization") == 1


def test_without_the_file_there_is_no_section(make_run):
    view = from_run(make_run())
    assert view.kernels == {}
    assert "kernels-h" not in render(view)


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_damaged_file_is_named(make_run, text):
    with pytest.raises(CorruptFileError, match=r"kernels\.json"):
        from_run(folder_with(make_run(), text))


@pytest.mark.parametrize("content", [
    {}, {"kernels": "none", "scaling": 3, "removed": {}}, {"kernels": [1, None, {}], "scaling": [None, {}, {"threads": "two", "latency": []}]},
    {"kernels": [kernel(0, seconds=float("nan"), share=-1, ops=[None, 3, {"a": 1}], layer=None)], "scaling": []},
    {"kernels": [kernel(0, seconds=1e300, share=1e25)], "scaling": [{"threads": 1e29, "latency": timing(float("inf"))}]},
])
def test_values_that_are_none_are_left_out(make_run, content):
    page = render(from_run(folder_with(make_run(), content)))
    assert ("kernels-h" in page) == isinstance(content.get("kernels"), list)
    assert "nan" not in page[page.index("<main>"):page.index("recipe-h")].lower()


def test_hostile_names_are_escaped(make_run):
    evil = "</script><img src=x onerror=alert(1)>{{7*7}}\x00\u202e" + "x" * 5000
    rows = [kernel(i, layer=evil, op=evil, domain=evil, ops=[evil], sentence=evil) for i in range(12)]
    page = render(from_run(folder_with(make_run(), found(kernels=rows, label=evil))))
    assert "<img" not in page
    assert "49" not in re.findall(r"<code>(.*?)</code>", page, re.S)[0]
    assert "x" * 400 not in page
    assert "\u202e" not in page
