"""Methods that change weights, biases or scales after training, so that fewer bits do."""

from __future__ import annotations

from lilliput.core.budget import Budget
from lilliput.quantize.bits import Uniform
from lilliput.quantize.clipping import Analytic
from lilliput.quantize.dynamic import Dynamic, keep_float_
from lilliput.quantize.grids import Integer
from lilliput.quantize.mixed.nuclear import NuclearNorm
from lilliput.quantize.mixed.step import Additive, Mixed
from lilliput.quantize.mixed.task import Widths
from lilliput.quantize.posttraining import Static
from lilliput.quantize.ranges import MSE
from lilliput.quantize.rewriting.equalize import AbsorbBias, Equalize
from lilliput.quantize.rewriting.migrate import Migrate
from lilliput.quantize.rewriting.split import SplitOutliers
from lilliput.quantize.rounding.admm import LayerwiseADMM
from lilliput.quantize.rounding.bias import BiasCorrection, ExpectedBiasCorrection
from lilliput.quantize.rounding.blockwise import BlockwiseCalibration
from lilliput.quantize.rounding.channel_bits import ChannelBits
from lilliput.quantize.rounding.gptq import GPTQ
from lilliput.quantize.rounding.groups import EmbeddingGroups
from lilliput.quantize.rounding.importance import Fisher
from lilliput.quantize.rounding.partition import blocks
from lilliput.quantize.rounding.reconstruct import Descent, Reconstruct
from lilliput.quantize.rounding.similarity import SimilaritySearch
from lilliput.quantize.scheme import Scheme

__all__ = ["aciq", "adaround", "apq_vit", "brecq", "dfq", "gptq", "layerwise_few_shot", "llm_int8", "peg", "ptq_vit", "smoothquant"]


