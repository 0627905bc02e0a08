"""The published methods, each a choice on the axes grid, range, rounding, bits and gradient."""

from lilliput.quantize.recipes.static import entropy, minmax, mse, percentile
from lilliput.quantize.recipes.training import lsq, qat

__all__ = ["entropy", "lsq", "minmax", "mse", "percentile", "qat"]
