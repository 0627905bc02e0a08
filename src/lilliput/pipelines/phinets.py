"""PhiNets scaled to a device: width, shape and expansion from limits of multiplications, working memory and flash
[paissan2022phinets].
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from pathlib import Path

import torch
from torch import nn

from lilliput.core.errors import BudgetError, PreconditionError
from lilliput.zoo import create
from lilliput.zoo.phinet import shapes

# What is tried: widths, shapes and expansions.
_ALPHAS = tuple(k / 20 for k in range(1, 41))
_BETAS = tuple(k / 10 for k in range(5, 21))
_EXPANSIONS = tuple(k / 2 for k in range(4, 17))
_TRIALS = 8


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the network is for: `(channels, height, width)` of its input, classes, blocks, and the processor that code is
    generated for.
    """

    shape: tuple[int, int, int] = (3, 96, 96)
    num_classes: int = 10
    blocks: int = 7
    target: str = "cortex-m4"


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Multiply-accumulates of one input, bytes of working memory, bytes of flash."""

    macs: int
    ram: int
    flash: int

    def within(self, limits: Costs) -> bool:
        """Whether all three keep the limits."""
        return self.macs <= limits.macs and self.ram <= limits.ram and self.flash <= limits.flash

    def __str__(self) -> str:
        return f"{self.macs:,} MACs, {self.ram:,} bytes of RAM and {self.flash:,} bytes of flash"


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """A PhiNet's three scales, with what its int8 network takes as generated code."""

    alpha: float
    beta: float
    t_zero: float
    task: Task
    costs: Costs

    def network(self, seed: int | None = None) -> nn.Module:
        """The network with random weights."""
        return _network((self.alpha, self.beta, self.t_zero), self.task, seed)


def scale(task: Task = Task(), *, ram: int | None = None, flash: int | None = None, macs: int | None = None) -> Scaling:
    """The PhiNet that uses most of what is given and keeps every limit as int8 code: `ram`, `flash` in bytes, `macs`
    (paissan2022phinets).

    The paper sets `alpha` by the multiplications, then `t_zero` by the working memory, then `beta` by the parameters. Here every
    triple of a grid is counted, since each scale moves all three; of those that keep the limits, the one with the largest product
    of the limited counts is taken, so that a larger limit never gives a network that uses less. Counting is by formula, exact for
    MACs; working memory and flash are those of the project that is then generated, with random weights, and only a network whose
    project keeps the limits is returned. Without the target's compiler, flash is that of the constants.

    Raises `BudgetError` naming the nearest network of the grid where none keeps the limits, `PreconditionError` for no limit at
    all.
    """
    given = {name: limit for name, limit in (("macs", macs), ("ram", ram), ("flash", flash)) if limit is not None}
    if not given or min(given.values()) <= 0:
        raise PreconditionError("give at least one limit above zero: ram= or flash= in bytes, macs=")
    limits = Costs(**{name: given.get(name, _NOTHING) for name in ("macs", "ram", "flash")})
    grid = _grid(task)
    order = sorted((found for found in grid if found[1].within(limits)), key=lambda found: _used(found[1], given), reverse=True)
    found = _search(order, task, limits)
    if found is not None:
        return found
    nearest, _ = min(grid, key=lambda found: (max(getattr(found[1], name) / limit for name, limit in given.items()), found[0]))
    wanted = ", ".join(f"{name} {limit:,}" for name, limit in given.items())
    raise BudgetError(f"no PhiNet for {' x '.join(map(str, task.shape))} keeps {wanted}; the nearest has alpha={nearest[0]}, beta={nearest[1]}, "
                      f"t_zero={nearest[2]} with {judged(nearest, task)}. Allow that, or take smaller inputs or fewer blocks")


_NOTHING = 1 << 62
Triple = tuple[float, float, float]


def _search(order: list[tuple[Triple, Costs]], task: Task, limits: Costs) -> Scaling | None:
    """The first whose project keeps the limits; one that does not shows by how much the formula falls short at least."""
    ram = flash = 1.0
    trials = 0
    for triple, counted in order:
        if counted.ram * ram > limits.ram or counted.flash * flash > limits.flash:
            continue
        costs = judged(triple, task)
        if costs.within(limits):
            return Scaling(alpha=triple[0], beta=triple[1], t_zero=triple[2], task=task, costs=costs)
        ram, flash = max(ram, costs.ram / counted.ram), max(flash, costs.flash / counted.flash)
        trials += 1
        if trials == _TRIALS:
            break
    return None


