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

__all__ = ["dependency_groups", "fpgm", "l1_norm", "magnitude_global", "magnitude_gradual", "network_slimming", "random", "sfp",
           "taylor"]
