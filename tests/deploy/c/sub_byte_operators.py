"""Random operators over codes of 4 and 2 bits: each between tables that bring random bytes within few codes, and back to bytes."""

from dataclasses import replace

import numpy as np
from tests.deploy.c import random_operators as random

from lilliput.deploy.c.operators import Add, Buffer, Convolution, Copy, Move, Multiply, Table
from lilliput.deploy.c.operators.pooling import Pool
from lilliput.deploy.c.plan import ALIGNMENT, Plan, candidates, packed
from lilliput.deploy.c.plan.overlap import Overlap
from lilliput.deploy.c.program import Program
from lilliput.deploy.c.storage import Coded, Packed, store

KINDS = (random.convolution, random.depthwise, random.pointwise, random.linear, random.pool, random.binary, random.convolution, random.grouped,
         random.table, random.move, random.pool, random.binary)


def _range(rng):
    """Bits, and the least code."""
    bits = int(rng.choice([4, 4, 2]))
    return bits, int(random._pick(rng, -128, 128 - 2**bits, rng.integers(-128, 129 - 2**bits)))


def _source(rng, buffer):
    """A table that gives few codes, and their range."""
    bits, low = _range(rng)
    few = replace(buffer, zero=int(rng.integers(low, low + 2**bits)))
    port = Buffer(name=f"{buffer.name}_bytes", shape=buffer.shape, scale=1.0, zero=0)
    return Table(inputs=(port,), output=few, layer=port.name, table=low + rng.integers(0, 2**bits, 256)), bits, low


def _limited(rng, step, inputs, bits_in):
    """The step over those inputs, with an output of few codes."""
    bits, low = _range(rng)
    high = low + 2**bits - 1
    out = replace(step.output, zero=int(rng.integers(low, high + 1)))
    step = replace(step, inputs=inputs, output=out)
    if isinstance(step, Convolution):
        if rng.random() < 0.4:
            step = replace(step, weights=rng.choice([-90, -7, 0, 5, 64], step.weights.shape))
        return replace(step, low=low, high=high, factors=step.factors * 2.0 ** (bits - bits_in))
    if isinstance(step, Add | Multiply):
        return replace(step, low=low, high=high)
    if isinstance(step, Pool):
        # On equal grids the codes are the input's.
        same = step.output.scale == inputs[0].scale
        return replace(step, output=replace(out, zero=inputs[0].zero), low=-128, high=127) if same else replace(step, low=low, high=high)
    if isinstance(step, Table):
        return replace(step, table=low + rng.integers(0, 2**bits, 256))
    assert isinstance(step, Move)
    lookup = low + rng.integers(0, 2**bits, 256)
    # A turned copy, then part of it again, without gaps.
    copies = tuple(replace(copy, table=lookup) for copy in step.copies)
    count = min(inputs[0].size, out.size, int(rng.integers(1, 90)))
    again = Copy(source=0, shape=(count,), strides_in=(1,), strides_out=(1,), table=lookup, offset_in=int(rng.integers(0, inputs[0].size - count + 1)),
                 offset_out=int(rng.integers(0, out.size - count + 1)))
    return replace(step, copies=(*copies, again), fill=int(rng.integers(low, high + 1)))


def chain(rng, kind, name):
    """An operator and what stands before and behind it."""
    step = kind(rng, name)
    sources = [_source(rng, buffer) for buffer in step.inputs]
    limited = _limited(rng, step, tuple(source.output for source, _, _ in sources), sources[0][1])
    last = Table(inputs=(limited.output,), output=Buffer(name=f"{name}_back", shape=limited.output.shape, scale=1.0, zero=0), layer=f"{name}_back",
                 table=np.arange(-128, 128))
    return [*(source for source, _, _ in sources), limited, last]


def program(count, seed, kinds=KINDS, **options):
    """So many chains side by side, some weights stored in few bits or coded, and a random choice of values in 4 and 2 bits."""
    rng = np.random.default_rng(seed)
    chains = [chain(rng, kind, f"{kind.__name__}_{seed}_{i}") for i, kind in zip(range(count), kinds * (count // len(kinds) + 1), strict=False)]
    inputs = tuple(random._port(step.inputs[0]) for steps in chains for step in steps[:-2])
    made = Program(inputs=inputs, outputs=tuple(random._port(steps[-1].output) for steps in chains), steps=tuple(s for steps in chains for s in steps),
                   **options)
    made = store(made, Coded() if seed % 2 else Packed())
    found = candidates(made)
    return packed(made, {buffer: bits if bits == 4 or rng.random() < 0.8 else 4 for buffer, bits in found.items() if rng.random() < 0.75})


def close(made):
    """A plan in which the inputs of every step that can share memory with its output follow it as closely as may be; all else lies apart."""
    share, offsets, end = Overlap(pixels_at_once=2), {}, 0
    for step in made.steps:
        lags = share(step) if step.narrow else {}
        if lags:
            # An input that its maker left elsewhere has its place here instead.
            near = min(lags, key=lags.__getitem__)
            offsets[step.output], offsets[near] = end, end + -(-lags[near] // ALIGNMENT) * ALIGNMENT
            end = max(end + step.output.bytes, offsets[near] + near.bytes)
        for buffer in (*step.inputs, step.output, *([step.scratch] if step.scratch is not None else [])):
            if buffer not in offsets:
                offsets[buffer] = end
                end += buffer.bytes
            end = -(-end // ALIGNMENT) * ALIGNMENT
    return Plan(program=made, offsets=offsets, arena=end, bound=0)


def overlapping(found):
    """Steps over codes of few bits whose output shares bytes with an input."""
    def meet(a, b):
        x, y = found.offsets[a], found.offsets[b]
        return x < y + b.bytes and y < x + a.bytes

    return [step for step in found.program.steps if step.narrow and any(meet(b, step.output) for b in step.inputs)]
