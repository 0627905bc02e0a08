"""Building a generated project with a cross compiler, running it under emulation, comparing, counting instructions and bytes."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.core.atomic import write_text
from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.emit import emit, environment, ports
from lilliput.deploy.c.plan import Plan
from lilliput.deploy.c.targets import Target

Array = NDArray[Any]
_PAINTED = 16384
_PACKAGES = {"arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi", "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf "
             "picolibc-riscv64-unknown-elf", "qemu-system-arm": "qemu-system-arm", "qemu-system-riscv32": "qemu-system-misc", "cc": "gcc"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """What a run under emulation showed: output codes of each sample, and counts of one run.

    `instructions` is the least over the samples, accurate to one tick of the board's clock; never cycles, and no latency. `stack` is in bytes.
    """

    outputs: list[list[Array]]
    instructions: int
    stack: int


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes in flash: `code` of functions, `constants` of data, of the model and its kernels, library functions left out."""

    code: int
    constants: int


def missing(target: Target) -> str | None:
    """What must be installed before the target can be built and run; None when all is there."""
    tools = [target.compiler] + ([target.board.emulator] if target.board else [])
    absent = [tool for tool in tools if shutil.which(tool) is None]
    return None if not absent else f"{target.name} needs {' and '.join(absent)}: install the packages {' '.join(_PACKAGES[tool] for tool in absent)}"


def call(command: Sequence[str], folder: Path, seconds: float = 600) -> str:
    """What a command prints, run in a folder; raises `PreconditionError` with its last words when it fails."""
    try:
        done = subprocess.run(list(command), cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise PreconditionError(f"{command[0]} did not end within {seconds:.0f} s; try fewer samples") from error
    if done.returncode:
        raise PreconditionError(f"{command[0]} failed with {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout + done.stderr


def compile_objects(folder: Path, target: Target, level: str = "-O2") -> list[Path]:
    """Object files of all sources in a folder but the test vector, with functions and data in sections of their own."""
    sources = sorted(path for path in folder.glob("*.c") if not path.name.endswith("_test.c"))
    flags = ["-std=c99", level, "-Wall", "-Wextra", "-Werror", "-ffunction-sections", "-fdata-sections", "-I.", *target.flags, *target.libraries]
    for source in sources:
        call([target.compiler, *flags, "-c", source.name, "-o", f"{source.stem}.o"], folder)
    return [source.with_suffix(".o") for source in sources]


def sizes(objects: Sequence[Path], target: Target) -> Sizes:
    """Bytes of code and constants in object files."""
    tool = target.compiler.replace("gcc", "size") if target.compiler != "cc" else "size"
    code = constants = 0
    for path in objects:
        for name, size in re.findall(r"^(\.\S+)\s+(\d+)", call([tool, "-A", path.name], path.parent), re.MULTILINE):
            code += int(size) if name.startswith(".text") else 0
            constants += int(size) if name.startswith((".rodata", ".srodata", ".data", ".sdata")) else 0
    return Sizes(code=code, constants=constants)


def measure(plan: Plan, target: Target, samples: Sequence[Sequence[Array]], *, level: str = "-O2") -> Measurement:
    """Build a plan's project, run it on the codes of samples (in their buffers' layout) under emulation, and count.

    Raises `PreconditionError` naming packages that are missing, and with the compiler's or emulator's last words when they fail.
    """
    ready(target)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        emit(plan, folder, target=target, samples=samples[:1])
        values = {"name": "model", "NAME": "MODEL", "samples": len(samples), "painted": _PAINTED, "inputs": ports(plan, plan.program.inputs, "INPUT"),
                  "outputs": ports(plan, plan.program.outputs, "OUTPUT")}
        data = b"".join(np.ascontiguousarray(a, np.int8).tobytes() for sample in samples for a in sample)
        found, out = execute(folder, "main.c.j2", values, target, data, level)
    return Measurement(outputs=_split(plan, np.frombuffer(out, np.int8), len(samples)), instructions=found["ticks"], stack=found["stack"])


def ready(target: Target) -> None:
    """Raise `PreconditionError` where a target cannot be built and run here."""
    absent = missing(target)
    if absent:
        raise PreconditionError(absent)
    if target.board is None:
        raise PreconditionError(f"{target.name} is no emulated board; run `make test` in the generated folder")


def execute(folder: Path, main: str, values: Mapping[str, Any], target: Target, data: bytes, level: str) -> tuple[dict[str, int], bytes]:
    """Build a folder of sources with a main program from a template, and run it under emulation on `data`.

    Returns the numbers that it prints, `ticks` as instructions, and the bytes that it writes.
    """
    board, templates = target.board, environment()
    assert board is not None
    values = {**values, "flash": board.flash, "ram": board.ram, "entry": "start" if board.machine == "virt" else "run"}
    for file, template in (("harness_main.c", main), ("harness_start.c", "start.c.j2"), ("link.ld", "link.ld.j2")):
        write_text(folder / file, templates.get_template(f"harness/{template}").render(**values))
    objects = compile_objects(folder, target, level)
    call([target.compiler, *target.flags, *target.libraries, "-nostartfiles", "-T", "link.ld", "-Wl,--gc-sections", *(o.name for o in objects),
           "-o", "program.elf"], folder)
    (folder / "input.bin").write_bytes(data)
    out = call([board.emulator, "-M", board.machine, *board.options, "-display", "none", "-serial", "null", "-monitor", "none",
                 "-semihosting-config", "enable=on,target=native", "-icount", "shift=0,sleep=off", "-kernel", "program.elf"], folder)
    found = {key: int(value) for key, value in re.findall(r"^(\w+) (\d+)$", out, re.MULTILINE)}
    found["ticks"] = round((found["ticks"] - found["idle"]) * board.instructions_per_tick)
    return found, (folder / "output.bin").read_bytes()


def _split(plan: Plan, flat: Array, samples: int) -> list[list[Array]]:
    buffers = [port.buffer for port in plan.program.outputs]
    per_sample = sum(buffer.size for buffer in buffers)
    if flat.size != samples * per_sample:
        raise PreconditionError(f"the program wrote {flat.size} bytes of output instead of {samples * per_sample}; this is a defect, report it")
    ends = np.cumsum([buffer.size for buffer in buffers])[:-1]
    return [[part.reshape(buffer.shape) for part, buffer in zip(np.split(row, ends), buffers, strict=True)] for row in flat.reshape(samples, -1)]
