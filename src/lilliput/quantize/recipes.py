"""The published methods, each a choice on the axes grid, range, rounding, bits and gradient."""

from __future__ import annotations

from pathlib import Path

from lilliput.quantize.bits import Uniform
from lilliput.quantize.estimators import LSQ, StraightThrough
from lilliput.quantize.posttraining import Static, static
from lilliput.quantize.ranges import MSE, Entropy, MinMax, Percentile
from lilliput.quantize.scheme import Scheme
from lilliput.quantize.training import Train
from lilliput.quantize.training import train as train_quantized
from lilliput.train import Fit, Hook

__all__ = ["entropy", "lsq", "minmax", "mse", "percentile", "qat"]


def minmax(*, weights: int = 8, activations: int = 8, samples: int = 512, exclude: tuple[str, ...] = ()) -> Static:
    """Static ranges that hold every value seen. Axes: integer grid, min-max, nearest, uniform. (jacob2018quantization)"""
    return static(ranges=MinMax(), weights=weights, activations=activations, samples=samples, exclude=exclude)


def percentile(*, percentile: float = 99.999, weights: int = 8, activations: int = 8, samples: int = 512,
               exclude: tuple[str, ...] = ()) -> Static:
    """Static ranges without the outermost tails. Axes: integer grid, percentile, nearest, uniform. (wu2020integer)"""
    return static(ranges=Percentile(percentile=percentile), weights=weights, activations=activations, samples=samples, exclude=exclude)


def mse(*, weights: int = 8, activations: int = 8, samples: int = 512, exclude: tuple[str, ...] = ()) -> Static:
    """Static ranges of least squared error. Axes: integer grid, mse, nearest, uniform. (sung2015resiliency)"""
    return static(ranges=MSE(), weights=weights, activations=activations, samples=samples, exclude=exclude)


def entropy(*, weights: int = 8, activations: int = 8, samples: int = 512, exclude: tuple[str, ...] = ()) -> Static:
    """Static ranges of least lost information. Axes: integer grid, entropy, nearest, uniform. (migacz2017tensorrt)"""
    return static(ranges=Entropy(), weights=weights, activations=activations, samples=samples, exclude=exclude)


def qat(*, weights: int = 8, activations: int = 8, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Training with simulated integers. Axes: integer grid, moving extremes, nearest, uniform, straight-through.

    What departs from the paper stands at `Train`. (jacob2018quantization)
    """
    scheme = Scheme(bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return train_quantized(estimator=StraightThrough(), scheme=scheme, fit=fit, hooks=hooks, checkpoint=checkpoint)


def lsq(*, weights: int = 4, activations: int = 8, fit: Fit | None = None, hooks: tuple[Hook, ...] = (),
        exclude: tuple[str, ...] = (), checkpoint: Path | None = None) -> Train:
    """Learned step sizes; first and last layer at 8 bits. Axes: integer grid, learned, nearest, uniform, LSQ.

    What departs from the paper stands at `LSQ` and `Train`. (esser2020lsq)
    """
    scheme = Scheme(ranges=MSE(), bits=Uniform(weights=weights, activations=activations, ends=8), exclude=exclude)
    return train_quantized(estimator=LSQ(), scheme=scheme, fit=fit, hooks=hooks, checkpoint=checkpoint)
