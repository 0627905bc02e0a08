"""Which values lie in 4 or 2 bits: as few as the least arena, or a limit of it, takes. (capotondi2020cmixnn)

That a value has 16 or 4 codes at most follows from the program alone: from the limits of the operator that computes it, never from data.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.operators import Buffer
from lilliput.deploy.c.plan.demand import Demand
from lilliput.deploy.c.plan.lifetimes import ALIGNMENT, lifetimes
from lilliput.deploy.c.plan.limit import Limit
from lilliput.deploy.c.plan.overlap import Overlap
from lilliput.deploy.c.plan.planner import whole
from lilliput.deploy.c.program import Program

WIDTHS = (2, 4)
# Values that are tried one by one.
_TRIALS = 64


def spans(program: Program) -> dict[Buffer, tuple[int, int]]:
    """The least and the largest code that every buffer can have, whatever the inputs."""
    found = {port.buffer: (-128, 127) for port in program.inputs}
    found |= {buffer: (int(codes.min()), int(codes.max())) for buffer, codes in program.constants.items()}
    for step in program.steps:
        found[step.output] = step.span([found[buffer] for buffer in step.inputs])
    return found


def _fixed(program: Program) -> dict[Buffer, str]:
    """Values that stay in bytes, and why."""
    found = {port.buffer: "is an input or output, which callers read byte by byte" for port in (*program.inputs, *program.outputs)}
    found |= dict.fromkeys(program.constants, "is a constant in flash")
    for step in program.steps:
        if not step.sub_byte:
            found |= {buffer: f"is of {step.layer} ({type(step).__name__}), which knows bytes only" for buffer in (*step.inputs, step.output)}
    return found


def candidates(program: Program) -> dict[Buffer, int]:
    """Values that can lie in fewer bits than eight, and in how many."""
    fixed, found = _fixed(program), {}
    for buffer, (low, high) in spans(program).items():
        bits = next((width for width in WIDTHS if high - low < 1 << width), None)
        if bits is not None and buffer not in fixed and buffer.bits == 8:
            found[buffer] = bits
    return found


def packed(program: Program, bits: Mapping[Buffer, int]) -> Program:
    """The program with these values in 4 or 2 bits: the same codes.

    Raises `PreconditionError` for a value with more codes than these bits hold, and for one that an operator without a kernel for them
    computes or reads.
    """
    fixed, known = _fixed(program), spans(program)
    new: dict[Buffer, Buffer] = {}
    for buffer, width in bits.items():
        if buffer not in known or buffer.bits != 8 or width not in WIDTHS:
            raise PreconditionError(f"{buffer.name} in {width} bits: values of the program that lie in bytes are packed into 2 or 4")
        if buffer in fixed:
            raise PreconditionError(f"{buffer.name} cannot lie in {width} bits: it {fixed[buffer]}; leave it in bytes")
        low, high = known[buffer]
        if high - low >= 1 << width:
            raise PreconditionError(f"{buffer.name} has codes from {low} to {high}, and {width} bits hold {1 << width} of them: quantize it to {width} bits "
                                    f"before it is exported, or leave it in bytes")
        new[buffer] = replace(buffer, bits=width, base=low)
    return replace(program, steps=tuple(step.on(new) if new.keys() & {*step.inputs, step.output} else step for step in program.steps))


def fewest(program: Program, *, enough: int | None = None, pixels_at_once: int = 2, seconds: float = 10.0) -> dict[Buffer, int]:
    """As few values in fewer bits as it takes for an arena of `enough` bytes, or for the least one; all where these do not suffice.

    All are packed first, unless bytes fit or packing brings nothing; then those that do not live where memory is short go back together, then
    one by one (the first 64 of them).
    """
    every, sharing, limit = candidates(program), Overlap(pixels_at_once=pixels_at_once), Limit(seconds=seconds)

    def arena(chosen: Collection[Buffer], least: int) -> int:
        made = packed(program, {buffer: every[buffer] for buffer in chosen})
        return whole(made, sharing, limit.part(0.1), least // ALIGNMENT).arena

    plain = arena((), enough or 0) if every else 0
    if not every or (enough is not None and plain <= enough):
        return {}
    most = arena(every, enough or 0)
    if most >= plain:
        return {}
    if enough is not None and most > enough:
        return every
    most, chosen, loads = most if enough is None else enough, set(every), _loads(program, every, sharing)
    needed = {buffer for buffer in every if loads[buffer] > most}
    if arena(needed, most) <= most:
        chosen = needed
    for buffer in sorted(chosen, key=lambda b: (loads[b], b.bytes))[:_TRIALS]:
        if limit.left <= 0:
            break
        if arena(chosen - {buffer}, most) <= most:
            chosen.remove(buffer)
    return {buffer: width for buffer, width in every.items() if buffer in chosen}


def _loads(program: Program, buffers: Collection[Buffer], sharing: Overlap) -> dict[Buffer, int]:
    """Bytes of the fullest step in the life of each buffer."""
    demand, life = Demand.of(program, sharing), lifetimes(program)
    loads = [demand.load(t) * ALIGNMENT for t in range(len(program.steps))]
    return {buffer: max(loads[life[buffer][0]: life[buffer][1] + 1]) for buffer in buffers}
