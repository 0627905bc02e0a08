"""Where the first stage ends and how many patches it has: the fewest multiplications within a limit of memory, or else the least memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lilliput.deploy.c.operators import Buffer, Convolution
from lilliput.deploy.c.plan.demand import Demand, load
from lilliput.deploy.c.plan.exact import place
from lilliput.deploy.c.plan.in_place import choose
from lilliput.deploy.c.plan.lifetimes import ALIGNMENT, Patches, Plan, words
from lilliput.deploy.c.plan.limit import Limit
from lilliput.deploy.c.plan.overlap import Sharing, apart
from lilliput.deploy.c.plan.patches import cuts, in_patches
from lilliput.deploy.c.plan.stage import Span, Stage, stages
from lilliput.deploy.c.program import Program

# Patches along an axis, and ways that are planned in full.
_MOST, _TRIALS = 8, 12


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A stage in patches: multiplications of the whole program, and words that it takes at least."""

    stage: Stage
    rows: int
    columns: int
    macs: int
    least: int

    @property
    def count(self) -> int:
        """Patches."""
        return self.rows * self.columns


def patched(program: Program, sharing: Sharing, limit: Limit, ram: int | None) -> Plan | None:
    """The plan of a program with its first stage in patches; none where no stage can be."""
    found = sorted(candidates(program, sharing), key=lambda c: (c.macs, c.count, c.least))
    best: Plan | None = None
    fitting = [c for c in found if ram is not None and c.least * ALIGNMENT <= ram]
    for candidate in fitting[:_TRIALS]:
        trial = _plan(candidate, sharing, limit.part(0.3), ram)
        if ram is not None and trial.arena <= ram:
            return trial
        best = trial if best is None or trial.arena < best.arena else best
    for candidate in sorted(found, key=lambda c: (c.least, c.macs, c.count))[:_TRIALS]:
        if best is not None and (candidate.least * ALIGNMENT >= best.arena or limit.left <= 0):
            break
        trial = _plan(candidate, sharing, limit.part(0.3), ram)
        best = trial if best is None or trial.arena < best.arena else best
        if ram is not None and best.arena <= ram:
            break
    return best


def _plan(candidate: Candidate, sharing: Sharing, limit: Limit, ram: int | None) -> Plan:
    program = in_patches(candidate.stage, candidate.rows, candidate.columns)
    after = len(program.steps) - len(candidate.stage.program.steps) + candidate.stage.count
    found = place(Demand.of(program, sharing), limit) if sharing is apart else choose(program, sharing, limit, after=after, enough=(ram or 0) // ALIGNMENT)
    stage = candidate.stage
    patches = Patches(rows=candidate.rows, columns=candidate.columns, steps=stage.count, layer=stage.steps[-1].layer,
                      extra=program.macs - stage.program.macs)
    return replace(found.demand.plan(found.offsets, found.bound), patches=patches)


def candidates(program: Program, sharing: Sharing) -> Iterator[Candidate]:
    """All stages in all grids of patches that differ in the size of a patch."""
    demand = Demand.of(program, sharing)
    for stage in stages(program):
        tail = max((demand.load(t) for t in range(stage.count, len(program.steps))), default=0)
        height, width, _ = stage.images[stage.output]
        down = {n: [stage.spans(0, span) for span in cuts(height, n)] for n in _counts(height)}
        across = {n: [stage.spans(1, span) for span in cuts(width, n)] for n in _counts(width)}
        for rows, over_rows in down.items():
            for columns, over_columns in across.items():
                if rows * columns > 1:
                    yield Candidate(stage=stage, rows=rows, columns=columns, macs=_macs(stage, over_rows, over_columns),
                                    least=max(_least(stage, _largest(over_rows), _largest(over_columns), sharing), tail))


def _counts(size: int) -> list[int]:
    """Numbers of parts that differ in the size of the largest part."""
    return sorted({n for n in (-(-size // part) for part in range(1, size + 1)) if n <= _MOST})


def _largest(spans: list[dict[Buffer, Span]]) -> dict[Buffer, int]:
    return {buffer: max(span[buffer][1] - span[buffer][0] for span in spans) for buffer in spans[0]}


def _macs(stage: Stage, down: list[dict[Buffer, Span]], across: list[dict[Buffer, Span]]) -> int:
    """Multiplications of the program with the stage in patches."""
    total = stage.program.macs
    for step in stage.steps:
        if isinstance(step, Convolution):
            total -= step.macs
            if step.output in down[0]:
                rows, columns = (sum(span[step.output][1] - span[step.output][0] for span in spans) for spans in (down, across))
                total += rows * columns * step.weights.size
    return total


def _least(stage: Stage, heights: dict[Buffer, int], widths: dict[Buffer, int], sharing: Sharing) -> int:
    """Words that the largest patch takes at least, with input and output of the stage as a whole."""
    sizes = {b: words(b.held(heights[b] * widths[b] * stage.images[b][2])) for b in heights if b is not stage.source}
    whole = words(stage.source.bytes) + words(stage.output.bytes)
    last = {buffer: i for i, step in enumerate(stage.useful) for buffer in step.inputs}
    live: dict[Buffer, int] = {}
    most = whole + sizes[stage.output]
    for i, step in enumerate(stage.useful):
        dying = [b for b in {*step.inputs} if b in live and last[b] == i]
        shared = [(live[b], 1) for b in dying] if sharing is not apart else []
        others = sum(live.values()) - sum(size for size, _ in shared)
        most = max(most, whole + load(others, sizes[step.output], shared))
        live = {b: size for b, size in live.items() if b not in dying} | {step.output: sizes[step.output]}
    return most
