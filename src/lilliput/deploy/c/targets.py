"""Processors that code is generated for: which kernels they run, how they are compiled, and the board that stands in for them here."""

from __future__ import annotations

from dataclasses import dataclass

from lilliput.core.errors import UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Board:
    """An emulated machine: QEMU's name, where memory lies and its size in bytes, and how many instructions one tick of its clock lasts."""

    machine: str
    flash: tuple[int, int]
    ram: tuple[int, int]
    instructions_per_tick: float = 1.0
    options: tuple[str, ...] = ()

    @property
    def emulator(self) -> str:
        """The program that emulates it."""
        return "qemu-system-riscv32" if self.machine == "virt" else "qemu-system-arm"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A processor. `variants` are folders of faster kernels under `csrc/mcu`, the best first; kernels missing there are the portable ones.

    `pixels_at_once`: so many pixels of an output its kernels compute before they read on.
    """

    name: str
    compiler: str
    flags: tuple[str, ...]
    board: Board | None
    variants: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    pixels_at_once: int = 2


_MEGABYTE = 1 << 20


def _mps2(machine: str) -> Board:
    # The processor's own timer runs at 25 MHz, and an instruction takes a nanosecond of the emulated clock.
    return Board(machine=machine, flash=(0, 4 * _MEGABYTE), ram=(0x20000000, 4 * _MEGABYTE), instructions_per_tick=40)


def _arm(cpu: str, board: Board, *variants: str, abi: str = "soft", pixels_at_once: int = 2) -> Target:
    return Target(name=cpu, compiler="arm-none-eabi-gcc", flags=(f"-mcpu={cpu}", "-mthumb", f"-mfloat-abi={abi}"), board=board, variants=variants,
                  pixels_at_once=pixels_at_once)


TARGETS = {target.name: target for target in (
    _arm("cortex-m0", _mps2("mps2-an385")),
    _arm("cortex-m3", _mps2("mps2-an385")),
    _arm("cortex-m4", _mps2("mps2-an386"), "dsp"),
    _arm("cortex-m7", _mps2("mps2-an500"), "dsp"),
    _arm("cortex-m33", Board(machine="mps2-an505", flash=(0x10000000, 4 * _MEGABYTE), ram=(0x38000000, 4 * _MEGABYTE), instructions_per_tick=50), "dsp"),
    _arm("cortex-m55", Board(machine="mps3-an547", flash=(0, _MEGABYTE // 2), ram=(0x20000000, _MEGABYTE // 2), instructions_per_tick=31.25), "mve",
         abi="hard", pixels_at_once=1),
    Target(name="riscv32", compiler="riscv64-unknown-elf-gcc", flags=("-march=rv32imac", "-mabi=ilp32", "-mcmodel=medany"),
           board=Board(machine="virt", flash=(0x80000000, 4 * _MEGABYTE), ram=(0x80400000, 4 * _MEGABYTE), options=("-bios", "none")),
           libraries=("--specs=picolibc.specs",)),
    Target(name="host", compiler="cc", flags=(), board=None),
)}


def target(name: str) -> Target:
    """The target of that name; `UnknownNameError` with near ones."""
    if name not in TARGETS:
        raise UnknownNameError("target", name, TARGETS)
    return TARGETS[name]
