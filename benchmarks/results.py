"""Result files: one row per case, written as soon as it is measured, so that a long table resumes."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lilliput.core.atomic import write_text


def environment() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    import onnxruntime

    return {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "python": platform.python_version(),
            "machine": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def main(row: Callable[[str], dict[str, Any]], cases: Sequence[str], *, threads: int = 2) -> None:
    """Measure each case that the file does not hold yet: `--json FILE [CASE ...]`, `--again` to measure anew."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(threads)
    found = json.loads(options.json.read_text()) if options.json.exists() else {"rows": {}}
    for case in options.cases or cases:
        if case in found["rows"] and "error" not in found["rows"][case] and not options.again:
            continue
        found["rows"][case] = row(case)
        found["environment"] = environment()
        ordered = {name: found["rows"][name] for name in cases if name in found["rows"]}
        found["rows"] = ordered | {n: r for n, r in found["rows"].items() if n not in ordered}
        write_text(options.json, json.dumps(found, indent=1) + "\n")
        print(json.dumps(found["rows"][case]), flush=True)
