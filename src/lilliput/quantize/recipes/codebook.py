"""Methods that store weights as codes and tables, or on levels fitted to them."""

from __future__ import annotations

from pathlib import Path

import torch

from lilliput.quantize.bits import Uniform, check_bits
from lilliput.quantize.density import Density
from lilliput.quantize.levels import Levels, PowerOfTwo
from lilliput.quantize.posttraining import Rounding, Static
from lilliput.quantize.rounding.tables import Empirical, LloydMax, NearestExponent
from lilliput.quantize.scheme import Scheme
from lilliput.quantize.sharing.fitting import Blocks, KMeans, Partition, Product, Residual, Subvectors
from lilliput.quantize.sharing.hashing import Frequencies, Hashed
from lilliput.quantize.sharing.hooks import Averaged, Imitation
from lilliput.quantize.sharing.kmeans import Linear, Lloyd, Solver
from lilliput.quantize.sharing.step import Share, Tune
from lilliput.quantize.sharing.weighting import Even, Outputs, Weighting
from lilliput.train import SGD, AdamW, Fit, Hook

__all__ = ["bit_goes_down", "freshnets", "hashed_nets", "kmeans_sharing", "lloyd_max", "log_quant", "product_quantization"]


def kmeans_sharing(*, bits: int = 4, solver: Solver = Lloyd(initial=Linear()), weighting: Weighting = Even(),
                   fit: Fit | None = None, exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Share:
    """Weights share the `2^bits` centroids of their layer, which are fine-tuned with summed gradients. (han2016deep)

    Axes: codebook, k-means, nearest centroid, codebook size, summed per centroid. `Linear`, `Density` and `Random` are the
    paper's starts, `Exact()` finds the best clusters there are; a `weighting` of `Fisher()` or `Outputs()` counts some errors for
    more. Trains by Adam, whose steps do not grow with the members of a centroid; the paper does not say how. `Fit(epochs=0)`
    does not train. Weights that pruning left at zero stay there.
    """
    check_bits(bits)
    fit = fit or Fit(epochs=3, optimizer=AdamW(lr=1e-3, weight_decay=0.0))
    return Share(method="quantize.kmeans_sharing", codebooks=KMeans(entries=2**bits, solver=solver), weighting=weighting,
                 tune=Tune(fit=fit), exclude=exclude, checkpoint=checkpoint)


def product_quantization(*, codebooks: Product | Residual | KMeans = Product(entries=16), partition: Partition = Subvectors(4),
                         fit: Fit | None = None, stored: torch.dtype = torch.float32, exclude: tuple[str, ...] = (),
                         checkpoint: Path | None = None) -> Share:
    """Blocks of a row of the weight matrix are entries of codebooks, one for every column of blocks. (gong2014pq)

    Axes: product or residual codebook, k-means, nearest centroid, codebook size. `Residual` adds up codebooks for all blocks
    instead. The paper takes dense layers and does not train; here convolutions are taken as well, and `fit` trains the tables.
    """
    return Share(method="quantize.product_quantization", codebooks=codebooks, partition=partition, stored=stored,
                 tune=None if fit is None else Tune(fit=fit), exclude=exclude, checkpoint=checkpoint)


def hashed_nets(*, compression: float = 8.0, seed: int = 0, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
                exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Share:
    """A hash of its position gives every weight its bucket and its sign, so that only buckets are stored. (chen2015hashednets)

    Axes: hash buckets, hash, bucket count, summed per bucket. The hash is xxHash of 32 bits. Departs from the paper in taking
    convolutions too, and in starting from a trained network, of which little is left, so that the training has to be long.
    """
    return Share(method="quantize.hashed_nets", codebooks=Hashed(compression=compression, seed=seed), exclude=exclude,
                 tune=Tune(fit=fit or _anew(), hooks=hooks), checkpoint=checkpoint)


def freshnets(*, compression: float = 8.0, seed: int = 0, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
              exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Share:
    """Cosine coefficients of kernels share buckets by a hash, low frequencies more of them. (chen2016freshnets)

    Axes: hash buckets, hash, bucket count per frequency, summed per bucket, DCT. Linear layers hash their weights; otherwise as
    `hashed_nets`. How buckets are dealt to frequencies stands at `Frequencies`.
    """
    return Share(method="quantize.freshnets", codebooks=Frequencies(compression=compression, seed=seed), exclude=exclude,
                 tune=Tune(fit=fit or _anew(), hooks=hooks), checkpoint=checkpoint)


def bit_goes_down(*, entries: int = 256, partition: Partition = Blocks(), fit: Fit | None = None, samples: int = 256,
                  exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Share:
    """Blocks share codewords chosen for the layer's results, layer after layer, then tuned towards the original. (stock2020bit)

    Axes: product codebook, output-preserving assignment, codebook size. Errors are weighed by `E[x x']` of what the layer reads
    in the network as shared so far; codewords are half-precision, and learn by averaged gradients from the original's
    predictions. Departs from the paper: they learn once, after all layers, and not after each as well; an empty cluster moves to
    the block with the largest error.
    """
    fit = fit or Fit(epochs=3, optimizer=SGD(lr=0.01, weight_decay=0.0))
    tune = Tune(fit=fit, hooks=(Averaged(),), guide=Imitation())
    return Share(method="quantize.bit_goes_down", codebooks=KMeans(entries=entries), partition=partition, weighting=Outputs(),
                 tune=tune, stored=torch.float16, samples=samples, exclude=exclude, checkpoint=checkpoint)


def lloyd_max(*, weights: int = 4, activations: int = 8, density: Density | Empirical = Empirical(), samples: int = 512,
              exclude: tuple[str, ...] = ()) -> Static:
    """Weights on the `2^weights` levels of least squared error for their distribution. (lloyd1982pcm, max1960distortion)

    Axes: codebook, density-optimal levels, nearest level, uniform. `density` is that of the weights themselves, or a `Gaussian()`
    or `Laplace()`, whose levels are the same for every layer. Channels share the levels, and each has its own scale.
    """
    check_bits(weights, 8)
    steps = 2**weights - 1
    grid = Levels(axis=0, values=tuple((2 * i - steps) / steps for i in range(steps + 1)))
    return _tabulated("quantize.lloyd_max", (grid, LloydMax(density=density)), activations, samples, exclude)


def log_quant(*, weights: int = 4, activations: int = 8, samples: int = 512, exclude: tuple[str, ...] = ()) -> Static:
    """Weights are powers of two, scales included, so that products are shifts. (miyashita2016log)

    Axes: power of two, largest weight, nearest exponent, uniform. Activations are integers; the paper's logarithmic ones are
    `PowerOfTwo(signed=False)` in a `Scheme`. Its base of the square root of two, whose products are no shifts, is left out.
    """
    return _tabulated("quantize.log_quant", (PowerOfTwo(bits=weights, axis=0), NearestExponent()), activations, samples, exclude)


def _anew() -> Fit:
    """The usual learning rate: buckets start far from any good weights."""
    return Fit(epochs=10, optimizer=SGD(lr=0.05))


def _tabulated(method: str, table: tuple[Levels | PowerOfTwo, Rounding], activations: int, samples: int,
               exclude: tuple[str, ...]) -> Static:
    grid, rounding = table
    scheme = Scheme(weights=grid, bits=Uniform(weights=grid.bits, activations=activations), exclude=exclude)
    return Static(scheme=scheme, roundings=(rounding,), samples=samples, method=method)
