"""Training in narrow arithmetic: number formats, emulated products, rounded updates, and gradients of a few bits on the wire."""

from lilliput.quantize.low_precision.arithmetic import Arithmetic, Ends, Operands
from lilliput.quantize.low_precision.casts import Ranged, Rounded, Unchanged, cast_both_ways
from lilliput.quantize.low_precision.communication import Communicated, SendLevels
from lilliput.quantize.low_precision.formats import FP8, FP16, HALF, FixedPoint, Float
from lilliput.quantize.low_precision.gradient_levels import AdaptiveLevels, AdaptiveMultiplier, UniformLevels
from lilliput.quantize.low_precision.gradients import GradientCast, NoisyUniform, cast_gradients, without_casts
from lilliput.quantize.low_precision.loss_scaling import LossScale, ScaleLoss
from lilliput.quantize.low_precision.mixed import MixedPrecision
from lilliput.quantize.low_precision.optimizer import RoundedSGD
from lilliput.quantize.low_precision.range_norm import RangeNorm
from lilliput.quantize.low_precision.rounding import Nearest, Stochastic
from lilliput.quantize.low_precision.step import AsTrained, LowPrecision, OnWeightGrid, Simulate
from lilliput.quantize.low_precision.sums import Chunked, Wide

__all__ = ["FP8", "FP16", "HALF", "AdaptiveLevels", "AdaptiveMultiplier", "Arithmetic", "AsTrained", "Chunked", "Communicated",
           "Ends", "FixedPoint", "Float", "GradientCast", "LossScale", "LowPrecision", "MixedPrecision", "Nearest",
           "NoisyUniform", "OnWeightGrid", "Operands", "RangeNorm", "Ranged", "Rounded", "RoundedSGD", "ScaleLoss",
           "SendLevels", "Simulate", "Stochastic", "Unchanged", "UniformLevels", "Wide", "cast_both_ways", "cast_gradients",
           "without_casts"]
