"""Published pruning methods, each a choice on the axes criterion, unit, allocation, schedule, recovery and growth."""

from lilliput.prune.recipes.agents import amc, purl, runtime_neural_pruning
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
from lilliput.prune.recipes.blocks import gal, three_d
from lilliput.prune.recipes.latency import halp, netadapt, vit_hessian
from lilliput.prune.recipes.reconstruction import layerwise_obs, mfac, obc, obs, sparsegpt, wanda, woodfisher
from lilliput.prune.recipes.saliency import force, grasp, lamp, lookahead, obd, snip, taylor_activation
from lilliput.prune.recipes.semi_structured import block, n_m, n_m_attention
from lilliput.prune.recipes.sparse_training import (
    continuous_sparsification,
    dns,
    dnw,
    dpf,
    dsr,
    dst,
    growing_regularisation,
    lottery_ticket,
    rigl,
    soft_threshold,
    sparse_momentum,
)
from lilliput.prune.recipes.structured import catro, ccp, group_fisher, hrank, lfpc, rd_prune, scop, scp
from lilliput.prune.recipes.structures import aster, dhp, kwon_post_training, prune_from_scratch

__all__ = ["amc", "aster", "block", "catro", "ccp", "continuous_sparsification", "dependency_groups", "dhp", "dns", "dnw", "dpf",
           "dsr", "dst", "force", "fpgm", "gal", "grasp", "group_fisher", "growing_regularisation", "halp", "hrank",
           "kwon_post_training", "l1_norm", "lamp", "layerwise_obs", "lfpc", "lookahead", "lottery_ticket", "magnitude_global",
           "magnitude_gradual", "mfac", "n_m", "n_m_attention", "netadapt", "network_slimming", "obc", "obd",
           "obs", "prune_from_scratch", "purl", "random", "rd_prune", "rigl", "runtime_neural_pruning", "scop", "scp", "sfp", "snip",
           "soft_threshold", "sparse_momentum", "sparsegpt", "taylor", "taylor_activation", "three_d", "vit_hessian", "wanda",
           "woodfisher"]
