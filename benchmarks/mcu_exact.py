"""Random operators on every emulated processor: how many codes differ from those of the integer reference.

    python -m benchmarks.mcu_exact --json benchmarks/results/mcu_exact.json [PROCESSOR ...]

1,000 operators of all kinds, shapes, zero points, scales and limits (`tests/deploy/c/random_operators.py`), each on random codes and on codes
that are all -128 or 127, in programs of 50; inputs share memory with outputs as closely as the planner lets them. A quarter of the programs
is compiled for one rounding instead of two.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.deploy.c.random_operators import operators, program, samples, side_by_side, wrong

from benchmarks.results import main
from lilliput.deploy.c.arithmetic import DoubleRounding, SingleRounding
from lilliput.deploy.c.harness import measure
from lilliput.deploy.c.targets import TARGETS

_PROGRAMS, _EACH = 20, 50


def row(processor: str) -> dict[str, Any]:
    """All programs on one processor."""
    differing: dict[str, int] = {}
    codes, kinds = 0, Counter[str]()
    for seed in range(_PROGRAMS):
        target = TARGETS[processor]
        made = program(operators(_EACH, seed=1000 + seed), rounding=SingleRounding() if seed % 4 == 3 else DoubleRounding())
        given = samples(made, seed=seed)
        found = measure(side_by_side(made, target.pixels_at_once), target, given)
        differing |= wrong(made, found.outputs, given)
        codes += len(given) * sum(step.output.size for step in made.steps)
        kinds.update(type(step).__name__ for step in made.steps)
    return {"operators": sum(kinds.values()), "kinds": dict(sorted(kinds.items())), "codes": int(codes), "differ": sum(differing.values()),
            "where": dict(sorted(differing.items())[:10])}


if __name__ == "__main__":
    main(row, [name for name, target in TARGETS.items() if target.board is not None], threads=1)
