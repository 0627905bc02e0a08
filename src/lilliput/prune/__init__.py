"""Pruning: criterion, unit, allocation, schedule and recovery, and the published methods as choices on them."""

from lilliput.prune.criteria import GeometricMedian, GroupMagnitude, Layer, Magnitude, NormScale, Random, Taylor
from lilliput.prune.recipes import (
    dependency_groups,
    force,
    fpgm,
    grasp,
    l1_norm,
    lamp,
    lookahead,
    magnitude_global,
    magnitude_gradual,
    network_slimming,
    obd,
    random,
    sfp,
    snip,
    taylor,
    taylor_activation,
)
from lilliput.prune.schedules import Gradual, OneShot, Soft
from lilliput.prune.statistics import Stats
from lilliput.prune.step import FineTune, Prune, Slim
from lilliput.prune.units import Channels, Element

__all__ = ["Channels", "Element", "FineTune", "GeometricMedian", "Gradual", "GroupMagnitude", "Layer", "Magnitude",
           "NormScale", "OneShot", "Prune", "Random", "Slim", "Soft", "Stats", "Taylor", "dependency_groups", "force",
           "fpgm", "grasp", "l1_norm", "lamp", "lookahead", "magnitude_global", "magnitude_gradual", "network_slimming",
           "obd", "random", "sfp", "snip", "taylor", "taylor_activation"]
