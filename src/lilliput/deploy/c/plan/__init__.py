"""The memory planner: order of steps, overlap of inputs and outputs, patches, and where each buffer lies."""

from lilliput.deploy.c.plan.fit import greedy
from lilliput.deploy.c.plan.lifetimes import ALIGNMENT, Patches, Plan, lifetimes
from lilliput.deploy.c.plan.memory_map import picture, table
from lilliput.deploy.c.plan.planner import plan
from lilliput.deploy.c.plan.sub_byte import candidates, fewest, packed
from lilliput.deploy.c.plan.verify import faults

__all__ = ["ALIGNMENT", "Patches", "Plan", "candidates", "faults", "fewest", "greedy", "lifetimes", "packed", "picture", "plan", "table"]
