"""Where each buffer lies in the arena, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lilliput.deploy.c.operators import Buffer
from lilliput.deploy.c.program import Program

ALIGNMENT = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Offsets in bytes of all buffers of a program, and the bytes of the arena."""

    program: Program
    offsets: Mapping[Buffer, int]
    arena: int
    bound: int

    @property
    def gap(self) -> int:
        """Bytes between the arena and the most that live at once: 0 where the plan is shown to be optimal."""
        return self.arena - self.bound


def lifetimes(program: Program) -> dict[Buffer, tuple[int, int]]:
    """First and last step at which each buffer holds something; inputs from step 0 on, outputs up to the last."""
    readers, final = program.readers(), {port.buffer for port in program.outputs}
    born = {port.buffer: 0 for port in program.inputs} | {step.output: i for i, step in enumerate(program.steps)}
    last = len(program.steps) - 1
    return {buffer: (first, max(last, first) if buffer in final else max([first, *readers[buffer]])) for buffer, first in born.items()}


def greedy(program: Program) -> Plan:
    """Largest buffers first, each at the lowest offset that is free all its life."""
    life = lifetimes(program)
    placed: dict[Buffer, int] = {}
    for buffer in sorted(life, key=lambda b: (-b.size, life[b])):
        offset = 0
        for other in sorted(placed, key=lambda b: placed[b]):
            apart = life[other][1] < life[buffer][0] or life[buffer][1] < life[other][0]
            if not apart and placed[other] < offset + buffer.size and placed[other] + other.size > offset:
                offset = -(-(placed[other] + other.size) // ALIGNMENT) * ALIGNMENT
        placed[buffer] = offset
    steps = range(max(len(program.steps), 1))
    bound = max(sum(b.size for b, (first, last) in life.items() if first <= t <= last) for t in steps)
    return Plan(program=program, offsets=placed, arena=max((placed[b] + b.size for b in placed), default=0), bound=bound)
