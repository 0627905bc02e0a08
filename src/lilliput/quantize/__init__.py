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
    alq_amq,
    dnas_bits,
    dq,
    entropy,
    fixed_point_sr,
    fp8_training,
    fracbits,
    hawq,
    int8_training,
    lsq,
    minmax,
    mixed_precision_training,
    mse,
    percentile,
    qat,
)
from lilliput.quantize.scheme import Scheme
from lilliput.quantize.training import Aware, Train, equip, settle_, train

__all__ = [
    "LSQ", "MSE", "AdditivePowersOfTwo", "Aware", "BiasQuantizer", "Binary", "BitPlanes", "Bits", "Entropy", "Fixed", "Float", "Grid", "Integer", "Levels",
    "MinMax", "Mixed", "Percentile", "PowerOfTwo", "Quantizer", "Rewrite", "Rounding", "SameQuantizer", "Scheme", "Simulation", "Static",
    "StraightThrough", "Table", "Ternary", "Train", "Uniform", "Widths", "alq_amq", "calibrate_", "check_calibrated", "dnas_bits", "dq", "entropy", "equip", "exact", "explain", "fake_levels",
    "fake_quantize", "fixed_point_sr", "fold_quantized_", "fp8_training", "fracbits", "hawq", "int8_training", "is_quantized", "layer_rows", "lowered", "lsq", "minmax", "mixed", "mixed_precision_training", "mse", "percentile", "prepare",
    "qat", "settle_", "static", "train",
]
