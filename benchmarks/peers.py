"""Running peers: scripts `peer_*.py` in `.venv-peers`, an environment of their own that `make bench` creates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent
PEERS = HOME / ".venv-peers" / "bin" / "python"
LITERT = HOME / ".venv-litert" / "bin" / "python"  # made by `make test-litert`


def run(module: str, *arguments: str, peer: bool = False, python: Path | None = None, threads: int = 2) -> Any:
    """What `python -m benchmarks.MODULE ARGUMENTS` prints as its last line, read as JSON, in a fresh process of `python`.

    Raises `RuntimeError` with the process's last words when it fails.
    """
    python = python or (PEERS if peer else Path(sys.executable))
    if not python.exists():
        raise RuntimeError(f"there is no {python}: `make bench` makes .venv-peers, `make test-litert` .venv-litert")
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    if peer:
        environment["PYTHONPATH"] = str(HOME / "src")  # for the zoo
    done = subprocess.run([str(python), "-m", f"benchmarks.{module}", *arguments], capture_output=True, text=True, cwd=HOME,
                          env=environment, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed: {done.stderr.strip()[-800:]}")
    return json.loads(lines[-1])
