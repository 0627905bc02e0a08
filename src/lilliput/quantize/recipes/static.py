"""Methods that fix scales after training, from samples of the data, or when the network runs."""

from __future__ import annotations

from lilliput.quantize.dynamic import Dynamic
from lilliput.quantize.grids import Integer
from lilliput.quantize.posttraining import Static, static
from lilliput.quantize.ranges import MSE, Entropy, MinMax, Percentile

__all__ = ["dynamic", "entropy", "minmax", "mse", "percentile"]


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


def dynamic(*, weights: int = 8, exclude: tuple[str, ...] = ()) -> Dynamic:
    """Weights of layers as integers, and 8-bit inputs with the range of each batch at run time; the rest stays in floating point.

    Axes: integer grid, per batch, nearest, uniform. What ONNX Runtime and PyTorch call dynamic quantization; no paper.
    """
    return Dynamic(weights=Integer(bits=weights, axis=0), exclude=exclude)
