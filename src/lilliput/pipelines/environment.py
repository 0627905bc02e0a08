"""Versions and machine, for the record of a run."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

_PACKAGES = ("torch", "numpy", "onnx", "onnx-ir", "onnxruntime", "lightning-fabric")


def versions() -> dict[str, str]:
    """Versions of what decides a run's figures."""
    import lilliput

    found = {"lilliput": lilliput.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def environment() -> dict[str, str | int]:
    """The machine that measured."""
    import torch

    return {"cpu": _cpu(), "cores": os.cpu_count() or 1, "threads": torch.get_num_threads(), "latency_threads": 1,
            "system": f"{platform.system()} {platform.machine()}"}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"
