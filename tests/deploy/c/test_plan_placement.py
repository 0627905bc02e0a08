"""Order and offsets: arenas known by hand, and the least of all placements of small programs."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_nets import port

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.operators import Add, Buffer, Convolution, Move, Table, Window
from lilliput.deploy.c.plan import faults, greedy, lifetimes, plan
from lilliput.deploy.c.plan.demand import Demand
from lilliput.deploy.c.plan.exact import place
from lilliput.deploy.c.plan.fit import by_rule
from lilliput.deploy.c.plan.limit import Limit
from lilliput.deploy.c.plan.overlap import Overlap, apart
from lilliput.deploy.c.program import Program


def buffer(name, size):
    return Buffer(name=name, shape=(size,), scale=1.0, zero=0)


def step(output, *inputs):
    """Some operator whose output shares no memory with its inputs."""
    return Move(inputs=inputs, output=output, layer=output.name, copies=(), fill=0)


def program(inputs, steps, outputs):
    return Program(inputs=tuple(map(port, inputs)), outputs=tuple(map(port, outputs)), steps=tuple(steps))


def chain(*sizes):
    buffers = [buffer(f"b{i}", size) for i, size in enumerate(sizes)]
    return program(buffers[:1], [step(b, a) for a, b in pairwise(buffers)], buffers[-1:])


def test_a_chain_takes_its_largest_neighbours():
    found = plan(chain(100, 200, 52, 300, 8))
    assert (found.arena, found.bound, found.optimal) == (352, 352, True)


def test_sizes_are_rounded_to_whole_words():
    assert plan(chain(5, 3)).arena == 12


def test_the_branch_that_leaves_less_behind_comes_first():
    # b (100 -> 400 -> 8) before a (100 -> 8): 100 + 400 + 8 at most; a first holds its 8 bytes then. The given order takes 100 + 40 + 400 + 8.
    x, wide, narrow, left, out = (buffer(name, size) for name, size in (("x", 100), ("wide", 400), ("narrow", 8), ("left", 40), ("out", 4)))
    given_order = program([x], [step(left, x), step(wide, x), step(narrow, wide), step(out, left, narrow)], [out])
    assert greedy(given_order).arena == 540
    found = plan(given_order, overlap=False)
    assert (found.arena, found.optimal) == (508, True)
    assert [s.output.name for s in found.program.steps] == ["wide", "narrow", "left", "out"]


def mesh(sizes, reads):
    buffers = [buffer(f"b{i}", n) for i, n in enumerate(sizes)]
    return program(buffers[:1], [step(buffers[i + 1], *(buffers[j] for j in js)) for i, js in enumerate(reads)], buffers[-1:])


def test_the_search_closes_what_rules_leave():
    made = mesh((76, 52, 64, 56, 60, 80, 76, 88), ((0,), (1,), (1, 0), (3, 1), (2, 1), (4, 5), (6, 4)))
    demand = Demand.of(made, apart)
    assert 4 * demand.height(by_rule(demand)) == 264
    assert 4 * place(demand, Limit(seconds=60)).height == 4 * demand.bound == 256


def test_a_bound_counts_buffers_that_the_search_leaves_out():
    sizes = (21, 12, 17, 1, 15, 22, 15, 1, 17, 4, 1, 1, 1, 26, 13)
    reads = ((0,), (0,), (2,), (1,), (4,), (3, 2), (5, 6), (5,), (5, 8), (9, 6), (8, 7), (11,), (11, 12), (10,))
    found = place(Demand.of(mesh([4 * n for n in sizes], reads), apart), Limit(seconds=60))
    assert (found.height, found.bound) == (59, 59)


def least(made, sharing):
    """Words of the least placement in the program's order, from all sequences in which buffers come to their lowest free place, in bytes."""
    life, final = lifetimes(made), {p.buffer for p in made.outputs}
    lags = {(x, s.output): lag for t, s in enumerate(made.steps) for x, lag in sharing(s).items() if life[x][1] == t and x not in final}

    def fits(x, at, y, other):
        if life[x][1] < life[y][0] or life[y][1] < life[x][0]:
            return True
        size_x, size_y = -(-x.size // 4) * 4, -(-y.size // 4) * 4
        if at + size_x <= other or other + size_y <= at:
            return True
        return ((x, y) in lags and at - other >= lags[x, y]) or ((y, x) in lags and other - at >= lags[y, x])

    best = None
    for sequence in permutations(life):
        placed = {}
        for x in sequence:
            at = 0
            while not all(fits(x, at, y, other) for y, other in placed.items()):
                at += 4
            placed[x] = at
            if best is not None and at + x.size > best:
                break
        else:
            height = max(at + -(-x.size // 4) * 4 for x, at in placed.items())
            best = height if best is None else min(best, height)
    return best


def every_order(made):
    for order in permutations(range(len(made.steps))):
        done = {p.buffer for p in made.inputs}
        for i in order:
            if not set(made.steps[i].inputs) <= done:
                break
            done.add(made.steps[i].output)
        else:
            yield made.reordered(order)


@st.composite
def programs(draw, count):
    """Steps over one another's outputs: some that share no memory, tables, sums, and 1 x 1 convolutions of other depths."""
    live, steps = [buffer("input", 4 * draw(st.integers(1, 8)))], []
    for i in range(count):
        x, kind = live[draw(st.integers(max(0, len(live) - 3), len(live) - 1))], draw(st.integers(0, 4))
        if kind <= 1 or x.size % 4:
            inputs = tuple({x, live[draw(st.integers(0, len(live) - 1))]})
            steps.append(step(buffer(f"move{i}", 4 * draw(st.integers(1, 8))), *sorted(inputs, key=lambda b: b.name)))
        elif kind == 2:
            steps.append(Table(inputs=(x,), output=buffer(f"table{i}", x.size), layer=f"table{i}", table=np.arange(-128, 128)))
        elif kind == 3:
            other = draw(st.sampled_from([b for b in live if b.size == x.size]))
            steps.append(Add(inputs=(x, other), output=buffer(f"add{i}", x.size), layer=f"add{i}"))
        else:
            pixels, filters = x.size // 4, draw(st.integers(1, 8))
            # Dilation keeps it from being computed in place in another way.
            steps.append(Convolution(inputs=(x,), output=buffer(f"conv{i}", pixels * filters), layer=f"conv{i}", bias=np.zeros(filters, np.int64),
                                     weights=np.ones((filters, 1, 1, 4), np.int64), factors=np.full(filters, 0.1), image=(1, pixels, 4),
                                     window=Window(dilation=(1, 2))))
        live.append(steps[-1].output)
    read = {b for s in steps for b in s.inputs}
    return program(live[:1], steps, [b for b in live[1:] if b not in read])


@settings(max_examples=40, deadline=None)
@given(programs(5), st.booleans())
def test_a_fixed_order_gets_its_least_arena(made, overlap):
    sharing = Overlap(pixels_at_once=1) if overlap else apart
    found = place(Demand.of(made, sharing), Limit(seconds=60))
    assert 4 * found.height == least(made, sharing)
    assert found.bound == found.height


@settings(max_examples=25, deadline=None)
@given(programs(4), st.booleans())
def test_the_planner_finds_the_least_arena_of_all_orders(made, overlap):
    found = plan(made, overlap=overlap, seconds=60, pixels_at_once=1)
    assert found.arena == min(least(ordered, Overlap(pixels_at_once=1) if overlap else apart) for ordered in every_order(made))
    assert found.optimal
    sample = [np.random.default_rng(0).integers(-128, 128, p.buffer.shape) for p in made.inputs]
    assert faults(found, samples=[sample], pixels_at_once=1) == []


@settings(max_examples=15, deadline=None)
@given(programs(9))
def test_bounds_never_exceed_what_is_found(made):
    hasty, patient = plan(made, seconds=1e-6), plan(made, seconds=20)
    assert patient.bound <= patient.arena <= hasty.arena
    assert hasty.bound <= patient.arena
    assert faults(hasty) == faults(patient) == []


def test_plans_repeat():
    rng = np.random.default_rng(3)
    buffers = [buffer(f"b{i}", int(n)) for i, n in enumerate(rng.integers(4, 200, 15))]
    steps = [step(buffers[i], buffers[i - 1], buffers[int(rng.integers(0, i))]) for i in range(1, 15)]
    made = program(buffers[:1], steps, buffers[-1:])
    first, second = plan(made), plan(made)
    assert first.offsets == second.offsets
    assert first.optimal


def test_no_time_is_refused():
    with pytest.raises(PreconditionError, match="seconds > 0"):
        plan(chain(4, 4), seconds=0)
