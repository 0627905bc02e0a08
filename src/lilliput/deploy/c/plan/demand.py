"""A program in a fixed order as a placement problem: items, how far apart each pair has to be, and what lives at each step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.operators import Buffer
from lilliput.deploy.c.plan.lifetimes import ALIGNMENT, Plan, lifetimes, words
from lilliput.deploy.c.plan.overlap import Sharing
from lilliput.deploy.c.program import Program


def load(others: int, output: int, shared: Sequence[tuple[int, int]]) -> int:
    """Least memory at a step, in words, from the sizes of what lives besides, of the output, and sizes and lags of inputs that may overlap it.

    Inputs lie apart from each other, and none of them covers the output's first words, as many as the smallest lag.
    """
    if not shared:
        return others + output
    return others + max(output, sum(size for size, _ in shared) + min(lag for _, lag in shared))


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """What a placement has to fit; sizes and distances in words.

    `items` are buffers that share a place; `apart[a][b]` is by how much `b` must start behind `a` if it does not start before it,
    for all pairs that live at the same time; `live` are the items at each step; `shared` the output's item and the inputs' items that may
    overlap it, for each step where there are any.
    """

    program: Program
    items: tuple[tuple[Buffer, ...], ...]
    sizes: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    apart: tuple[Mapping[int, int], ...]
    live: tuple[tuple[int, ...], ...]
    shared: tuple[tuple[int, tuple[int, ...]] | None, ...]

    @classmethod
    def of(cls, program: Program, sharing: Sharing) -> Demand:
        """The problem of a program in its order."""
        life = lifetimes(program)
        home = _homes(program, life)
        members: dict[int, list[Buffer]] = {}
        for buffer, item in home.items():
            members.setdefault(item, []).append(buffer)
        final = {port.buffer for port in program.outputs}
        lags: dict[tuple[Buffer, Buffer], int] = {}
        shared: list[tuple[int, tuple[int, ...]] | None] = []
        for t, step in enumerate(program.steps):
            found = {x: lag for x, lag in sharing(step).items() if x in life and x not in final and life[x][1] == t}
            lags |= {(step.output, x): words(lag) for x, lag in found.items()}
            shared.append((home[step.output], tuple(home[x] for x in found)) if found else None)
        alive = _alive(life, max(len(program.steps), 1))
        apart: list[dict[int, int]] = [{} for _ in members]
        for buffers in alive:
            for x, y in permutations(buffers, 2):
                if home[x] != home[y]:
                    distance = lags.get((x, y), words(x.bytes))
                    apart[home[x]][home[y]] = max(apart[home[x]].get(home[y], 0), distance)
        groups = [tuple(members[i]) for i in range(len(members))]
        return cls(program=program, items=tuple(groups), sizes=tuple(max(words(b.bytes) for b in group) for group in groups),
                   spans=tuple((min(life[b][0] for b in group), max(life[b][1] for b in group)) for group in groups), apart=tuple(apart),
                   live=tuple(tuple(sorted({home[b] for b in buffers})) for buffers in alive), shared=tuple(shared) or (None,))

    def load(self, step: int, chosen: Collection[int] | None = None) -> int:
        """Least words that the items live at a step take, or those of them that are chosen."""
        live = self.live[step] if chosen is None else [i for i in self.live[step] if i in chosen]
        total = sum(self.sizes[i] for i in live)
        pair = self.shared[step]
        if pair is None or pair[0] not in live:
            return total
        output, inputs = pair[0], [i for i in pair[1] if i in live]
        rest = total - self.sizes[output] - sum(self.sizes[i] for i in inputs)
        return load(rest, self.sizes[output], [(self.sizes[i], self.apart[output][i]) for i in inputs])

    @property
    def bound(self) -> int:
        """Words that the fullest step takes at least."""
        return max(self.load(t) for t in range(len(self.live)))

    @property
    def peak(self) -> int:
        """The fullest step."""
        return max(range(len(self.live)), key=self.load)

    def height(self, offsets: Sequence[int]) -> int:
        """Words of the arena."""
        return max((offset + size for offset, size in zip(offsets, self.sizes, strict=True)), default=0)

    def plan(self, offsets: Sequence[int], bound: int) -> Plan:
        """The plan of a placement."""
        placed = {buffer: offset * ALIGNMENT for group, offset in zip(self.items, offsets, strict=True) for buffer in group}
        return Plan(program=self.program, offsets=placed, arena=self.height(offsets) * ALIGNMENT, bound=bound * ALIGNMENT)


def _homes(program: Program, life: Mapping[Buffer, tuple[int, int]]) -> dict[Buffer, int]:
    """The item of each buffer: an output in place has its input's."""
    host = {step.output: (step.inputs[step.in_place], step) for step in program.steps if step.in_place is not None}
    found: dict[Buffer, int] = {}
    for buffer in sorted(life, key=lambda b: life[b]):
        if buffer in host:
            under, step = host[buffer]
            if under not in found or life[under][1] != life[buffer][0]:
                raise PreconditionError(f"{step.layer} works in place on {under.name}, which is read later too: use the operator with an output of its own")
            found[buffer] = found[under]
        else:
            found[buffer] = max(found.values(), default=-1) + 1
    return found


def _alive(life: Mapping[Buffer, tuple[int, int]], count: int) -> list[list[Buffer]]:
    found: list[list[Buffer]] = [[] for _ in range(count)]
    for buffer, (first, last) in life.items():
        for t in range(first, last + 1):
            found[t].append(buffer)
    return found
