"""The table of figures in `benchmarks/README.md`, written from the result files.

    python -m benchmarks.table [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import FIGURES

HOME = Path(__file__).resolve().parent
_BEGIN, _END = "<!-- table -->", "<!-- end of table -->"
# Where the module has another name than its results.
_COMMANDS = {"quantize": "quantize_family", "prune": "prune_family"}


def table(results: Path) -> str:
    """The table in Markdown; a figure without its result file is marked as not measured."""
    lines = ["| figure | bar | measured | peer | met | command |", "|---|---|---|---|---|---|"]
    machines = set()
    for figure in FIGURES:
        found = _results(results / figure.file)
        measured, peer, met = "not measured", "", "no"
        if found:
            machines.add(", ".join(f"{key} {value}" for key, value in found["environment"].items() if key != "threads"))
            try:
                measured, peer, good = figure.cell(found["rows"])
                met = "yes" if good else "no"
            except KeyError as missing:
                measured = f"not measured ({missing.args[0]})"
        lines.append(f"| {figure.name} | {figure.bar} | {measured} | {peer} | {met} | `benchmarks.{_COMMANDS.get(figure.file, figure.file)}` |")
    return "\n".join([*lines, "", *(f"Measured with: {machine}." for machine in sorted(machines))])


def _results(path: Path) -> dict[str, Any]:
    """Rows and environment of a result file, or of a folder of them; nothing where there is neither."""
    if path.is_dir():
        files = [json.loads(file.read_text()) for file in sorted(path.glob("*.json"))]
        return {"rows": {found["case"]: found for found in files}, "environment": files[0]["environment"]} if files else {}
    file = path.with_suffix(".json")
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def main() -> int:
    """Write the table, or with `--check` say whether it is current."""
    readme = HOME / "README.md"
    text = readme.read_text()
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    new = f"{before}{_BEGIN}\n{table(HOME / 'results')}\n{_END}{after}"
    if "--check" in sys.argv[1:]:
        return int(new != text)
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
