"""Quantization: grids, ranges, bits and gradient estimators, composed into static and trained methods."""

from lilliput.quantize.bits import Bits, Uniform
from lilliput.quantize.calibrate import calibrate_, check_calibrated, is_quantized
from lilliput.quantize.estimators import LSQ, StraightThrough
from lilliput.quantize.grids import Integer
from lilliput.quantize.measure import layer_rows
from lilliput.quantize.op import fake_quantize
from lilliput.quantize.posttraining import Static, static
from lilliput.quantize.prepare import prepare
from lilliput.quantize.quantizer import BiasQuantizer, Quantizer, SameQuantizer
from lilliput.quantize.ranges import MSE, Entropy, MinMax, Percentile
from lilliput.quantize.recipes import entropy, lsq, minmax, mse, percentile, qat
from lilliput.quantize.scheme import Scheme
from lilliput.quantize.training import Aware, Train, equip, train

__all__ = ["LSQ", "MSE", "Aware", "BiasQuantizer", "Bits", "Entropy", "Integer", "MinMax", "Percentile", "Quantizer", "SameQuantizer",
           "Scheme", "Static", "StraightThrough", "Train", "Uniform", "calibrate_", "check_calibrated", "entropy", "equip",
           "fake_quantize", "is_quantized", "layer_rows", "lsq", "minmax", "mse", "percentile", "prepare", "qat", "static", "train"]
