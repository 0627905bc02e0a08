"""The folder that an embedded engineer adds to a project: model, kernels it uses and no others, build files, test vector, memory map."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from lilliput.core.atomic import write_text
from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.arithmetic import SingleRounding
from lilliput.deploy.c.operators import Buffer, Operator
from lilliput.deploy.c.plan import Plan, faults, picture, table
from lilliput.deploy.c.program import Port
from lilliput.deploy.c.targets import Target

Array = NDArray[Any]
_TYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "uint8": "uint8_t",
          "uint16": "uint16_t"}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_HOME = Path(__file__).resolve().parent
HEADERS = ("lp.h",)
_GUARD = "#define LP_H\n"


def kernel_home() -> Path:
    """Where the kernels' sources are: beside the installed package, or in the repository."""
    for home in (_HOME / "kernels", _HOME.parents[3] / "csrc" / "mcu"):
        if (home / "lp.h").is_file():
            return home
    raise PreconditionError("the C kernels are missing from this installation; install lilliput again")


@dataclass(eq=False)
class _Source:
    """What the text of a model is made of so far."""

    plan: Plan
    arrays: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    flash: int = 0
    names: dict[tuple[str, bytes], str] = field(default_factory=dict)
    structures: dict[tuple[str, ...], str] = field(default_factory=dict)

    def array(self, name: str, array: Array) -> str:
        """The C name of a constant array; equal arrays are one."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.name, array.tobytes())
        if key not in self.names:
            self.names[key] = name
            self.arrays.append({"type": _TYPES[array.dtype.name], "name": name, "count": array.size, "array": array})
            self.flash += array.nbytes
        return self.names[key]

    def pointer(self, buffer: Buffer) -> str:
        """A buffer as an expression of C."""
        constants = self.plan.program.constants
        if buffer in constants:
            return self.array(identifier(f"constant_{buffer.name}"), constants[buffer])
        offset = self.plan.offsets[buffer]
        return f"arena + {offset}" if offset else "arena"

    def step(self, index: int, step: Operator) -> None:
        """Add the calls of a step."""
        for part, call in enumerate(step.calls()):
            name = f"s{index}" + (f"_{part}" if part else "")
            fields = [f".{key} = {self.array(identifier(f'{name}_{key}'), array)}" for key, array in call.arrays.items()]
            fields += [f".{key} = {'(-2147483647 - 1)' if value == -(2**31) else value}" for key, value in call.fields.items()]
            fields += [f".{key} = lp_{kernel}" for key, kernel in call.kernels.items()]
            if (call.structure, *fields) not in self.structures:
                self.structures[call.structure, *fields] = name
                self.records.append({"comment": step.layer.replace("*/", ""), "structure": call.structure, "name": name, "fields": fields})
            name = self.structures[call.structure, *fields]
            reads = range(len(step.inputs)) if call.reads is None else call.reads
            pointers = [*(self.pointer(step.inputs[i]) for i in reads), self.pointer(step.output)]
            if call.scratch:
                assert step.scratch is not None
                pointers.append(self.pointer(step.scratch))
            self.calls.append(f"lp_{call.kernel}(&{name}, {', '.join(pointers)});")
            self.kernels += [kernel for kernel in (call.kernel, *call.kernels.values()) if kernel not in self.kernels]
            self.kernels += [kernel for kernel in call.requires if kernel not in self.kernels]


def numbers(array: Array, width: int = 120) -> str:
    """Numbers of an array as C text, in lines."""
    lines, line = [], "   "
    for value in array.reshape(-1).tolist():
        item = " (-2147483647 - 1)," if value == -(2**31) else f" {value},"
        if len(line) + len(item) > width:
            lines.append(line)
            line = "   "
        line += item
    return "\n".join([*lines, line])


def identifier(text: str) -> str:
    """Text as an identifier of C."""
    return re.sub(r"\W", "_", text, flags=re.ASCII).strip("_").lower() or "x"


def _macro(kind: str, index: int, count: int) -> str:
    return kind if count == 1 else f"{kind}_{index}"


def ports(plan: Plan, group: Sequence[Port], kind: str) -> list[dict[str, Any]]:
    """Inputs or outputs as the templates name them."""
    return [{"name": identifier(port.name), "macro": _macro(kind, i, len(group)), "offset": plan.offsets[port.buffer], "bytes": port.buffer.size,
             "scale": float_text(port.buffer.scale), "zero": port.buffer.zero, "layout": layout(port)} for i, port in enumerate(group)]


def float_text(value: float) -> str:
    """A float constant of C that reads back as the same float32."""
    text = repr(float(np.float32(value)))
    return (text if any(c in text for c in ".e") else text + ".0") + "f"


def layout(port: Port) -> str:
    """How the elements of an input or output lie, for the header."""
    if len(port.shape) == 4:
        last = port.positions.transpose(0, 2, 3, 1)
        if (last.reshape(-1) == np.arange(last.size)).all():
            return f"{' x '.join(map(str, last.shape[1:]))}, rows, columns, channels"
    return " x ".join(map(str, port.buffer.shape))


def environment() -> jinja2.Environment:
    """The templates."""
    return jinja2.Environment(loader=jinja2.FileSystemLoader(_HOME / "templates"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
                              autoescape=False)


def kernel_file(file: str, target: Target | None) -> Path:
    """The source of a kernel: the target's fastest variant, or the portable one."""
    home = kernel_home()
    variants = target.variants if target is not None else ()
    return next((home / variant / file for variant in variants if (home / variant / file).is_file()), home / file)


