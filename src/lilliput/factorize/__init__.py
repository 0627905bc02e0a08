"""Low-rank and transform coding: change of basis before rounding, or fewer ranks in its place."""

from lilliput.factorize.clusters import Clusters
from lilliput.factorize.coded import Coded, total_bits
from lilliput.factorize.compress import CodeWeights
from lilliput.factorize.filterbasis import FilterBasis
from lilliput.factorize.lowrank import Kernels, Separable
from lilliput.factorize.ranks import Energy, EqualSlope, Share, Vbmf
from lilliput.factorize.recipes import cnnpack, filter_basis, gsvd, svd, transform_quantization, tucker
from lilliput.factorize.recovery import FineTune, Refit
from lilliput.factorize.responses import Responses
from lilliput.factorize.sensitivity import EndToEnd, OutputError, WeightError
from lilliput.factorize.shares import Average, Each
from lilliput.factorize.step import Factorize
from lilliput.factorize.transform import Transform
from lilliput.factorize.tucker import Tucker

__all__ = ["Average", "Clusters", "CodeWeights", "Coded", "Each", "EndToEnd", "Energy", "EqualSlope", "Factorize", "FilterBasis", "FineTune",
           "Kernels", "OutputError", "Refit", "Responses", "Separable", "Share", "Transform", "Tucker", "Vbmf", "WeightError", "cnnpack",
           "filter_basis", "gsvd", "svd", "total_bits", "transform_quantization", "tucker"]
