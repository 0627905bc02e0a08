"""What each step of a program takes and gives back, whatever the order: sets of steps are bit masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lilliput.deploy.c.operators import Buffer, Operator
from lilliput.deploy.c.plan.demand import load
from lilliput.deploy.c.plan.lifetimes import words
from lilliput.deploy.c.plan.overlap import Sharing
from lilliput.deploy.c.program import Program

Options = Callable[[Operator], Sequence[Operator]]


def as_is(step: Operator) -> Sequence[Operator]:
    """No other way to compute a step."""
    return (step,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """Readers of each buffer and predecessors of each step, as masks; `ways` to compute each step, of which the least memory counts."""

    program: Program
    ways: tuple[tuple[tuple[Operator, dict[Buffer, int]], ...], ...]
    readers: dict[Buffer, int]
    needs: tuple[int, ...]
    kept: frozenset[Buffer]

    @classmethod
    def of(cls, program: Program, sharing: Sharing, options: Options = as_is) -> Flow:
        """The flow of a program."""
        maker = {step.output: i for i, step in enumerate(program.steps)}
        readers = {buffer: sum(1 << i for i in steps) for buffer, steps in ((b, set(s)) for b, s in program.readers().items())}
        needs = []
        for i, step in enumerate(program.steps):
            needed = {maker[b] for b in step.inputs if b in maker}
            if step.in_place is not None:
                # What is read elsewhere too is read there first.
                readers_of = readers[step.inputs[step.in_place]]
                needed |= {j for j in range(len(program.steps)) if readers_of >> j & 1 and j != i}
            needs.append(sum(1 << j for j in needed))
        ways = tuple(tuple((way, dict(sharing(way))) for way in options(step)) for step in program.steps)
        return cls(program=program, ways=ways, readers=readers, needs=tuple(needs), kept=frozenset(port.buffer for port in program.outputs))

    @property
    def start(self) -> int:
        """Words of the inputs that are read."""
        return sum(words(port.buffer.bytes) for port in self.program.inputs if self.readers[port.buffer] or port.buffer in self.kept)

    def ready(self, done: int) -> Iterator[int]:
        """Steps that can be next."""
        return (i for i, need in enumerate(self.needs) if not done >> i & 1 and not need & ~done)

    def run(self, done: int, live: int, step: int) -> tuple[int, int]:
        """Words at a step at least, and words that live behind it, where `live` words live before it."""
        after = done | 1 << step
        dying = {b for b in self.program.steps[step].inputs if b in self.readers and b not in self.kept and not self.readers[b] & ~after}
        output = self.program.steps[step].output
        least = min(self._least(way, lags, live, dying) for way, lags in self.ways[step])
        freed = sum(words(b.bytes) for b in dying) + (0 if self.readers[output] or output in self.kept else words(output.bytes))
        return least, live + words(output.bytes) - freed

    @staticmethod
    def _least(way: Operator, lags: dict[Buffer, int], live: int, dying: set[Buffer]) -> int:
        shared = [(words(b.bytes), words(lag)) for b, lag in lags.items() if b in dying]
        if way.in_place is not None and way.inputs[way.in_place] in dying:
            shared.append((words(way.inputs[way.in_place].bytes), 0))
        scratch = words(way.scratch.bytes) if way.scratch is not None else 0
        return load(live - sum(size for size, _ in shared) + scratch, words(way.output.bytes), shared)
