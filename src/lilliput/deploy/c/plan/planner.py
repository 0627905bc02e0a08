"""The plan of a program: order, overlap, in-place steps, patches and offsets, within a limit of memory if one is given."""

from __future__ import annotations

from lilliput.core.errors import BudgetError, PreconditionError
from lilliput.deploy.c.operators import Buffer
from lilliput.deploy.c.plan.choose import patched
from lilliput.deploy.c.plan.demand import Demand
from lilliput.deploy.c.plan.exact import Placement, place
from lilliput.deploy.c.plan.flow import Flow, as_is
from lilliput.deploy.c.plan.in_place import choose, ways
from lilliput.deploy.c.plan.lifetimes import ALIGNMENT, Plan
from lilliput.deploy.c.plan.limit import Limit
from lilliput.deploy.c.plan.order import Order, best, orders
from lilliput.deploy.c.plan.overlap import Overlap, Sharing, apart
from lilliput.deploy.c.program import Program

_ORDERED = 400


def plan(program: Program, *, ram: int | None = None, overlap: bool = True, patches: bool | None = None, seconds: float = 10.0,
         pixels_at_once: int = 2) -> Plan:
    """A plan with the least arena that is found in so many seconds; the same every time where they suffice. (lin2020mcunet, lin2021mcunetv2)

    `overlap`: outputs may share memory with inputs, and convolutions may run in place, which is slower; with `ram`, only those that it takes
    to fit. `patches`: the first stage is computed patch by patch (True), never (False), or only where the arena exceeds `ram` bytes
    otherwise (None). With `ram`, of all ways into patches that fit the one with the fewest multiplications is taken, else the one with the
    least arena. `pixels_at_once`: so many pixels the kernels compute at the same time; the portable ones two. Raises `BudgetError` if the
    arena exceeds `ram`, naming the fullest step, `PreconditionError` if patches are asked for and no stage of the program can be computed so.
    """
    if seconds <= 0 or pixels_at_once < 1 or (ram is not None and ram < 0):
        raise PreconditionError("a plan takes seconds > 0, pixels_at_once >= 1 and ram >= 0")
    sharing, limit = (Overlap(pixels_at_once=pixels_at_once) if overlap else apart), Limit(seconds=seconds)
    entire = whole(program, sharing, limit, 0 if ram is None else ram // ALIGNMENT)
    found = entire
    if patches or (patches is None and ram is not None and entire.arena > ram):
        split = patched(program.reordered(_order(program, sharing, limit).steps), sharing, limit, ram)
        if split is None and patches:
            raise PreconditionError("no first stage of this program can be computed in patches: it takes windows, tables, sums and products over images "
                                    "from one input to one output; leave patches out")
        if split is not None and (patches or split.arena < entire.arena):
            found = split
    if ram is not None and found.arena > ram:
        raise BudgetError(_excess(found, sharing, ram))
    return found


def _order(program: Program, sharing: Sharing, limit: Limit) -> Order:
    return best(Flow.of(program, sharing, as_is if sharing is apart else ways), limit.part(0.3))


def whole(program: Program, sharing: Sharing, limit: Limit, enough: int) -> Plan:
    """The plan without patches; convolutions run in place only if it takes more than `enough` words otherwise."""
    overlap = sharing is not apart
    order = _order(program, sharing, limit)
    ordered = program.reordered(order.steps)
    found = choose(ordered, sharing, limit, enough=enough) if overlap else place(Demand.of(ordered, sharing), limit.part(0.3))
    flow = Flow.of(found.demand.program, sharing)
    # With other ways to compute steps, the bound of the order is that of the least of them.
    several = overlap and any(len(ways(step)) > 1 for step in program.steps)
    bound = best(flow, limit.part(0.3)).bound if several else order.bound
    if found.height > max(bound, enough) and len(flow.needs) <= _ORDERED:
        found, exact = _reordered(found, flow, sharing, limit)
        bound = found.height if exact else bound
    return found.demand.plan(found.offsets, bound)


def _reordered(found: Placement, flow: Flow, sharing: Sharing, limit: Limit) -> tuple[Placement, bool]:
    """The least placement over all orders, and whether all were seen to the end."""
    exact, seen, search = True, set[frozenset[tuple[Buffer, Buffer, int]]](), limit.part()
    for order in orders(flow, found.height, search):
        demand = Demand.of(flow.program.reordered(order), sharing)
        kind = frozenset((demand.items[i][0], demand.items[j][0], d) for i, near in enumerate(demand.apart) for j, d in near.items())
        if kind in seen:
            continue
        seen.add(kind)
        trial = place(demand, limit.part(0.5), below=found.height)
        exact &= trial.bound >= min(found.height, trial.height)
        if trial.height < found.height:
            found = trial
        if search.over:
            break
    return found, exact and not search.over


def _excess(found: Plan, sharing: Sharing, ram: int) -> str:
    """What is too large, and by how much."""
    demand = Demand.of(found.program, sharing)
    step = found.program.steps[demand.peak]
    remedy = "a smaller input, fewer channels there" if found.patches is not None or sharing is not apart else "overlap=True, patches=True, fewer channels there"
    return (f"the arena takes {found.arena:,} bytes, {found.arena - ram:,} more than the {ram:,} given; its fullest step is {step.layer} with "
            f"{demand.load(demand.peak) * ALIGNMENT:,} bytes. Take {remedy} or a larger device")
