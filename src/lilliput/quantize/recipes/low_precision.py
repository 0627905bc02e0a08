"""Methods that train in narrow arithmetic."""

from __future__ import annotations

from dataclasses import replace
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
from lilliput.quantize.low_precision.step import LowPrecision, OnWeightGrid, Simulate, fine_tuning
from lilliput.quantize.low_precision.sums import Chunked, Wide
from lilliput.train import Fit, Hook
from lilliput.train.config import Precision

__all__ = ["alq_amq", "fixed_point_sr", "fp8_training", "int8_training", "mixed_precision_training"]


def fixed_point_sr(*, weights: FixedPoint = FixedPoint(integer=2, fraction=14),
                   activations: FixedPoint = FixedPoint(integer=6, fraction=10), rounding: Rounding = Stochastic(),
                   fit: Fit | None = None, hooks: tuple[Hook, ...] = (), checkpoint: Path | None = None) -> LowPrecision:
    """What layers multiply, their sums and the updates are fixed point, rounded by chance. (gupta2015limited)

    Axes: fixed point, fixed range, stochastic, uniform, quantized gradients. Results are rounded once, after a wide sum.
    Activations are as in the paper's MNIST experiments, as far as we know them; errors, gradients, momenta and all parameters
    have the format of `weights`, batch norms' included, which saturate beyond 2. Normalisation itself is float32: the
    paper's networks have none.
    """
    narrow, wide = Rounded(format=weights, rounding=rounding), Rounded(format=activations, rounding=rounding)
    arithmetic = Arithmetic(operands=Operands(weight=narrow, activation=wide, error=narrow), forward=Wide(result=wide),
                            backward=Wide(result=narrow), gradient=Wide(result=narrow))
    return LowPrecision(method="quantize.fixed_point_sr", plan=Ends(inner=arithmetic), update=narrow, fit=fit or fine_tuning(),
                        hooks=hooks, checkpoint=checkpoint)


def mixed_precision_training(*, precision: Precision = "16-mixed", loss_scale: LossScale | None = LossScale(),
                             fit: Fit | None = None, hooks: tuple[Hook, ...] = (), checkpoint: Path | None = None) -> MixedPrecision:
    """Half-precision layers on a float32 master copy, with dynamic loss scaling. (micikevicius2018mixed)

    Axes: half-precision float, loss scaling, nearest, uniform, half-precision gradients. What is computed in which precision
    stands at `MixedPrecision`.
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
    plan = Ends(inner=Arithmetic(operands=operands, forward=exact, backward=exact, gradient=exact))
    return LowPrecision(method="quantize.int8_training", plan=plan, norm=norm or RangeNorm(activation=near, error=chance),
                        fit=fit or fine_tuning(), hooks=hooks, finish=finish, checkpoint=checkpoint)


def fp8_training(*, chunk: int = 64, every_addition: bool = False,
                 loss_scale: LossScale = LossScale(initial=1000.0, interval=None), fit: Fit | None = None,
                 hooks: tuple[Hook, ...] = (), checkpoint: Path | None = None) -> LowPrecision:
    """Operands of 8 bits (1-5-2), sums of 16 (1-6-9) in chunks, and updates of 16 bits with stochastic rounding. (wang2018fp8)

    Axes: float 1-5-2, loss scaling, stochastic, uniform, quantized gradients. The first layer's input has 16 bits, since 8-bit
    images do not fit 8-bit floats, and so have all operands of the last layer, as we read the paper. Which roundings of
    the paper's additions are left out stands at `Chunked`; `every_addition` leaves none out, in a pass for each product. The
    network that comes out has the 8-bit weights, to be run on float32 activations.
    """
    eight, sixteen = Rounded(format=FP8), Rounded(format=FP16)
    add = Chunked(number=sixteen, chunk=chunk, every_addition=every_addition)

    inner = Arithmetic(operands=Operands(weight=eight, activation=eight, error=eight), forward=add, backward=add, gradient=add)
    first = replace(inner, operands=replace(inner.operands, activation=sixteen))
    last = replace(inner, operands=Operands(weight=sixteen, activation=sixteen, error=sixteen))
    return LowPrecision(method="quantize.fp8_training", plan=Ends(inner=inner, first=first, last=last), loss_scale=loss_scale,
                        update=Rounded(format=FP16, rounding=Stochastic()), fit=fit or fine_tuning(), hooks=hooks,
                        finish=OnWeightGrid(), checkpoint=checkpoint)


def alq_amq(*, levels: LevelRule = AdaptiveLevels(), bucket: int = 8192, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
            checkpoint: Path | None = None) -> Communicated:
    """Data-parallel training whose processes exchange gradients of a few bits, on levels that follow them. (faghri2020alq)

    Axes: adaptive levels, norm, stochastic, uniform, communicated gradients. `levels` is `AdaptiveLevels` (ALQ) or
    `AdaptiveMultiplier` (AMQ). The trained network is an ordinary one; the report holds the bytes sent.
    """
    return Communicated(levels=levels, bucket=bucket, fit=fit or replace(fine_tuning(), devices=2), hooks=hooks, checkpoint=checkpoint)
