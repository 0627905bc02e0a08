"""Methods that train the network with a quantizer of their own.

Unless they say otherwise the first and the last layer have 8 bits, as is usual, and so have edges that additions read.
"""

from __future__ import annotations

from pathlib import Path

from lilliput.quantize.bits import Uniform, check_bits
from lilliput.quantize.estimators import LSQ
from lilliput.quantize.grids import Grid, Integer
from lilliput.quantize.levels import AdditivePowersOfTwo, Binary, BitPlanes, PowerOfTwo, Ternary
from lilliput.quantize.magnitudes import MeanMagnitude
from lilliput.quantize.posttraining import Static
from lilliput.quantize.ranges import MSE
from lilliput.quantize.rounding.multipoint import Multipoint
from lilliput.quantize.scheme import Scheme
from lilliput.quantize.simulations import (
    Assisted,
    Bounded,
    CalibratedClip,
    CalibratedRange,
    Guided,
    Incremental,
    IncrementalPowers,
    LearnedClip,
    LearnedInterval,
    LearnedLookup,
    LeastSquaresSigns,
    MeanSign,
    PowersOfTwoClip,
    QuantizationErrorMinimisation,
    Roles,
    RowScales,
    ScaleAdjustedLevels,
    Sharpening,
    Sign,
    SoftStaircase,
    Stage,
    StagedLevels,
    Stages,
    TanhLevels,
    TernaryThreshold,
    TrainedTernary,
    Unclamped,
)
from lilliput.quantize.training import Train, fine_tuning
from lilliput.train import AdamW, Fit, Hook

__all__ = ["apot", "auxiliary_module", "bnn", "dorefa", "dsq", "inq", "least_squares_binary", "llt", "lq_nets",
           "multi_bit_mixed", "pact", "qil", "sat", "syq", "ttq", "twn", "two_stage", "xnor_net"]


def _binary_fit() -> Fit:
    """Signs change only where a real-valued weight crosses zero, which steps of a size of their own bring about sooner."""
    return Fit(epochs=10, optimizer=AdamW(lr=1e-3, weight_decay=0.0))


def _scheme(grid: Grid, weights: int, activations: int, exclude: tuple[str, ...]) -> Scheme:
    """Weights on `grid`, and ranges of activations of least squared error, which is where few bits best start."""
    return Scheme(weights=grid, ranges=MSE(), bits=Uniform(weights=weights, activations=activations, ends=8), exclude=exclude)


def bnn(*, fit: Fit | None = None, hooks: tuple[Hook, ...] = (), exclude: tuple[str, ...] = (),
        checkpoint: Path | None = None) -> Train:
    """Weights and activations are signs, -1 and 1. Axes: binary grid, fixed, sign, one bit, clipped straight-through.
    (courbariaux2016bnn)

    Layers read in front of a ReLU, as `Unclamped` says. Departs from the paper: the first and the last layer have 8 bits, batch
    normalisation is exact, and training starts from the network as it is.
    """
    bits = Uniform(weights=1, activations=1, ends=8)
    scheme = Scheme(weights=Binary(axis=0), activations=Binary(), bits=bits, exclude=exclude)
    return Train(method="quantize.bnn", scheme=scheme, estimator=Roles(weights=Sign(), activations=Sign()),
                 fit=fit or _binary_fit(), hooks=(Bounded(), *hooks), rewrites=(Unclamped(bits=bits, exclude=exclude),),
                 checkpoint=checkpoint)


def xnor_net(*, fit: Fit | None = None, hooks: tuple[Hook, ...] = (), exclude: tuple[str, ...] = (),
             checkpoint: Path | None = None) -> Train:
    """Signs with a scale to each filter. Axes: binary grid with scales, mean magnitude, sign, one bit, clipped straight-through.

    (rastegari2016xnor) The scales `K` of the inputs are left out: as in the authors' published code activations are plain signs.
    `K` would be a float convolution beside every binary one, and its product with the result keeps the batch norm from being
    folded. The first and the last layer, in floating point in the paper, have 8 bits.
    """
    bits = Uniform(weights=1, activations=1, ends=8)
    scheme = Scheme(weights=Binary(axis=0), activations=Binary(), bits=bits, exclude=exclude)
    return Train(method="quantize.xnor_net", scheme=scheme, estimator=Roles(weights=MeanSign(), activations=Sign()),
                 fit=fit or _binary_fit(), hooks=(Bounded(), *hooks), rewrites=(Unclamped(bits=bits, exclude=exclude),),
                 checkpoint=checkpoint)


