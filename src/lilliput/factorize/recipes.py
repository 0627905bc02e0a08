"""Published methods, each a choice on the axes: low rank in place of a layer, or a change of basis before rounding."""

from __future__ import annotations

from pathlib import Path

from lilliput.core import Budget
from lilliput.factorize.clusters import Clusters
from lilliput.factorize.compress import CodeWeights
from lilliput.factorize.filterbasis import FilterBasis
from lilliput.factorize.fitting import Measure
from lilliput.factorize.lowrank import Kernels, Separable
from lilliput.factorize.ranks import Allocation, EqualSlope, Vbmf
from lilliput.factorize.recovery import FineTune
from lilliput.factorize.responses import Responses
from lilliput.factorize.sensitivity import Distortion, EndToEnd, WeightError
from lilliput.factorize.shares import Average, Each
from lilliput.factorize.step import Factorize
from lilliput.factorize.transform import Transform
from lilliput.factorize.tucker import Tucker
from lilliput.train import Fit

__all__ = ["cnnpack", "filter_basis", "gsvd", "svd", "transform_quantization", "tucker"]


def _recover(fine_tune: Fit | None) -> FineTune | None:
    return None if fine_tune is None else FineTune(fit=fine_tune)


def svd(budget: Budget, *, fine_tune: Fit | None = None, across: Kernels | Separable = Kernels(), exclude: tuple[str, ...] = (),
        measure: Measure | None = None, checkpoint: Path | None = None) -> Factorize:
    """Two layers for one, by singular values across kernels or across rows and columns (Denton 2014, `denton2014linear`)."""
    return Factorize(method="quantize.svd", decomposition=across, allocation=EqualSlope(), budget=budget, recover=_recover(fine_tune),
                     exclude=exclude, measure=measure, checkpoint=checkpoint)


def gsvd(budget: Budget, *, fine_tune: Fit | None = None, nonlinear: Responses = Responses(), exclude: tuple[str, ...] = (),
         measure: Measure | None = None, checkpoint: Path | None = None) -> Factorize:
    """Two layers for one whose response through the ReLU is nearest, each mending those before it (Zhang 2015, `zhang2015gsvd`).

    Batch norms are folded into the layers first.
    """
    return Factorize(method="quantize.gsvd", decomposition=nonlinear, allocation=EqualSlope(), budget=budget, recover=_recover(fine_tune),
                     exclude=exclude, measure=measure, checkpoint=checkpoint)


def tucker(budget: Budget | None = None, *, fine_tune: Fit | None = None, ranks: Allocation = Vbmf(), exclude: tuple[str, ...] = (),
           measure: Measure | None = None, checkpoint: Path | None = None) -> Factorize:
    """1x1, smaller core, 1x1, with the ranks that variational Bayes finds (Kim 2016, `kim2016tucker`).

    Under a budget all of those ranks shrink by the same share.
    """
    return Factorize(method="quantize.tucker", decomposition=Tucker(), allocation=ranks, budget=budget, recover=_recover(fine_tune),
                     exclude=exclude, measure=measure, checkpoint=checkpoint)


def filter_basis(budget: Budget, *, fine_tune: Fit | None = None, channels: int = 16, exclude: tuple[str, ...] = (),
                 measure: Measure | None = None, checkpoint: Path | None = None) -> Factorize:
    """Parts of all kernels as combinations of a shared basis, learned where `fine_tune` is given (Li 2019, `li2019basis`)."""
    return Factorize(method="quantize.filter_basis", decomposition=FilterBasis(channels=channels), allocation=EqualSlope(), budget=budget,
                     recover=_recover(fine_tune), exclude=exclude, measure=measure, checkpoint=checkpoint)


def transform_quantization(*, bits: float = 3.0, sharing: Average | Each | None = None, distortion: Distortion = EndToEnd(),
                           samples: int = 512, exclude: tuple[str, ...] = ()) -> CodeWeights:
    """Decorrelated weights, quantized where a bit saves most distortion, entropy coded (Young 2021, `young2021transform`).

    `sharing` stands in for `bits` on average over the network, where that is not what is wanted.
    """
    return CodeWeights(method="quantize.transform_quantization", coder=Transform(), sharing=sharing or Average(bits=bits),
                       distortion=distortion, samples=samples, exclude=exclude)


def cnnpack(*, bits: float = 4.0, coder: Clusters = Clusters(), sharing: Average | Each | None = None,
            exclude: tuple[str, ...] = ()) -> CodeWeights:
    """Kernels in cosines as shared centroids and sparse residuals, Huffman coded (Wang 2016, `wang2016cnnpack`).

    `sharing` stands in for `bits` on average over the network, where that is not what is wanted.
    """
    return CodeWeights(method="quantize.cnnpack", coder=coder, sharing=sharing or Average(bits=bits), distortion=WeightError(),
                       exclude=exclude)
