"""Pruning: criterion, unit, allocation, schedule and recovery, and the published methods as choices on them."""

from lilliput.prune.adaptation import Adaptation
from lilliput.prune.adversarial import Adversarial
from lilliput.prune.branches import Branches
from lilliput.prune.coordinates import CoordinateDescent, SuperNetwork
from lilliput.prune.criteria import GeometricMedian, GroupMagnitude, Layer, Magnitude, NormScale, Random, Taylor
from lilliput.prune.dimensions import Samples
from lilliput.prune.emptied import without_empty_channels
from lilliput.prune.feedback import SensitivityFeedback
from lilliput.prune.from_scratch import FrozenGates
from lilliput.prune.gating import Gated
from lilliput.prune.growth import Rewiring
from lilliput.prune.hypernetwork import MetaPruning
from lilliput.prune.inactivity import SoftChannels
from lilliput.prune.latency_aware import ByTable, Knapsack, LessCost
from lilliput.prune.latency_table import LatencyTable, Tabulation
from lilliput.prune.layerwise import LayerByLayer
from lilliput.prune.patterns import NM, Rows, Whole
from lilliput.prune.penalty import GrowingPenalty
from lilliput.prune.rate import RateDistortion
from lilliput.prune.ratios import AccuracyGuaranteed, LayerRatios
from lilliput.prune.recipes import (
    amc,
    aster,
    block,
    catro,
    ccp,
    continuous_sparsification,
    dependency_groups,
    dhp,
    dns,
    dnw,
    dpf,
    dsr,
    dst,
    force,
    fpgm,
    gal,
    grasp,
    group_fisher,
    growing_regularisation,
    halp,
    hrank,
    kwon_post_training,
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
    netadapt,
    network_slimming,
    obc,
    obd,
    obs,
    prune_from_scratch,
    purl,
    random,
    rd_prune,
    rigl,
    runtime_neural_pruning,
    scop,
    scp,
    sfp,
    snip,
    soft_threshold,
    sparse_momentum,
    sparsegpt,
    taylor,
    taylor_activation,
    three_d,
    vit_hessian,
    wanda,
    woodfisher,
)
from lilliput.prune.removal import Apart, RemovalLoss, Similarity
from lilliput.prune.rewinding import Rewinding
from lilliput.prune.runtime import AtRuntime, Turns
from lilliput.prune.savings import PerSaving
from lilliput.prune.schedules import Gradual, OneShot, Soft
from lilliput.prune.selection import LassoSelection
from lilliput.prune.semistructured import Block, Patterned
from lilliput.prune.statistics import Stats
from lilliput.prune.step import FineTune, Prune, Slim
from lilliput.prune.straight_through import Movement, Refined
from lilliput.prune.structures import Structures
from lilliput.prune.thresholds import DeviationThresholds
from lilliput.prune.units import Channels, Element

__all__ = ["NM", "AccuracyGuaranteed", "Adaptation", "Adversarial", "Apart", "AtRuntime", "Block", "Branches", "ByTable",
           "Channels", "CoordinateDescent", "DeviationThresholds", "Element", "FineTune", "FrozenGates", "Gated",
           "GeometricMedian", "Gradual", "GroupMagnitude", "GrowingPenalty", "Knapsack", "LassoSelection", "LatencyTable",
           "Layer", "LayerByLayer", "LayerRatios", "LessCost", "Magnitude", "MetaPruning", "Movement", "NormScale", "OneShot",
           "Patterned", "PerSaving", "Prune", "Random", "RateDistortion", "Refined", "RemovalLoss", "Rewinding", "Rewiring",
           "Rows", "Samples", "SensitivityFeedback", "Similarity", "Slim", "Soft", "SoftChannels", "Stats", "Structures",
           "SuperNetwork", "Tabulation", "Taylor", "Turns", "Whole", "amc", "aster", "block", "catro", "ccp",
           "continuous_sparsification", "dependency_groups", "dhp", "dns", "dnw", "dpf", "dsr", "dst", "force", "fpgm", "gal",
           "grasp", "group_fisher", "growing_regularisation", "halp", "hrank", "kwon_post_training", "l1_norm", "lamp",
           "layerwise_obs", "lfpc", "lookahead", "lottery_ticket", "magnitude_global", "magnitude_gradual", "mfac", "n_m",
           "n_m_attention", "netadapt", "network_slimming", "obc", "obd", "obs", "prune_from_scratch", "purl",
           "random", "rd_prune", "rigl", "runtime_neural_pruning", "scop", "scp", "sfp", "snip", "soft_threshold",
           "sparse_momentum", "sparsegpt", "taylor", "taylor_activation", "three_d", "vit_hessian", "wanda",
           "without_empty_channels", "woodfisher"]
