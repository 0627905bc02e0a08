"""The same model in TensorFlow Lite Micro: working memory, flash and instructions of both, side by side. (david2021tflm)"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from lilliput.core.errors import CorruptFileError, PreconditionError
from lilliput.deploy.c.harness import call
from lilliput.deploy.c.project import to_c

_INTERPRETER = "_ZN6tflite5micro16MicroInterpreter"
# Names of what belongs to the Python package alone.
_WRAPPING = re.compile(r"InterpreterWrapper|PythonOpsResolver|pybind|numpy|^_?Py", re.IGNORECASE)
_MICRO = '''
import json, os, sys, tempfile
import numpy as np
from tflite_micro.python.tflite_micro import runtime
interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=1 << 24)
given = interpreter.get_input_details(0)
interpreter.set_input(np.zeros(given["shape"], given["dtype"]), 0)
interpreter.invoke()
with tempfile.TemporaryFile() as file:
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    interpreter.print_allocations()
    os.dup2(kept, 2)
    file.seek(0)
    print(json.dumps({"library": runtime._runtime.__file__, "allocations": file.read().decode(errors="replace")}))
'''


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one runtime with one model on this machine: bytes of arena, of code and of constants in flash, and instructions of one run."""

    runtime: str
    ram: int
    code: int
    constants: int
    instructions: int

    @property
    def flash(self) -> int:
        """Code and constants."""
        return self.code + self.constants


def beside_micro(model: str | PathLike[str], *, python: str | PathLike[str] = sys.executable) -> tuple[Costs, Costs]:
    """Ours and TensorFlow Lite Micro's costs of a full-integer `.tflite` model, both with plain kernels for this machine's processor.
    (david2021tflm)

    Its Python package holds Micro compiled for this processor. Instructions are those that callgrind counts within `Invoke` and
    `model_invoke` (at -O2). Micro's code are the functions that ran, those never entered left out, its constants the file, which its
    interpreter reads in place; ours are all functions at -Os, and all constants. Micro's arena holds pointers of this machine's size.

    Runs Micro in `python`. Raises `PreconditionError` naming what must be installed.
    """
    path = Path(model)
    for tool, package in (("valgrind", "valgrind"), ("nm", "binutils"), ("make", "make"), ("cc", "gcc")):
        if shutil.which(tool) is None:
            raise PreconditionError(f"the comparison needs {tool}: install the package {package}")
    if path.suffix != ".tflite":
        raise PreconditionError(f"TensorFlow Lite Micro runs .tflite files, and {path} is none; write one with lilliput.deploy.litert.export")
    with tempfile.TemporaryDirectory() as folder:
        return _ours(path, Path(folder)), _micro(path, Path(folder), Path(python))


def _ours(path: Path, folder: Path) -> Costs:
    project = to_c(path, folder / "project", target="host")
    call(["make", "-s", "model_test", "CFLAGS=-O2"], project.folder)
    counted, _, out = _count(("model_invoke",), ["./model_test"], project.folder)
    samples = re.match(r"(\d+) samples, 0 wrong", out)
    assert samples is not None
    return Costs(runtime="lilliput", ram=project.plan.arena, code=project.code or 0, constants=project.constants, instructions=counted // int(samples[1]))


def _micro(path: Path, folder: Path, python: Path) -> Costs:
    # Its module may lie beside files of the same name where this process runs.
    command = [str(python), "-I", "-c", _MICRO, str(path.resolve())]
    if subprocess.run([str(python), "-I", "-c", "import tflite_micro"], capture_output=True, check=False).returncode:
        raise PreconditionError(f"{python} has no TensorFlow Lite Micro: pip install tflite-micro")
    counted, invoked, out = _count((f"{_INTERPRETER}6InvokeEv",), command, folder)
    _, prepared, _ = _count((f"{_INTERPRETER}C*", f"{_INTERPRETER}15AllocateTensorsEv"), command, folder)
    found = re.search(r'"library": "([^"]+)".*Arena allocation total (\d+)', out)
    if found is None or not counted:
        raise CorruptFileError(f"TensorFlow Lite Micro did not run {path}: {' '.join(out.split())[-300:]}")
    held = _sizes(Path(found[1]))
    code = sum(held.get(name, 0) for name in invoked | prepared)
    return Costs(runtime="TensorFlow Lite Micro", ram=int(found[2]), code=code, constants=path.stat().st_size, instructions=counted)


def _count(within: tuple[str, ...], command: list[str], folder: Path) -> tuple[int, set[str], str]:
    """Instructions within functions, called ones included; the names of what ran in them, mangled; what the command printed."""
    file = folder / "callgrind.out"
    toggles = [f"--toggle-collect={function}" for function in within]
    out = call(["valgrind", "--quiet", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={file}", *toggles, *command], folder)
    costs = _costs(file.read_text(errors="replace"))
    return sum(costs.values()), {name for name, cost in costs.items() if cost}, out


def _costs(profile: str) -> dict[str, int]:
    """Instructions of each function itself, by its name, from a file in callgrind's format: a name stands with its number once."""
    names: dict[str, str] = {}
    costs: dict[str, int] = {}
    function, called = "", False
    for line in profile.splitlines():
        if found := re.match(r"(c?)fn=(\(\d+\))(?: (\S+))?", line):
            names.setdefault(found[2], found[3] or "")
            function = function if found[1] else names[found[2]]
        elif line.startswith("calls="):
            called = True
        elif re.match(r"[+\-*\d]\S* \d+$", line):
            if not called:
                costs[function] = costs.get(function, 0) + int(line.rpartition(" ")[2])
            called = False
    return costs


def _sizes(library: Path) -> dict[str, int]:
    """Bytes of a library's functions, without those of its Python package."""
    lines = call(["nm", "-S", "--defined-only", str(library)], library.parent).splitlines()
    rows = [line.split(maxsplit=3) for line in lines]
    return {row[3]: int(row[1], 16) for row in rows if len(row) == 4 and row[2] in "tTwW" and not _WRAPPING.search(row[3])}
