"""Methods that train in narrow arithmetic."""

from __future__ import annotations

from pathlib import Path

import torch

from lilliput.quantize.grids import Integer
from lilliput.quantize.low_precision.arithmetic import Arithmetic, Ends, Operands
from lilliput.quantize.low_precision.casts import Ranged, Rounded
from lilliput.quantize.low_precision.communication import Communicated
from lilliput.quantize.low_precision.formats import FP8, FP16, FixedPoint
from lilliput.quantize.low_precision.gradient_levels import AdaptiveLevels, LevelRule
from lilliput.quantize.low_precision.loss_scaling import LossScale
from lilliput.quantize.low_precision.mixed import MixedPrecision
from lilliput.quantize.low_precision.range_norm import RangeNorm
from lilliput.quantize.low_precision.rounding import Rounding, Stochastic
from lilliput.quantize.low_precision.step import LowPrecision, Simulate, fine_tuning, on_weight_grid
from lilliput.quantize.low_precision.sums import Chunked, Wide
from lilliput.train import Fit, Hook
from lilliput.train.config import Precision

__all__ = ["alq_amq", "fixed_point_sr", "fp8_training", "int8_training", "mixed_precision_training"]


def fixed_point_sr(*, weights: FixedPoint = FixedPoint(integer=2, fraction=14), activations: FixedPoint = FixedPoint(integer=6, fraction=10),
                   rounding: Rounding = Stochastic(), fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
                   checkpoint: Path | None = None) -> LowPrecision:
    """Everything that a layer multiplies, sums up to and updates is fixed point; `rounding` is the whole point. (gupta2015limited)

    Axes: fixed point, fixed range, stochastic, uniform, quantized gradients. Results are rounded once, after a wide sum.
    Activations have the format of the paper's MNIST networks; errors, gradients, momenta and all parameters that of
    `weights`, batch norms' included, which saturate beyond 2. Normalisation itself is float32: the paper's networks have none.
    """
    narrow, wide = Rounded(format=weights, rounding=rounding), Rounded(format=activations, rounding=rounding)
    arithmetic = Arithmetic(operands=Operands(weight=narrow, activation=wide, error=narrow), forward=Wide(result=wide),
                            backward=Wide(result=narrow), gradient=Wide(result=narrow))
    return LowPrecision(method="quantize.fixed_point_sr", plan=Ends(inner=arithmetic), update=narrow, fit=fit or fine_tuning(), hooks=hooks,
                        checkpoint=checkpoint)


def mixed_precision_training(*, precision: Precision = "16-mixed", loss_scale: LossScale | None = LossScale(), fit: Fit | None = None,
                             hooks: tuple[Hook, ...] = (), checkpoint: Path | None = None) -> MixedPrecision:
    """Half-precision layers on a float32 master copy, with dynamic loss scaling. (micikevicius2018mixed)

    Axes: half-precision float, loss scaling, nearest, uniform, half-precision gradients. What departs from the paper stands
    at `MixedPrecision`.
    """
    return MixedPrecision(precision=precision, loss_scale=loss_scale, fit=fit or fine_tuning(), hooks=hooks, checkpoint=checkpoint)


def int8_training(*, norm: RangeNorm | None = None, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
                  finish: Simulate = Simulate(), checkpoint: Path | None = None) -> LowPrecision:
    """Weights, activations and errors of 8 bits, and range batch norms; the weight's gradient from a 16-bit copy of the error.

    Axes: integer grid, range batch norm, stochastic for gradients, uniform, quantized with two copies. All sums are those of
    whole numbers, exact; grids span each tensor's least to largest value. The float32 weights are updated in float32, and
    the trained network is quantized as by `minmax`, batch norms folded, weights per channel. (banner2018int8)
    """
    eight, sixteen = Integer(bits=8, signed=False, symmetric=False), Integer(bits=16, signed=False, symmetric=False)
    near, chance = Ranged(grid=eight), Ranged(grid=eight, rounding=Stochastic())
    operands = Operands(weight=near, activation=near, error=chance, error_for_weight=Ranged(grid=sixteen, rounding=Stochastic()))
    exact = Wide(dtype=torch.float64)
    return LowPrecision(method="quantize.int8_training", plan=Ends(inner=Arithmetic(operands=operands, forward=exact, backward=exact, gradient=exact)),
                        norm=norm or RangeNorm(activation=near, error=chance), fit=fit or fine_tuning(), hooks=hooks, finish=finish,
                        checkpoint=checkpoint)


def fp8_training(*, chunk: int = 64, every_addition: bool = False, loss_scale: LossScale = LossScale(initial=1000.0, interval=None),
                 fit: Fit | None = None, hooks: tuple[Hook, ...] = (), checkpoint: Path | None = None) -> LowPrecision:
    """Operands of 8 bits (1-5-2), sums of 16 (1-6-9) in chunks, and updates of 16 bits with stochastic rounding. (wang2018fp8)

    Axes: float 1-5-2, loss scaling, stochastic, uniform, quantized gradients. The first layer's input has 16 bits, since 8-bit
    images do not fit 8-bit floats, and so have all operands of the last layer, whose errors decide the rest. What of
    the paper's additions is left out stands at `Chunked`; `every_addition` leaves none out, in 64 times the work.
    """
    eight, sixteen = Rounded(format=FP8), Rounded(format=FP16)
    add = Chunked(number=sixteen, chunk=chunk, every_addition=every_addition)

    def arithmetic(weight: Rounded, activation: Rounded, error: Rounded) -> Arithmetic:
        return Arithmetic(operands=Operands(weight=weight, activation=activation, error=error), forward=add, backward=add, gradient=add)

    plan = Ends(inner=arithmetic(eight, eight, eight), first=arithmetic(eight, sixteen, eight), last=arithmetic(sixteen, sixteen, sixteen))
    return LowPrecision(method="quantize.fp8_training", plan=plan, update=Rounded(format=FP16, rounding=Stochastic()), loss_scale=loss_scale,
                        fit=fit or fine_tuning(), hooks=hooks, finish=on_weight_grid, checkpoint=checkpoint)


def alq_amq(*, levels: LevelRule = AdaptiveLevels(), bucket: int = 8192, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
            checkpoint: Path | None = None) -> Communicated:
    """Data-parallel training whose processes exchange gradients of a few bits, on levels that follow the gradients. (faghri2020alq)

    Axes: adaptive levels, norm, stochastic, uniform, communicated gradients. `levels` is `AdaptiveLevels` (ALQ) or
    `AdaptiveMultiplier` (AMQ). The trained network is an ordinary one; the report holds the bytes sent.
    """
    return Communicated(levels=levels, bucket=bucket, fit=fit or Fit(epochs=3, optimizer=fine_tuning().optimizer, devices=2), hooks=hooks,
                        checkpoint=checkpoint)
