"""Which convolutions leave their output where their input was, or follow it with all of their weights decoded: as few as the least arena takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from lilliput.deploy.c.operators import Convolution, InPlaceDepthwise, InPlacePointwise, Operator
from lilliput.deploy.c.plan.demand import Demand
from lilliput.deploy.c.plan.exact import Placement, place
from lilliput.deploy.c.plan.lifetimes import lifetimes
from lilliput.deploy.c.plan.limit import Limit
from lilliput.deploy.c.plan.overlap import Sharing
from lilliput.deploy.c.program import Program

_WAYS = (InPlaceDepthwise, InPlacePointwise)
# Placements of a choice are compared after so many nodes at most.
_NODES = 2000
_TRIALS = 64


def ways(step: Operator) -> Sequence[Operator]:
    """A step and the other ways to compute it."""
    if not isinstance(step, Convolution):
        return (step,)
    if step.stored is not None:
        return (step, step.undivided()) if _saves(step) else (step,)
    return (step, *(way.of(step) for way in _WAYS if step.scratch is None and way.fits(step)))


def _saves(step: Convolution) -> bool:
    """Whether decoding all weights at once takes less memory, since the output may follow the input then."""
    other = step.undivided()
    lag, image, output = other.lag(0), step.inputs[0].bytes, step.output.bytes
    assert step.scratch is not None
    assert other.scratch is not None
    return lag is not None and step.lag(0) is None and max(image + lag, output) + other.scratch.bytes < image + output + step.scratch.bytes


def replaced(program: Program, chosen: Collection[int]) -> Program:
    """The program with the chosen steps in place."""
    return replace(program, steps=tuple(ways(step)[-1] if i in chosen else step for i, step in enumerate(program.steps)))


def candidates(program: Program) -> list[int]:
    """Steps that can be computed in place: their input dies there."""
    life, final = lifetimes(program), {port.buffer for port in program.outputs}
    return [i for i, step in enumerate(program.steps)
            if len(ways(step)) > 1 and step.inputs[0] in life and step.inputs[0] not in final and life[step.inputs[0]][1] == i]


def choose(program: Program, sharing: Sharing, limit: Limit, *, after: int = 0, enough: int = 0) -> Placement:
    """The least placement of a program in its order, or one of `enough` words, with as few steps in place as it takes.

    All that can be are set in place first, unless that brings nothing; then those from which nothing comes go back together, then one by one
    (the first 64 of them). Only steps from number `after` on.
    """
    best = place(Demand.of(program, sharing), limit.part(0.2, _NODES))
    chosen = {i for i in candidates(program) if i >= after}
    if best.height <= enough or not chosen:
        return best
    trial = _trial(program, chosen, sharing, limit)
    if trial.height >= best.height:
        return best
    best = trial
    plain, most = Demand.of(program, sharing), max(best.height, enough)
    needed = {i for i in chosen if plain.load(i) > most}
    trial = _trial(program, needed, sharing, limit)
    if trial.height <= most:
        best, chosen = trial, needed
    for i in sorted(chosen - needed, key=lambda i: (plain.load(i), i))[:_TRIALS]:
        if limit.left <= 0:
            break
        trial = _trial(program, chosen - {i}, sharing, limit)
        if trial.height <= most:
            best, chosen = trial, chosen - {i}
    return best


def _trial(program: Program, chosen: Collection[int], sharing: Sharing, limit: Limit) -> Placement:
    return place(Demand.of(replaced(program, chosen), sharing), limit.part(0.2, _NODES))
