"""Quantization: grids, ranges, bits and gradient estimators, composed into static and trained methods."""

from lilliput.quantize.bits import Bits, Uniform
from lilliput.quantize.calibrate import calibrate_, check_calibrated, is_quantized
from lilliput.quantize.estimators import LSQ, StraightThrough
from lilliput.quantize.explain import explain
from lilliput.quantize.folding import fold_quantized_
from lilliput.quantize.grids import Grid, Integer
from lilliput.quantize.levels import AdditivePowersOfTwo, Binary, Float, Levels, PowerOfTwo, Table, Ternary
from lilliput.quantize.levels_op import fake_levels
from lilliput.quantize.measure import layer_rows
from lilliput.quantize.op import fake_quantize
from lilliput.quantize.posttraining import Rounding, Static, static
from lilliput.quantize.prepare import Rewrite, lowered, prepare
from lilliput.quantize.quantizer import BiasQuantizer, Quantizer, SameQuantizer, Simulation
from lilliput.quantize.ranges import MSE, Entropy, MinMax, Percentile
from lilliput.quantize.recipes import entropy, lsq, minmax, mse, percentile, qat
from lilliput.quantize.scheme import Scheme
from lilliput.quantize.training import Aware, Train, equip, settle_, train

__all__ = [
    "LSQ", "MSE", "AdditivePowersOfTwo", "Aware", "BiasQuantizer", "Binary", "Bits", "Entropy", "Float", "Grid", "Integer", "Levels",
    "MinMax", "Percentile", "PowerOfTwo", "Quantizer", "Rewrite", "Rounding", "SameQuantizer", "Scheme", "Simulation", "Static",
    "StraightThrough", "Table", "Ternary", "Train", "Uniform", "calibrate_", "check_calibrated", "entropy", "equip", "explain", "fake_levels",
    "fake_quantize", "fold_quantized_", "is_quantized", "layer_rows", "lowered", "lsq", "minmax", "mse", "percentile", "prepare",
    "qat", "settle_", "static", "train",
]
