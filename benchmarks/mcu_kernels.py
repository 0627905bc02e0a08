"""Three layers on every emulated processor: instructions of one run, for each multiplication, and bytes of kernels.

    python -m benchmarks.mcu_kernels --json benchmarks/results/mcu_kernels.json [PROCESSOR ...]

A convolution 3 x 3 of 16 by 16 channels on 32 x 32, a depthwise one of 32 channels on 24 x 24, both padded to the same size, and a 1 x 1
convolution of 32 by 64 channels on 24 x 24; codes of inputs and weights are random, and nothing is clipped but to int8. Instructions are those
of the whole model of one layer at -O2, counted by the emulator: no cycles, no latency. `code` is of its kernels at -O2 and at -Os, without
the table of calls; `wrong` counts codes that differ from the integer reference. `cmsis` is what CMSIS-NN takes for the same layers on Cortex-M4.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tests.deploy.c.random_operators import program, samples, side_by_side, wrong

from benchmarks.results import main
from lilliput.deploy.c.emit import emit
from lilliput.deploy.c.harness import compile_objects, measure, sizes
from lilliput.deploy.c.operators import Buffer, Convolution, Window
from lilliput.deploy.c.plan import Plan
from lilliput.deploy.c.targets import TARGETS, Target

_SAME = Window(kernel=(3, 3), pads=(1, 1, 1, 1))
LAYERS: dict[str, tuple[tuple[int, int, int], int, Window, int]] = {
    "3 x 3": ((32, 32, 16), 16, _SAME, 1), "depthwise": ((24, 24, 32), 32, _SAME, 32), "1 x 1": ((24, 24, 32), 64, Window(), 1)}
CMSIS = {"3 x 3": 5_490_000, "depthwise": 950_000, "1 x 1": 3_180_000}


def _layer(name: str) -> Convolution:
    """Outputs spread over all codes."""
    rng = np.random.default_rng(0)
    image, filters, window, groups = LAYERS[name]
    weights = rng.integers(-127, 128, (filters, *window.kernel, image[2] // groups))
    spread = 74.0 * 73.0 * np.sqrt(weights[0].size)
    source = Buffer(name="x", shape=image, scale=1.0, zero=-128)
    return Convolution(inputs=(source,), output=Buffer(name="y", shape=(*window.size(*image[:2]), filters), scale=1.0, zero=-3), layer=name,
                       weights=weights, bias=rng.integers(-20_000, 20_000, filters), factors=rng.uniform(40, 80, filters) / spread, image=image,
                       window=window, groups=groups)


def _code(plan: Plan, target: Target, level: str) -> int:
    with tempfile.TemporaryDirectory() as name:
        emit(plan, Path(name), target=target)
        return sizes([path for path in compile_objects(Path(name), target, level) if path.name != "model.o"], target).code


def row(processor: str) -> dict[str, Any]:
    """All layers on one processor."""
    target, out = TARGETS[processor], {}
    for name in LAYERS:
        made = program([_layer(name)])
        given, plan = samples(made), side_by_side(made, target.pixels_at_once)
        found = measure(plan, target, given)
        out[name] = {"macs": made.macs, "instructions": found.instructions, "per_mac": round(found.instructions / made.macs, 3), "stack": found.stack,
                     "code": _code(plan, target, "-O2"), "code_small": _code(plan, target, "-Os"),
                     "wrong": sum(wrong(made, found.outputs, given).values())}
        if processor == "cortex-m4":
            out[name]["cmsis"] = CMSIS[name]
    return out


if __name__ == "__main__":
    main(row, [name for name, target in TARGETS.items() if target.board is not None], threads=1)
