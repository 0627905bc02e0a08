"""Weight sharing: which values the weights of a layer have in common, as codes and tables."""

from lilliput.quantize.sharing.fitting import (
    Blocks,
    Codebooks,
    KMeans,
    Normalised,
    Partition,
    Product,
    Residual,
    Scalars,
    Subvectors,
    Weight,
)
from lilliput.quantize.sharing.hashing import Frequencies, Hashed
from lilliput.quantize.sharing.hooks import Averaged, Imitation
from lilliput.quantize.sharing.kmeans import Density, Exact, Linear, Lloyd, PlusPlus, Random
from lilliput.quantize.sharing.standard import Standard
from lilliput.quantize.sharing.step import Share, Tune
from lilliput.quantize.sharing.weighting import Even, Fisher, Outputs, Weighting

__all__ = [
    "Averaged", "Blocks", "Codebooks", "Density", "Even", "Exact", "Fisher", "Frequencies", "Hashed", "Imitation", "KMeans", "Linear",
    "Lloyd", "Normalised", "Outputs", "Partition", "PlusPlus", "Product", "Random", "Residual", "Scalars", "Share", "Standard",
    "Subvectors", "Tune", "Weight", "Weighting",
]
