"""Seconds that `import lilliput` takes in a fresh process, ten times; torch must not be imported by it.

    python -m benchmarks.import_time --json benchmarks/results/import_time.json
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median
from typing import Any

from benchmarks.results import main

_CODE = ("import time; t = time.perf_counter(); import lilliput; s = time.perf_counter() - t; "
         "import sys; print(s, 'torch' in sys.modules)")


def row(case: str) -> dict[str, Any]:
    """Minimum and median over processes; `process` is the whole one, the interpreter's start included."""
    import time

    seconds, whole, torch = [], [], set()
    for _ in range(10):
        began = time.perf_counter()
        printed = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True).stdout.split()
        whole.append(time.perf_counter() - began)
        seconds.append(float(printed[0]))
        torch.add(printed[1] == "True")
    return {"case": case, "minimum": round(min(seconds), 4), "median": round(median(seconds), 4),
            "process_median": round(median(whole), 4), "imports_torch": any(torch)}


if __name__ == "__main__":
    main(row, ["import lilliput"])