def adaround(*, weights: int = 4, activations: int = 8, samples: int = 1024, descent: Descent = Descent(),
             exclude: tuple[str, ...] = ()) -> Static:
    """Each weight goes up or down, as it serves its layer's results best. (nagel2020adaround)

    Axes: integer grid, least squared error, learned per layer, uniform. Departs from the paper where `Descent` and
    `Reconstruct` say so, and in activations that are quantized while the rounding is learned.
    """
    scheme = Scheme(ranges=MSE(), weight_ranges=MSE(), bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return Static(method="quantize.adaround", scheme=scheme, roundings=(Reconstruct(descent=descent),), samples=samples)


def brecq(*, weights: int = 4, activations: int = 8, samples: int = 1024, descent: Descent = Descent(),
          exclude: tuple[str, ...] = ()) -> Static:
    """Rounding and activation scales learned block by block, errors weighted by Fisher information. (li2021brecq)

    Axes: integer grid, learned, learned per block, uniform; first and last layer have 8 bits. Departs from the paper where
    `Descent`, `Reconstruct`, `Fisher` and `blocks` say so, and in that weights and activations are learned together, not one
    after the other.
    """
    bits = Uniform(weights=weights, activations=activations, ends=8)
    scheme = Scheme(ranges=MSE(), weight_ranges=MSE(), bits=bits, exclude=exclude)
    rounding = Reconstruct(partition=blocks, importance=Fisher(), scales=True, descent=descent)
    return Static(method="quantize.brecq", scheme=scheme, roundings=(rounding,), samples=samples)


def gptq(*, weights: int = 4, activations: int = 8, samples: int = 512, rounding: GPTQ = GPTQ(),
         exclude: tuple[str, ...] = ()) -> Static:
    """Columns rounded one by one, each error made up for by the columns that follow. (frantar2023gptq)

    Axes: integer grid, min-max, OBS column by column, uniform. The paper leaves activations in floating point: 16 bits for them
    come to the same.
    """
    scheme = Scheme(bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return Static(method="quantize.gptq", scheme=scheme, roundings=(rounding,), samples=samples)


def dfq(*, weights: int = 8, activations: int = 8, samples: int = 512, exclude: tuple[str, ...] = ()) -> Static:
    """Weights with one scale a tensor: ranges equalised across layers, high biases absorbed, biases corrected. (nagel2019dfq)

    Axes: integer grid, cross-layer equalised, nearest with bias correction, uniform. What is done to the weights needs no data;
    ranges of activations, which the paper also takes from batch norms, come from samples here. Weights are symmetric.
    """
    scheme = Scheme(weights=Integer(axis=None), bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return Static(method="quantize.dfq", scheme=scheme, rewrites=(Equalize(), AbsorbBias()), roundings=(ExpectedBiasCorrection(),),
                  samples=samples)


def smoothquant(*, weights: int = 8, activations: int = 8, alpha: float = 0.5, samples: int = 512,
                exclude: tuple[str, ...] = ()) -> Static:
    """Outliers among activations become factors of the weights, before both are quantized. (xiao2023smoothquant)

    Axes: integer grid, migrated to weights, nearest, uniform. Static ranges to the tensor for activations, the paper's fastest
    setting; weights have theirs to the channel.
    """
    scheme = Scheme(bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return Static(method="quantize.smoothquant", scheme=scheme, rewrites=(Migrate(alpha=alpha, samples=samples),), samples=samples)


def llm_int8(*, weights: int = 8, threshold: float = 6.0, samples: int = 512, exclude: tuple[str, ...] = ()) -> Dynamic:
    """Features with outliers in floating point, the others as 8-bit integers with a scale to each row. (dettmers2022int8)

    Axes: integer grid with floating-point outliers, per vector, nearest, by outlier. Floating point is that of the network,
    where the paper has 16 bits; convolutions, if any, have one range to the batch. What else departs stands at `SplitOutliers`.
    """
    return Dynamic(method="quantize.llm_int8", weights=Integer(bits=weights, axis=0), rows=True, exclude=exclude,
                   rewrites=(SplitOutliers(keep=keep_float_, threshold=threshold, samples=samples),))


def peg(*, weights: int = 8, activations: int = 8, groups: int = 6, samples: int = 512, exclude: tuple[str, ...] = ()) -> Static:
    """In transformers, feature dimensions of similar range share an activation scale. (bondarenko2021peg)

    Axes: integer grid, per embedding group, nearest, uniform. What departs stands at `EmbeddingGroups`.
    """
    scheme = Scheme(bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return Static(method="quantize.peg", scheme=scheme, roundings=(EmbeddingGroups(groups=groups),), samples=samples)


def aciq(*, weights: int = 8, activations: int = 8, samples: int = 512, exclude: tuple[str, ...] = ()) -> Static:
    """Clips from a formula, bits to each channel of the weights, and corrected biases. (banner2019aciq)

    Axes: integer grid, analytic clipping, nearest with bias correction, per channel. Departs from the paper in activations,
    which have one clip and one number of bits to the tensor, as integer kernels need it; and in the part of the bias correction
    that moves a channel's mean, which is done on the layer's results, where a bias can take it in.
    """
    scheme = Scheme(ranges=Analytic(), weight_ranges=Analytic(), bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return Static(method="quantize.aciq", scheme=scheme, roundings=(ChannelBits(), BiasCorrection()), samples=samples)


def layerwise_few_shot(*, weights: int = 4, activations: int = 8, samples: int = 512, rounding: LayerwiseADMM = LayerwiseADMM(),
                       exclude: tuple[str, ...] = ()) -> Static:
    """Layers rounded one by one by ADMM, those that follow trained on the few samples to make up for it. (chen2019limited)

    Axes: integer grid, learned, layer-wise optimisation, uniform. 512 samples are a percent of a set of 50,000, the paper's
    share. What departs stands at `LayerwiseADMM`.
    """
    scheme = Scheme(bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return Static(method="quantize.layerwise_few_shot", scheme=scheme, roundings=(rounding,), samples=samples)


def ptq_vit(budget: Budget = Budget(bits=6.0), *, widths: Widths = Widths(weights=(4, 5, 6, 7, 8)), samples: int = 512,
            search: SimilaritySearch = SimilaritySearch(), exclude: tuple[str, ...] = ()) -> Mixed:
    """Widths by nuclear norms, scales by similarity and the order of attention, and corrected biases. (liu2021ptqvit)

    Axes: integer grid, similarity search, nearest with bias correction, nuclear norm. What departs from the paper stands at
    `SimilaritySearch` and `NuclearNorm`; widths are chosen exactly, where it takes the best of a Pareto frontier.
    """
    inner = Static(scheme=Scheme(exclude=exclude), roundings=(search, BiasCorrection()), samples=samples)
    return Mixed(method="quantize.ptq_vit", budget=budget, search=Additive(sensitivity=NuclearNorm()), widths=widths, inner=inner)


def apq_vit(*, weights: int = 8, activations: int = 8, samples: int = 512, search: BlockwiseCalibration = BlockwiseCalibration(),
            exclude: tuple[str, ...] = ()) -> Static:
    """Scales chosen block by block by the errors that matter, softmaxes that keep their largest values. (ding2022apqvit)

    Axes: integer grid, block-wise calibration, nearest, uniform. What departs from the paper, or may, stands at
    `BlockwiseCalibration`.
    """
    scheme = Scheme(bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return Static(method="quantize.apq_vit", scheme=scheme, roundings=(search,), samples=samples)
