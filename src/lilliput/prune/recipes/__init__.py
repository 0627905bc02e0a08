"""Published pruning methods, each a choice on the axes criterion, unit, allocation, schedule, recovery and growth."""

from lilliput.prune.recipes.basic import (
    dependency_groups,
    fpgm,
    l1_norm,
    magnitude_global,
    magnitude_gradual,
    network_slimming,
    random,
    sfp,
    taylor,
)
from lilliput.prune.recipes.saliency import force, grasp, lamp, lookahead, obd, snip, taylor_activation

__all__ = ["dependency_groups", "force", "fpgm", "grasp", "l1_norm", "lamp", "lookahead", "magnitude_global", "magnitude_gradual", "network_slimming", "obd", "random", "sfp", "snip", "taylor", "taylor_activation"]
