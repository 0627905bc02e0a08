"""Where each buffer lies in the arena, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lilliput.deploy.c.operators import Buffer
from lilliput.deploy.c.program import Program

ALIGNMENT = 4


def words(count: int) -> int:
    """Units of the arena that so many bytes take: every buffer starts at a multiple of `ALIGNMENT` bytes."""
    return -(-count // ALIGNMENT)


@dataclass(frozen=True, kw_only=True)
class Patches:
    """The first `steps` steps of a program, up to `layer`, computed in `rows x columns` patches, at `extra` multiplications more."""

    rows: int
    columns: int
    steps: int
    layer: str
    extra: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Offsets in bytes of all buffers of a program, and the bytes of the arena.

    `program` has the steps as they run: in the order chosen, in place or in patches where that was chosen. No order of these steps and no
    placement of their buffers takes less than `bound` bytes; with patches, none in the order given.
    """

    program: Program
    offsets: Mapping[Buffer, int]
    arena: int
    bound: int
    patches: Patches | None = None

    @property
    def gap(self) -> int:
        """Bytes between the arena and what is shown to be the least possible: 0 where the plan is shown to be optimal."""
        return self.arena - self.bound

    @property
    def optimal(self) -> bool:
        """Whether the plan is shown to be optimal."""
        return self.gap <= 0


def lifetimes(program: Program) -> dict[Buffer, tuple[int, int]]:
    """First and last step at which each buffer holds something; inputs from step 0 on, outputs up to the last, scratch memory for its step."""
    readers, final = program.readers(), {port.buffer for port in program.outputs}
    born = {port.buffer: 0 for port in program.inputs} | {step.output: i for i, step in enumerate(program.steps)}
    last = len(program.steps) - 1
    found = {buffer: (first, max(last, first) if buffer in final else max([first, *readers[buffer]])) for buffer, first in born.items()}
    return found | {step.scratch: (i, i) for i, step in enumerate(program.steps) if step.scratch is not None}