def _used(costs: Costs, given: dict[str, int]) -> tuple[int, int, int]:
    return prod(getattr(costs, name) for name in given), costs.macs, costs.flash


@cache
def _grid(task: Task) -> tuple[tuple[Triple, Costs], ...]:
    """All triples with their costs: by formula, plus what the formula misses of the smallest one's project."""
    found = [((alpha, beta, t_zero), formula((alpha, beta, t_zero), task)) for alpha, beta, t_zero in product(_ALPHAS, _BETAS, _EXPANSIONS)]
    first, counted = found[0]
    real = judged(first, task)
    ram, flash = max(real.ram - counted.ram, 0), max(real.flash - counted.flash, 0)
    return tuple((triple, Costs(macs=c.macs, ram=c.ram + ram, flash=c.flash + flash)) for triple, c in found)


def formula(triple: Triple, task: Task) -> Costs:
    """Costs without building anything. MACs are exact.

    RAM is that of the fullest block, computed in place: its inside and one pixel of it, and its input where that is added; between two
    blocks, what joins them shares memory with the inside of one, or of both where it is small. Flash
    is a byte for a weight, nine for a channel's bias and rescaling, 256 for a table, five for each number of pixels that a mean
    may have.
    """
    channels, height, width = task.shape
    found = shapes(*triple, task.blocks)
    height, width = -(-height // 2), -(-width // 2)
    macs = height * width * channels * (9 + found[0].inputs)
    weights, outputs = channels * (9 + found[0].inputs), channels + found[0].inputs
    peak, tables = max(prod(task.shape), height * width * found[0].inputs), 1
    counted, inside, joint = 0, 0, height * width * found[0].inputs
    for shape in found:
        before = height * width
        height, width = -(-height // shape.stride), -(-width // shape.stride)
        after, hidden = height * width, shape.hidden
        up, gate = shape.inputs * hidden * shape.expands, 2 * hidden * shape.squeezed
        macs += before * up + after * hidden * (9 + shape.outputs) + gate
        weights += up + gate + hidden * (9 + shape.outputs)
        outputs += hidden * (1 + shape.expands) + shape.outputs + (shape.squeezed + hidden if gate else 0)
        tables += 1 + shape.expands + 2 * bool(gate)
        counted += after if gate else 0
        peak = max(peak, before * (hidden + (shape.inputs if shape.residual else 0)) + hidden, between(inside, joint, before * hidden))
        inside, joint = after * hidden, after * shape.outputs
    last = found[-1].outputs * task.num_classes
    constants = weights + last + 9 * (outputs + task.num_classes) + 256 * tables + 5 * (counted + height * width)
    return Costs(macs=macs + last, ram=peak, flash=constants)


def between(inside: int, joint: int, following: int) -> int:
    """Bytes while `joint` is written from `inside` and read for `following`: apart from the first, from the second, or in place of both."""
    return min(max(inside + joint, following), max(inside, joint + following), max(inside + following - joint, inside, following))


@cache
def judged(triple: Triple, task: Task) -> Costs:
    """Costs of the int8 network as generated code: MACs by profile, RAM by the memory planner, flash as compiled."""
    from lilliput.data import from_arrays
    from lilliput.deploy.c import to_c
    from lilliput.graph import profile, trace
    from lilliput.quantize import minmax

    noise = torch.randn(40, *task.shape, generator=torch.Generator().manual_seed(0))
    data = from_arrays("noise", noise, torch.arange(40) % 2)
    traced = trace(_network(triple, task, 0).eval(), noise[:2])
    with tempfile.TemporaryDirectory() as folder:
        project = to_c(minmax(samples=32)(traced, data).model.eval(), Path(folder) / "project", target=task.target)
    return Costs(macs=profile(traced).macs, ram=project.plan.arena, flash=project.flash)


def _network(triple: Triple, task: Task, seed: int | None) -> nn.Module:
    alpha, beta, t_zero = triple
    return create("phinet", num_classes=task.num_classes, in_chans=task.shape[0], seed=seed,
                  options={"alpha": alpha, "beta": beta, "t_zero": t_zero, "blocks": task.blocks})