def emit(plan: Plan, folder: Path, *, target: Target | None = None, name: str = "model", samples: Iterable[Sequence[Array]] = ()) -> list[str]:
    """Write the project into a folder and return the names of its files; portable kernels without a target.

    `samples` are codes of the inputs, in their buffers' layout, for the test vector; two random ones where none are given.
    Raises `PreconditionError` for a name that C cannot have, and for a plan whose replay shows a byte overwritten before it is read.
    """
    from lilliput import __version__

    if not _NAME.fullmatch(name):
        raise PreconditionError(f"name {name!r} is no C name in lower case; use letters, digits and _, a letter first")
    wrong = faults(plan, pixels_at_once=2 if target is None else target.pixels_at_once)
    if wrong:
        raise PreconditionError(f"the plan does not hold for these kernels: {wrong[0]}; make it by plan() with the target's pixels_at_once")
    program, source = plan.program, _Source(plan)
    for i, step in enumerate(program.steps):
        source.step(i, step)
    single = isinstance(program.rounding, SingleRounding)
    kernels = [f"lp_{kernel}.c" for kernel in source.kernels]
    headers = _headers([kernel_file(kernel, target) for kernel in kernels], target)
    common = {"name": name, "NAME": name.upper(), "version": __version__, "title": f"Network of {len(program.steps)} steps, {program.macs} multiplications",
              "arena": plan.arena, "flash": source.flash, "inputs": ports(plan, program.inputs, "INPUT"),
              "outputs": ports(plan, program.outputs, "OUTPUT"), "arrays": [{**array, "text": numbers(array["array"])} for array in source.arrays], "records": source.records, "calls": source.calls,
              "sources": [f"{name}.c", *kernels], "headers": [f"{name}.h", *headers], "processor": processor_of(kernels, target),
              **_vector(plan, samples)}
    templates = environment()
    texts = {f"{name}.h": "model.h.j2", f"{name}.c": "model.c.j2", "Makefile": "Makefile.j2", "CMakeLists.txt": "CMakeLists.txt.j2",
             f"{name}_test.c": "test.c.j2"}
    folder.mkdir(parents=True, exist_ok=True)
    for file, template in texts.items():
        write_text(folder / file, templates.get_template(template).render(**common))
    maps = {f"{name}_memory.txt": table(plan), f"{name}_memory.svg": picture(plan)}
    for file, text in maps.items():
        write_text(folder / file, text)
    for file in (*headers, *kernels):
        text = kernel_file(file, target).read_text()
        # In the header and not on the command line, where a build could forget it.
        write_text(folder / file, text.replace(_GUARD, f"{_GUARD}#define LP_SINGLE_ROUNDING\n", 1) if single and file == "lp.h" else text)
    return [*texts, *maps, *headers, *kernels]


def processor_of(kernels: Iterable[str], target: Target | None) -> str:
    """The processor whose own instructions some kernel needs, so that the host cannot run them; empty where none does."""
    own = target is not None and any(kernel_file(kernel, target).parent != kernel_home() for kernel in kernels)
    return target.name if own and target is not None else ""


def constant_bytes(plan: Plan) -> int:
    """Bytes of the arrays in flash, before anything is written; structures and code left out."""
    source = _Source(plan)
    for i, step in enumerate(plan.program.steps):
        source.step(i, step)
    return source.flash


def _headers(sources: Iterable[Path], target: Target | None) -> list[str]:
    """The project's own headers that sources include, and those that these include."""
    found: list[str] = []
    waiting = list(sources)
    while waiting:
        new = [name for name in re.findall(r'#include "([\w.]+)"', waiting.pop().read_text()) if name not in found]
        found += new
        waiting += [kernel_file(name, target) for name in new]
    return sorted({*HEADERS, *found})


def _vector(plan: Plan, samples: Iterable[Sequence[Array]]) -> dict[str, Any]:
    """Inputs and what the integer reference gives for them."""
    program = plan.program
    found = [tuple(np.asarray(a, np.int8) for a in sample) for sample in samples]
    if not found:
        random = np.random.default_rng(0)
        found = [tuple(random.integers(-128, 128, port.buffer.shape, dtype=np.int8) for port in program.inputs) for _ in range(2)]
    results = [program(*sample) for sample in found]
    ports = []
    for kind, group, arrays in (("INPUT", program.inputs, found), ("OUTPUT", program.outputs, results)):
        for i, port in enumerate(group):
            ports.append({"input": kind == "INPUT", "name": f"{kind.lower()}_{i}", "bytes": port.buffer.size, "macro": _macro(kind, i, len(group)),
                          "rows": [numbers(sample[i].reshape(-1), 110) for sample in arrays]})
    return {"count": len(found), "ports": ports}