def twn(*, activations: int = 8, fit: Fit | None = None, hooks: tuple[Hook, ...] = (), exclude: tuple[str, ...] = (),
        checkpoint: Path | None = None) -> Train:
    """Ternary weights with one scale to each layer. Axes: ternary grid, least squares, threshold 0.7 E|w|, two bits,
    straight-through.

    (li2016twn) Activations of fewer than 8 bits, which the paper leaves in floating point, learn their step.
    """
    scheme = Scheme(weights=Ternary(), ranges=MSE(), bits=Uniform(weights=2, activations=activations, ends=8), exclude=exclude)
    return Train(method="quantize.twn", scheme=scheme, estimator=Roles(weights=TernaryThreshold()), fit=fit or fine_tuning(),
                 hooks=hooks, checkpoint=checkpoint)


def ttq(*, share: float = 0.15, activations: int = 8, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Ternary weights with a learned scale for each sign. Axes: ternary grid, two learned scales, threshold, two bits,
    straight-through to the scales.

    (zhu2017ttq) `share` of a layer's largest magnitude is the threshold: 0.05 in the paper, which trains for hundreds of epochs;
    short training from a network that is trained already loses less with 0.15 (ResNet-8, validation split of Fashion-MNIST: 0.35 points,
    0.66 with 0.05), and Adam takes the scales' gradients, sums over a whole layer, better than a plain descent.
    """
    scheme = Scheme(weights=Ternary(), ranges=MSE(), bits=Uniform(weights=2, activations=activations, ends=8), exclude=exclude)
    return Train(method="quantize.ttq", scheme=scheme, estimator=Roles(weights=TrainedTernary(share=share)),
                 fit=fit or fine_tuning(), hooks=hooks, checkpoint=checkpoint)


def dorefa(*, weights: int = 4, activations: int = 4, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
           exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Weights squashed by tanh, activations clipped. Axes: odd multiples of a step, tanh and clip, nearest, uniform,
    straight-through.

    (zhou2016dorefa) `weights` of 1 to 7 bits lie on odd multiples of a step, zero not among them. Departs from the paper:
    activations are clipped at the calibrated range instead of 1, and gradients are not quantized: for that add the hook of
    quantized gradients in `hooks`.
    """
    return Train(method="quantize.dorefa", scheme=_scheme(BitPlanes(axis=0), weights, activations, exclude),
                 estimator=Roles(weights=TanhLevels(), activations=CalibratedRange()), fit=fit or fine_tuning(), hooks=hooks,
                 checkpoint=checkpoint)


def pact(*, weights: int = 4, activations: int = 4, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
         exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Activations with a learned clip, weights as in DoReFa. Axes: integer grid, learned clip, nearest, uniform, straight-through
    to the clip.

    (choi2018pact) The clip starts at the calibrated range instead of well above it.
    """
    return Train(method="quantize.pact", scheme=_scheme(BitPlanes(axis=0), weights, activations, exclude),
                 estimator=Roles(weights=TanhLevels(), activations=LearnedClip(), activation_bits=max(activations, 7)),
                 fit=fit or fine_tuning(), hooks=hooks, checkpoint=checkpoint)


def apot(*, weights: int = 4, activations: int = 4, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
         exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Sums of powers of two, weights normalised. Axes: additive powers of two, learned clip, nearest level, uniform,
    straight-through to the clip.

    (li2020apot) What departs from the paper stands at `PowersOfTwoClip`.
    """
    return Train(method="quantize.apot", scheme=_scheme(AdditivePowersOfTwo(axis=0), weights, activations, exclude),
                 estimator=Roles(weights=PowersOfTwoClip(), activations=PowersOfTwoClip()), fit=fit or fine_tuning(),
                 hooks=hooks, checkpoint=checkpoint)


def lq_nets(*, weights: int = 2, activations: int = 2, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
            exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Levels from a basis that is fitted to the values. Axes: learned basis, learned, nearest level, uniform, straight-through.

    (zhang2018lqnets) One basis to each filter and to each activation, of 1 to 7 bits.
    """
    return Train(method="quantize.lq_nets", scheme=_scheme(BitPlanes(axis=0), weights, activations, exclude),
                 estimator=Roles(weights=QuantizationErrorMinimisation(), activations=QuantizationErrorMinimisation()),
                 fit=fit or fine_tuning(), hooks=hooks, checkpoint=checkpoint)


def sat(*, weights: int = 4, activations: int = 4, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Weights rescaled to a fixed variance, clips with a calibrated gradient. Axes: integer grid, learned clip, nearest, uniform,
    scale-adjusted.

    (jin2020sat) The last layer, which no batch norm follows, is rescaled too.
    """
    return Train(method="quantize.sat", scheme=_scheme(BitPlanes(axis=0), weights, activations, exclude),
                 estimator=Roles(weights=ScaleAdjustedLevels(), activations=CalibratedClip(), weight_bits=8,
                                 activation_bits=max(activations, 7)),
                 fit=fit or fine_tuning(), hooks=hooks, checkpoint=checkpoint)


def qil(*, weights: int = 4, activations: int = 4, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Learned intervals that prune below and clip above. Axes: integer grid, learned interval, nearest, uniform, straight-through
    to the interval.

    (jung2019qil) What departs from the paper stands at `LearnedInterval`.
    """
    return Train(method="quantize.qil", scheme=_scheme(Integer(axis=0), weights, activations, exclude),
                 estimator=Roles(weights=LearnedInterval(), activations=LearnedInterval()), fit=fit or fine_tuning(),
                 hooks=hooks, checkpoint=checkpoint)


def dsq(*, weights: int = 4, activations: int = 4, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Rounding with the slope of a soft staircase. Axes: integer grid, learned clip, soft, uniform, tanh approximation.

    (gong2019dsq) What departs from the paper stands at `SoftStaircase`.
    """
    return Train(method="quantize.dsq", scheme=_scheme(Integer(axis=0), weights, activations, exclude),
                 estimator=Roles(weights=SoftStaircase(), activations=SoftStaircase(), signed=SoftStaircase()),
                 fit=fit or fine_tuning(), hooks=hooks, checkpoint=checkpoint)


def syq(*, weights: int = 2, activations: int = 8, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Signs (one bit) or ternary codes (two) with a scale learned for each row of the kernel.

    Axes: symmetric codebook per subgroup, learned scale, nearest, uniform, straight-through. (faraone2018syq) Batch norms behind
    such layers stay, since they cannot be folded into scales of rows.
    """
    grid: Grid = Binary(axis=0) if weights == 1 else Ternary(axis=0)
    return Train(method="quantize.syq", scheme=_scheme(grid, weights, activations, exclude),
                 estimator=Roles(weights=RowScales(), activations=CalibratedRange()), fit=fit or fine_tuning(), hooks=hooks,
                 checkpoint=checkpoint)


def least_squares_binary(*, weights: int = 2, activations: int = 2, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
                         exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """One or two scaled signs of least squared error. Axes: multi-bit binary grid, least squares, optimal, one or two bits,
    straight-through.

    (pouransari2020leastsquares) Activations take both signs, so layers read in front of a ReLU, as `Unclamped` says.
    `LeastSquaresSigns(basis=Greedy())` is the greedy variant, for any number of bits.
    """
    bits = Uniform(weights=weights, activations=activations, ends=8)
    signs = activations < 8
    grid: Grid = BitPlanes() if signs else Integer(signed=False, symmetric=False)
    scheme = Scheme(weights=BitPlanes(axis=0), activations=grid, ranges=MSE(), bits=bits, exclude=exclude)
    rewrites = (Unclamped(bits=bits, widest=activations, exclude=exclude),) if signs else ()
    return Train(method="quantize.least_squares_binary", scheme=scheme, rewrites=rewrites, fit=fit or _binary_fit(), hooks=hooks,
                 estimator=Roles(weights=LeastSquaresSigns(), activations=LeastSquaresSigns()), checkpoint=checkpoint)


def inq(*, weights: int = 5, activations: int = 8, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Weights frozen at powers of two part by part. Axes: power of two, largest weight, nearest, by partition, uniform,
    full-precision rest.

    (zhou2017inq) What departs from the paper stands at `IncrementalPowers` and `Incremental`.
    """
    return Train(method="quantize.inq", scheme=_scheme(PowerOfTwo(axis=0), weights, activations, exclude),
                 estimator=Roles(weights=IncrementalPowers()), fit=fit or fine_tuning(), hooks=(Incremental(), *hooks),
                 checkpoint=checkpoint)


def llt(*, weights: int = 4, activations: int = 4, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Lookup tables whose thresholds are learned. Axes: learned table, learned, table lookup, uniform, softened table.

    (wang2022llt) What departs from the paper stands at `LearnedLookup`.
    """
    return Train(method="quantize.llt", scheme=_scheme(Integer(axis=0), weights, activations, exclude),
                 estimator=Roles(weights=LearnedLookup(), activations=LearnedLookup()), fit=fit or fine_tuning(),
                 hooks=(Sharpening(), *hooks), checkpoint=checkpoint)


def two_stage(*, weights: int = 4, activations: int = 4, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
              exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Weights first, then activations, from more bits to fewer, guided by the network in full precision.

    Axes: integer grid, clip, nearest, progressive, guided by full precision. (zhuang2018twostage) The three of the paper's
    methods together: for a fifth of training weights have twice the bits, for another the final ones, both with activations in
    floating point; then activations have twice theirs, and for the last two fifths the final ones; `Guided` all along. Weights
    lie on odd multiples of a step, as in `dorefa`.
    """
    check_bits(weights)
    check_bits(activations)
    stages = (Stage(weights=min(2 * weights, 7), activations=None), Stage(start=0.2, weights=weights, activations=None),
              Stage(start=0.4, weights=weights, activations=min(2 * activations, 7)),
              Stage(start=0.6, weights=weights, activations=activations))
    return Train(method="quantize.two_stage", scheme=_scheme(BitPlanes(axis=0), weights, activations, exclude),
                 estimator=Roles(weights=StagedLevels(stages=stages), activations=StagedLevels(stages=stages)),
                 fit=fit or fine_tuning(), hooks=(Stages(stages=stages), Guided(), *hooks), checkpoint=checkpoint)


def auxiliary_module(*, weights: int = 4, activations: int = 4, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
                     exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Learned steps, trained through a full-precision module as well. Axes: integer grid, learned, nearest, uniform, through an
    auxiliary path.

    (zhuang2020auxiliary) The module goes with any quantizer: `Assisted` is a hook. Here it assists learned step sizes, where the
    paper's is DoReFa's or theirs.
    """
    scheme = Scheme(ranges=MeanMagnitude(), bits=Uniform(weights=weights, activations=activations, ends=8), exclude=exclude)
    return Train(method="quantize.auxiliary_module", scheme=scheme, estimator=Roles(weights=LSQ(), activations=LSQ()),
                 fit=fit or fine_tuning(), hooks=(Assisted(), *hooks), checkpoint=checkpoint)


def multi_bit_mixed(*, weights: int = 4, activations: int = 8, points: Multipoint = Multipoint(), samples: int = 512,
                    exclude: tuple[str, ...] = ()) -> Static:
    """Rows of weights as sums of scaled low-bit rows, more of them where it matters; without training.

    Axes: sum of low-bit vectors, least squared error, greedy, per channel. (liu2022multibit) The row is as the survey has it;
    what departs from the paper that it describes stands at `Multipoint`.
    """
    scheme = Scheme(ranges=MSE(), bits=Uniform(weights=weights, activations=activations, ends=8), exclude=exclude)
    return Static(method="quantize.multi_bit_mixed", scheme=scheme, roundings=(points,), samples=samples)
