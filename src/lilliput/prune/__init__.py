"""Pruning: criterion, unit, allocation, schedule and recovery, and the published methods as choices on them."""

from lilliput.prune.criteria import GeometricMedian, GroupMagnitude, Layer, Magnitude, NormScale, Random, Taylor
from lilliput.prune.emptied import without_empty_channels
from lilliput.prune.gating import Gated
from lilliput.prune.growth import Rewiring
from lilliput.prune.inactivity import SoftChannels
from lilliput.prune.layerwise import LayerByLayer
from lilliput.prune.patterns import NM, Rows, Whole
from lilliput.prune.penalty import GrowingPenalty
from lilliput.prune.rate import RateDistortion
from lilliput.prune.recipes import (
    block,
    catro,
    ccp,
    continuous_sparsification,
    dependency_groups,
    dns,
    dnw,
    dpf,
    dsr,
    dst,
    force,
    fpgm,
    grasp,
    group_fisher,
    growing_regularisation,
    hrank,
    l1_norm,
    lamp,
    layerwise_obs,
    lfpc,
    lookahead,
    lottery_ticket,
    magnitude_global,
    magnitude_gradual,
    mfac,
    n_m,
    n_m_attention,
    network_slimming,
    obc,
    obd,
    obs,
    random,
    rd_prune,
    rigl,
    scop,
    scp,
    sfp,
    snip,
    soft_threshold,
    sparse_momentum,
    sparsegpt,
    taylor,
    taylor_activation,
    wanda,
    woodfisher,
)
from lilliput.prune.rewinding import Rewinding
from lilliput.prune.savings import PerSaving
from lilliput.prune.schedules import Gradual, OneShot, Soft
from lilliput.prune.selection import LassoSelection
from lilliput.prune.semistructured import Block, Patterned
from lilliput.prune.statistics import Stats
from lilliput.prune.step import FineTune, Prune, Slim
from lilliput.prune.straight_through import Movement, Refined
from lilliput.prune.units import Channels, Element

__all__ = ["NM", "Block", "Channels", "Element", "FineTune", "Gated", "GeometricMedian", "Gradual", "GroupMagnitude",
           "GrowingPenalty", "LassoSelection", "Layer", "LayerByLayer", "Magnitude", "Movement", "NormScale", "OneShot", "Patterned",
           "PerSaving", "Prune", "Random", "RateDistortion", "Refined", "Rewinding", "Rewiring", "Rows", "Slim",
           "Soft", "SoftChannels", "Stats", "Taylor", "Whole", "block", "catro", "ccp", "continuous_sparsification",
           "dependency_groups", "dns", "dnw", "dpf", "dsr", "dst", "force", "fpgm", "grasp", "group_fisher",
           "growing_regularisation", "hrank", "l1_norm", "lamp", "layerwise_obs", "lfpc", "lookahead",
           "lottery_ticket", "magnitude_global", "magnitude_gradual", "mfac", "n_m", "n_m_attention",
           "network_slimming", "obc", "obd", "obs", "random", "rd_prune", "rigl", "scop", "scp", "sfp", "snip",
           "soft_threshold", "sparse_momentum", "sparsegpt", "taylor", "taylor_activation", "wanda",
           "without_empty_channels", "woodfisher"]
