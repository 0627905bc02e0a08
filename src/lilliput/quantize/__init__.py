"""Quantization: grids, ranges, bits and gradient estimators, composed into static and trained methods."""

from lilliput.quantize.bits import Bits, Fixed, Uniform
from lilliput.quantize.calibrate import calibrate_, check_calibrated, is_quantized
from lilliput.quantize.estimators import LSQ, StraightThrough
from lilliput.quantize.explain import explain
from lilliput.quantize.folding import fold_quantized_
from lilliput.quantize.grids import Grid, Integer
from lilliput.quantize.levels import AdditivePowersOfTwo, Binary, BitPlanes, Float, Levels, PowerOfTwo, Table, Ternary
from lilliput.quantize.levels_op import fake_levels
from lilliput.quantize.measure import exact, layer_rows
from lilliput.quantize.mixed.step import Mixed, mixed
from lilliput.quantize.mixed.task import Widths
from lilliput.quantize.op import fake_quantize
from lilliput.quantize.posttraining import Rounding, Static, static
from lilliput.quantize.prepare import Rewrite, lowered, prepare
from lilliput.quantize.quantizer import BiasQuantizer, Quantizer, SameQuantizer, Simulation
from lilliput.quantize.ranges import MSE, Entropy, MinMax, Percentile
from lilliput.quantize.recipes import (
    aciq,
    adaround,
    alq_amq,
    alq_bits,
    apot,
    apq_vit,
    aq,
    autoq,
    auxiliary_module,
    bit_goes_down,
    bnn,
    brecq,
    dfq,
    dmbq,
    dnas_bits,
    dorefa,
    dq,
    dsq,
    dynamic,
    entropy,
    fixed_point_sr,
    fp8_training,
    fracbits,
    freshnets,
    gptq,
    haq,
    hashed_nets,
    hawq,
    inq,
    int8_training,
    kmeans_sharing,
    layerwise_few_shot,
    least_squares_binary,
    llm_int8,
    lloyd_max,
    llt,
    log_quant,
    lq_nets,
    lsq,
    minmax,
    mixed_precision_training,
    mse,
    multi_bit_mixed,
    octav,
    pact,
    peg,
    percentile,
    product_quantization,
    ptq4dm,
    ptq_vit,
    qat,
    qil,
    releq,
    sat,
    smoothquant,
    syq,
    ttq,
    twn,
    two_stage,
    xnor_net,
)
from lilliput.quantize.scheme import Scheme
from lilliput.quantize.sharing import Share, Tune
from lilliput.quantize.training import Aware, Train, equip, settle_, train

__all__ = [
    "LSQ", "MSE", "AdditivePowersOfTwo", "Aware", "BiasQuantizer", "Binary", "BitPlanes", "Bits", "Entropy", "Fixed", "Float",
    "Grid", "Integer", "Levels", "MinMax", "Mixed", "Percentile", "PowerOfTwo", "Quantizer", "Rewrite", "Rounding",
    "SameQuantizer", "Scheme", "Share", "Simulation", "Static", "StraightThrough", "Table", "Ternary", "Train", "Tune",
    "Uniform", "Widths", "aciq", "adaround", "alq_amq", "alq_bits", "apot", "apq_vit", "aq", "autoq", "auxiliary_module",
    "bit_goes_down", "bnn", "brecq", "calibrate_", "check_calibrated", "dfq", "dmbq", "dnas_bits", "dorefa", "dq", "dsq",
    "dynamic", "entropy", "equip", "exact", "explain", "fake_levels", "fake_quantize", "fixed_point_sr", "fold_quantized_",
    "fp8_training", "fracbits", "freshnets", "gptq", "haq", "hashed_nets", "hawq", "inq", "int8_training", "is_quantized",
    "kmeans_sharing", "layer_rows", "layerwise_few_shot", "least_squares_binary", "llm_int8", "lloyd_max", "llt", "log_quant",
    "lowered", "lq_nets", "lsq", "minmax", "mixed", "mixed_precision_training", "mse", "multi_bit_mixed", "octav", "pact", "peg",
    "percentile", "prepare", "product_quantization", "ptq4dm", "ptq_vit", "qat", "qil", "releq", "sat", "settle_", "smoothquant",
    "static", "syq", "train", "ttq", "twn", "two_stage", "xnor_net",
]
